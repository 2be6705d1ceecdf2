"""The login table: who logged in from which network, and until when that counts.

Pure: time comes in with each call, in seconds on one clock that never goes back. No call looks at
logins that it has nothing to do with.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

from netmail_common.connmgr.model import (
    ANONYMOUS,
    Login,
    Profile,
    Registration,
    Revocation,
    UserKey,
)
from netmail_common.networks import network_of

from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.expiry import ExpiryWheel
from netmail_connmgr.domain.marks import RevocationMarks
from netmail_connmgr.domain.places import Places

__all__ = ["Found", "LoginTable", "Outcome", "Registered", "TableLimits", "UserLogins"]

_DROP_AT_ONCE = 256
"""Expired logins that one call cleans up; a crowd that ends at once must not stop the rest."""
_REMEMBER_EXPIRED = 65_536
"""Places where a login is remembered to have expired, to say so."""


@dataclass(frozen=True, slots=True)
class TableLimits:
    """Bounds of a table; the fields are those of the configuration."""

    login_lifetime: float = 900.0
    max_networks_per_user: int = 64
    max_logins: int = 2_000_000


class Outcome(Enum):
    """What became of a registration."""

    REGISTERED = "registered"
    SHARED_NETWORK = "shared network"
    REVOKED = "revoked"
    INVALID = "invalid"
    EXPIRED = "expired"
    TABLE_FULL = "table full"


@dataclass(frozen=True, slots=True)
class Registered:
    """Answer to a registration.

    Attributes:
        remaining: seconds that the login is live; 0 if it was refused.
        renewed: it was in the table already.
    """

    outcome: Outcome
    remaining: float = 0.0
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Live logins of a place.

    Attributes:
        now: the time that it was looked up, on the clock of the logins' times.
        expired: there is none, but there was one not long ago.
    """

    now: float
    logins: tuple[Login, ...] = ()
    expired: bool = False


@dataclass(slots=True)
class UserLogins:
    """A user's logins by place, in the order in which they were made."""

    serial: int
    profile: Profile
    logins: dict[bytes, Login] = field(default_factory=dict)


class LoginTable:
    """Logins by (place, user), each with its own expiry."""

    def __init__(self, limits: TableLimits, changes: ChangeLog) -> None:
        self.limits = limits
        self.changes = changes
        self.marks = RevocationMarks(max_marks=limits.max_logins)
        self.users: dict[UserKey, UserLogins] = {}  # by growing serial
        self._places = Places()
        self._expiry = ExpiryWheel[tuple[bytes, UserKey]]()
        self._expired: dict[bytes, float] = {}  # place -> when, oldest first
        self._size = 0
        self._serial = 0

    def __len__(self) -> int:
        return self._size

    def register(self, registration: Registration, now: float) -> Registered:
        """Adds a login or renews it. Doing it again changes nothing."""
        self.drop_expired(now)
        user, place = registration.profile.user, registration.place
        verified = now - registration.age
        epoch = registration.credential_epoch
        if self.marks.refuse(user, network_of(place), verified, epoch, now):
            return Registered(Outcome.REVOKED)
        expires = (now if registration.renewal else verified) + self.limits.login_lifetime
        if expires <= now:
            return Registered(Outcome.EXPIRED)
        earlier = self._live(place, user, now)
        if earlier is None and not self._make_room(now):
            return Registered(Outcome.TABLE_FULL)
        login = self._merge(earlier, registration, verified, expires)
        if login is not earlier:
            gone = self._evict(user) if earlier is None else ()
            self._put(login)
            self.changes.changed(login, gone)
        outcome = Outcome.REGISTERED if network_of(place) == place else Outcome.SHARED_NETWORK
        return Registered(outcome, login.expires - now, renewed=earlier is not None)

    def find(self, place: bytes, now: float) -> Found:
        """The live logins of a place."""
        self.drop_expired(now)
        logins = self._places.at(place)
        live = tuple(login for login in logins if login.expires > now)
        if live:
            return Found(now, live)
        when = self._expired.get(place)
        recently = when is not None and now - when < self.limits.login_lifetime
        return Found(now, expired=recently or bool(logins))

    def revoke(self, revocation: Revocation) -> tuple[Login, ...]:
        """Ends the logins that the revocation covers and refuses late registrations of such.

        Raises: TooManyMarks; nothing was revoked then.
        """
        self.drop_expired(revocation.made)
        self.marks.add(revocation)
        gone = tuple(
            login
            for login in self._candidates(revocation)
            if revocation.covers(
                login.user, network_of(login.place), login.verified, login.credential_epoch
            )
        )
        for login in gone:
            self._remove(login)
        self.changes.revoked(revocation, gone)
        return tuple(login for login in gone if login.expires > revocation.made)

    def snapshot(self, now: float) -> list[Login]:
        """All live logins, as of the change log's revision."""
        return [
            login
            for user in self.users.values()
            for login in user.logins.values()
            if login.expires > now
        ]

    def logins_in(self, network: bytes) -> list[Login]:
        """Logins from a network, whether they grant or not, expired ones maybe among them."""
        return [login for place in (network, network + b"-") for login in self._places.at(place)]

    def drop_expired(self, now: float, limit: int = _DROP_AT_ONCE) -> int:
        """Cleans up what is over, at most LIMIT logins; how many it were."""
        due = self._expiry.due(now, limit)
        for (place, user), _ in due:
            login = self.users[user].logins[place]
            self._remove(login)
            if place not in self._places:
                self._remember_expired(place, login.expires)
        return len(due)

    def _live(self, place: bytes, user: UserKey, now: float) -> Login | None:
        login = self._places.get(place, user)
        if login is not None and login.expires <= now:
            self._remove(login)
            return None
        return login

    def _make_room(self, now: float) -> bool:
        while self._size >= self.limits.max_logins:
            if not self.drop_expired(now):
                return False
        return True

    def _evict(self, user: UserKey) -> tuple[Login, ...]:
        """Takes away the oldest login of a user who comes from too many networks."""
        known = self.users.get(user)
        limit = self.limits.max_networks_per_user
        if known is None or user == ANONYMOUS or len(known.logins) < limit:
            return ()
        oldest = min(known.logins.values(), key=lambda login: (login.expires, login.serial))
        self._remove(oldest)
        return (oldest,)

    def _merge(
        self, earlier: Login | None, registration: Registration, verified: float, expires: float
    ) -> Login:
        """The login as the registration leaves it; EARLIER itself if it says nothing new."""
        if earlier is None:
            self._serial += 1
            return Login(
                serial=self._serial,
                profile=self._shared(registration.profile),
                place=registration.place,
                client_address=registration.client_address,
                protocol=registration.protocol,
                messaging_server=registration.messaging_server,
                agent=registration.agent,
                session_id=registration.session_id,
                verified=verified,
                expires=expires,
                credential_epoch=registration.credential_epoch,
            )
        repeated = registration.session_id and registration.session_id == earlier.session_id
        if repeated and not registration.renewal:
            return earlier
        expires = max(expires, earlier.expires)
        if repeated or verified < earlier.verified:
            return earlier if expires == earlier.expires else replace(earlier, expires=expires)
        return replace(
            earlier,
            profile=self._shared(registration.profile),
            client_address=registration.client_address,
            protocol=registration.protocol,
            messaging_server=registration.messaging_server,
            agent=registration.agent,
            session_id=registration.session_id,
            verified=verified,
            expires=expires,
            credential_epoch=_later_epoch(earlier, registration),
        )

    def _shared(self, profile: Profile) -> Profile:
        known = self.users.get(profile.user)
        return known.profile if known is not None and known.profile == profile else profile

    def _put(self, login: Login) -> None:
        earlier = self._places.get(login.place, login.user)
        if earlier is None:
            self._size += 1
            self._expired.pop(login.place, None)
        else:
            self._expiry.remove((login.place, login.user), earlier.expires)
        self._expiry.add((login.place, login.user), login.expires)
        self._places.put(login)
        known = self.users.get(login.user)
        if known is None:
            known = self.users[login.user] = UserLogins(login.serial, login.profile)
        known.profile = login.profile
        known.logins[login.place] = login

    def _remove(self, login: Login) -> None:
        self._places.remove(login)
        known = self.users[login.user]
        del known.logins[login.place]
        if not known.logins:
            del self.users[login.user]
        self._expiry.remove((login.place, login.user), login.expires)
        self._size -= 1

    def _candidates(self, revocation: Revocation) -> list[Login]:
        if revocation.user is not None:
            known = self.users.get(revocation.user)
            return list(known.logins.values()) if known else []
        return [] if revocation.network is None else self.logins_in(revocation.network)

    def _remember_expired(self, place: bytes, when: float) -> None:
        self._expired.pop(place, None)
        self._expired[place] = when
        if len(self._expired) > _REMEMBER_EXPIRED:
            del self._expired[next(iter(self._expired))]


def _later_epoch(earlier: Login, registration: Registration) -> int | None:
    """Whoever proved the newer password from here keeps having proved it."""
    if registration.credential_epoch is None or earlier.credential_epoch is None:
        return registration.credential_epoch
    return max(registration.credential_epoch, earlier.credential_epoch)
