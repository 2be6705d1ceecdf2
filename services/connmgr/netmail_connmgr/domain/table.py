"""The login table: who logged in from which network, and until when that counts.

Pure: time comes in with each call, in seconds on one clock that never goes back. No call looks at
logins that it has nothing to do with. Logins are kept packed (netmail_common.connmgr.packed) and
unpacked when somebody asks for them.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from netmail_common.connmgr.chains import Chains
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Login,
    Registration,
    Revocation,
    UserKey,
)
from netmail_common.connmgr.packed import (
    LoginPacker,
    assembled,
    key_end,
    login_key,
    origin_of,
    place_of,
    prolonged,
    session_of,
    times_of,
    user_part,
)
from netmail_common.connmgr.records import LoginRecords
from netmail_common.networks import network_of

from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.marks import RevocationMarks
from netmail_connmgr.domain.renewals import KnownLogin, Renewals

__all__ = ["Found", "LoginTable", "Outcome", "Registered", "TableLimits"]

_DROP_AT_ONCE = 256
"""Expired logins that one call cleans up; a crowd that ends at once must not stop the rest."""
_UNPACKED = 4096
"""Logins that were asked for lately, kept as they are used; a record stands for one login only.

As many places that were asked for are kept with their logins, until one of these changes, and as
many logins that were renewed."""
_FEW = 8
"""Logins of a place that is kept so."""
_REMEMBER_EXPIRED = 65_536
"""Places where a login is remembered to have expired, to say so."""


@dataclass(frozen=True, slots=True)
class TableLimits:
    """Bounds of a table; the fields are those of the configuration."""

    login_lifetime: float = 900.0
    max_networks_per_user: int = 64
    max_logins: int = 2_000_000


class Outcome(Enum):
    """What became of a registration.

    Attributes:
        keeps: the login is in the table now, whether it grants or not.
    """

    __hash__ = object.__hash__  # as quick as any object's; Enum's own is Python code

    def __init__(self, text: str) -> None:
        self.keeps = text in {"registered", "shared network"}

    REGISTERED = "registered"
    SHARED_NETWORK = "shared network"
    REVOKED = "revoked"
    INVALID = "invalid"
    EXPIRED = "expired"
    TABLE_FULL = "table full"


class Registered(NamedTuple):
    """Answer to a registration.

    Attributes:
        remaining: seconds that the login is live; 0 if it was refused.
        renewed: it was in the table already.
    """

    outcome: Outcome
    remaining: float = 0.0
    renewed: bool = False


_REVOKED = Registered(Outcome.REVOKED)
_EXPIRED = Registered(Outcome.EXPIRED)
_TABLE_FULL = Registered(Outcome.TABLE_FULL)
_GRANTS, _SHARED = Outcome.REGISTERED, Outcome.SHARED_NETWORK


class Found(NamedTuple):
    """Live logins of a place.

    Attributes:
        now: the time that it was looked up, on the clock of the logins' times.
        expired: there is none, but there was one not long ago.
    """

    now: float
    logins: tuple[Login, ...] = ()
    expired: bool = False


class LoginTable:
    """Logins by (place, user), each with its own expiry.

    Attributes:
        packer: of its records.
    """

    def __init__(self, limits: TableLimits, changes: ChangeLog) -> None:
        self.limits = limits
        self.changes = changes
        self.marks = RevocationMarks(max_marks=limits.max_logins)
        self.packer = LoginPacker()
        self._unpack = functools.lru_cache(maxsize=_UNPACKED)(self.packer.unpack)
        self._lately: dict[bytes, tuple[Login, ...]] = {}
        self._renewals = Renewals(_UNPACKED)
        self._records = LoginRecords()
        self._users = Chains()
        self._expired: dict[bytes, float] = {}  # place -> when, oldest first
        self._serial = 0
        self._cleaned = -1

    def __len__(self) -> int:
        return len(self._records)

    def register(self, registration: Registration, now: float) -> Registered:
        """Adds a login or renews it. Doing it again changes nothing."""
        if int(now) != self._cleaned:
            self.drop_expired(now)
        user, place = registration.profile.user, registration.place
        network = network_of(place)
        verified = now - registration.age
        if self.marks.refuse(user, network, verified, registration.credential_epoch, now):
            return _REVOKED
        lifetime = self.limits.login_lifetime
        left = lifetime if registration.renewal else lifetime - registration.age
        if left <= 0:
            return _EXPIRED
        expires = now + left
        granted = _GRANTS if network == place else _SHARED
        known = self._renewals.renewed(registration, verified, expires, now, self._records)
        if known is not None:
            self._keep(known.slot, known.record, place)
            return Registered(granted, known.expires - now, True)
        key = login_key(place, user)
        slot = self._live(key, user, now)
        if not slot and not self._make_room(now):
            return _TABLE_FULL
        if slot:
            expires = self._renew(slot, len(key), registration, verified, expires)
        else:
            self._add(key, self._new_login(registration, verified, expires))
        return Registered(granted, expires - now, bool(slot))

    def find(self, place: bytes, now: float) -> Found:
        """The live logins of a place."""
        self.drop_expired(now)
        logins = self.logins_at(place)
        for login in logins:
            if login.expires <= now:
                live = tuple([one for one in logins if one.expires > now])
                break
        else:
            live = logins
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
        gone: list[Login] = []
        keys: list[bytes] = []
        for slot in self._candidates(revocation):
            record = self._records[slot]
            login = self.packer.unpack(record)
            if revocation.covers(
                login.user, network_of(login.place), login.verified, login.credential_epoch
            ):
                gone.append(login)
                keys.append(record[: key_end(record)])
                self._remove(slot)
        self.changes.revoked(revocation, tuple(keys))
        return tuple(login for login in gone if login.expires > revocation.made)

    def snapshot(self) -> list[bytes]:
        """The records of all logins, as of the change log's revision.

        Empty ones and those of logins that have expired may be among them.
        """
        return self._records.all()

    def logins_at(self, place: bytes) -> tuple[Login, ...]:
        """Logins of a place, expired ones maybe among them."""
        logins = self._lately.get(place)
        if logins is None:
            logins = tuple([self._unpack(self._records[slot]) for slot in self._records.at(place)])
            if 0 < len(logins) <= _FEW:
                if len(self._lately) >= _UNPACKED:
                    del self._lately[next(iter(self._lately))]
                self._lately[place] = logins
        return logins

    def numbered(self, after: int, user: UserKey | None, network: bytes | None) -> Iterator[int]:
        """Numbers of logins behind a number, growing, each found when it is asked for.

        A login keeps its number.

        Args:
            after: 0: all.
            user: only of this user.
            network: Located.key; only from there.
        """
        if user is not None:
            return iter(sorted(slot for slot in self._slots_of(user) if slot > after))
        if network is not None:
            return iter(sorted(slot for slot in self._slots_in(network) if slot > after))
        return self._records.slots_after(after)

    def login(self, number: int) -> Login | None:
        """The login of a number; None if it has gone."""
        record = self._records[number]
        return self.packer.unpack(record) if record else None

    def drop_expired(self, now: float, limit: int = _DROP_AT_ONCE) -> int:
        """Cleans up what is over; how many logins were looked at, at most LIMIT."""
        second = int(now)
        if second == self._cleaned:
            return 0  # nothing that is added now ends before this second
        over, looked = self._records.expired(now, limit)
        for slot in over:
            record = self._remove(slot)
            place = place_of(record)
            if not self._records.at(place):
                self._remember_expired(place, times_of(record, key_end(record))[0])
        if looked < limit:
            self._cleaned = second
        return looked

    def _live(self, key: bytes, user: UserKey, now: float) -> int:
        """The slot of a live login; 0: there is none, and none that is over."""
        records = self._records
        for slot in self._users.find(_user_index(user, key)):
            record = records[slot]
            if record.startswith(key):
                if times_of(record, len(key))[0] > now:
                    return slot
                self._remove(slot)
        return 0

    def _slots_of(self, user: UserKey, place: bytes = b"") -> list[int]:
        """The user's slots; of ANONYMOUS, who may have any number, those of a place."""
        part = user_part(user)
        return [
            slot
            for slot in self._users.find(_user_index(user, login_key(place, user)))
            if self._records[slot].startswith(part, 2 + self._records[slot][1])
        ]

    def _slots_in(self, network: bytes) -> list[int]:
        """Logins from a network, whether they grant or not."""
        return [slot for place in (network, network + b"-") for slot in self._records.at(place)]

    def _make_room(self, now: float) -> bool:
        while len(self) >= self.limits.max_logins:
            if not self.drop_expired(now):
                return False
        return True

    def _evict(self, user: UserKey) -> tuple[bytes, ...]:
        """Takes away the oldest login of a user who comes from too many networks; its key."""
        if user == ANONYMOUS:
            return ()
        slots = self._slots_of(user)
        if len(slots) < self.limits.max_networks_per_user:
            return ()
        logins = {slot: self.packer.unpack(self._records[slot]) for slot in slots}
        oldest = min(slots, key=lambda slot: (logins[slot].expires, logins[slot].serial))
        record = self._remove(oldest)
        return (record[: key_end(record)],)

    def _new_login(self, registration: Registration, verified: float, expires: float) -> Login:
        self._serial += 1
        return Login(
            serial=self._serial,
            profile=registration.profile,
            place=registration.place,
            client_address=registration.client_address,
            protocol=registration.protocol,
            messaging_server=registration.messaging_server,
            session_id=registration.session_id,
            verified=verified,
            expires=expires,
            credential_epoch=registration.credential_epoch,
        )

    def _add(self, key: bytes, login: Login) -> None:
        gone = self._evict(login.user)
        record = self.packer.pack(login)
        self.packer.origins.use(origin_of(record, len(key)))
        slot = self._records.add(record)
        self._users.add(_user_index(login.user, key), slot)
        self._expired.pop(login.place, None)
        self._lately.pop(login.place, None)
        self.changes.changed(record, gone)

    def _renew(
        self, slot: int, end: int, registration: Registration, verified: float, expires: float
    ) -> float:
        """Takes over what a registration says that is new; when the login ends then.

        Args:
            end: of the key in the record.
        """
        record, packer = self._records[slot], self.packer
        earlier_expires, earlier_verified = times_of(record, end)
        session = registration.session_id
        session_at = packer.session_at(record, end, registration)
        earlier = None if session_at else packer.unpack(record)
        if earlier is None:
            repeated = session and session.encode() == session_of(record, session_at)
        else:
            repeated = session and session == earlier.session_id
        if repeated and not registration.renewal:
            return earlier_expires
        expires = max(expires, earlier_expires)
        if repeated or verified < earlier_verified:
            if expires != earlier_expires:
                self._replace(slot, end, prolonged(record, end, expires))
        elif earlier is None:
            parts = packer.parts(record, end, session_at, registration)
            renewed = assembled(parts, expires, verified, session)
            self._replace(slot, end, renewed)
            self._renewals.learn(KnownLogin(slot, renewed, parts, registration, verified, expires))
        else:
            login = _changed(earlier, registration, verified, expires)
            self._replace(slot, end, packer.pack(login))
        return expires

    def _replace(self, slot: int, end: int, record: bytes) -> None:
        origin, earlier = origin_of(record, end), origin_of(self._records[slot], end)
        self._keep(slot, record, place_of(record))
        if origin != earlier:
            self.packer.origins.use(origin)
            self.packer.origins.release(earlier)

    def _keep(self, slot: int, record: bytes, place: bytes) -> None:
        """Puts another record of a login in the place of its earlier one."""
        self._records.replace(slot, record)
        self._lately.pop(place, None)
        self.changes.changed(record)

    def _remove(self, slot: int) -> bytes:
        record = self._records.remove(slot)
        self._lately.pop(place_of(record), None)
        self._users.remove(slot)
        self.packer.origins.release(origin_of(record, key_end(record)))
        return record

    def _candidates(self, revocation: Revocation) -> list[int]:
        if revocation.user is not None:
            return self._slots_of(revocation.user)
        return [] if revocation.network is None else self._slots_in(revocation.network)

    def _remember_expired(self, place: bytes, when: float) -> None:
        self._expired.pop(place, None)
        self._expired[place] = when
        if len(self._expired) > _REMEMBER_EXPIRED:
            del self._expired[next(iter(self._expired))]


def _user_index(user: UserKey, key: bytes) -> bytes:
    """What a user's logins are filed under."""
    return key if user == ANONYMOUS else user_part(user)


def _changed(earlier: Login, registration: Registration, verified: float, expires: float) -> Login:
    """A login with everything that a later registration says."""
    return earlier._replace(
        profile=registration.profile,
        client_address=registration.client_address,
        protocol=registration.protocol,
        messaging_server=registration.messaging_server,
        session_id=registration.session_id,
        verified=verified,
        expires=expires,
        credential_epoch=_later_epoch(earlier, registration),
    )


def _later_epoch(earlier: Login, registration: Registration) -> int | None:
    """Whoever proved the newer password from here keeps having proved it."""
    if registration.credential_epoch is None or earlier.credential_epoch is None:
        return registration.credential_epoch
    return max(registration.credential_epoch, earlier.credential_epoch)
