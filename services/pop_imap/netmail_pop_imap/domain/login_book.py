"""Which logins the Connection Manager has to know, and when it has to be told again. No IO.

Times are seconds of one clock that never goes back and counts while the machine sleeps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from netmail_common.sasl import AuthenticatedUser

from netmail_pop_imap.domain.session import Session

IPAddress = IPv4Address | IPv6Address

FIRST_RETRY = 0.5
"""Seconds until a registration that failed is tried again; doubles each time."""
MAX_RETRY = 5.0


@dataclass(slots=True, eq=False)
class Login:
    """One login. `session` is None once its session has ended."""

    user: AuthenticatedUser
    client_address: IPAddress
    protocol: str
    session_id: str
    verified_at: float
    session: Session | None
    renewed_at: float = 0.0
    """When its lifetime last began."""
    renew_after: float = 0.0
    """When the third of the lifetime began after which it is renewed."""
    revoked: bool = False
    attempts: int = 0
    retry_at: float = 0.0

    def __post_init__(self) -> None:
        self.renewed_at = self.renew_after = self.verified_at

    @property
    def key(self) -> tuple[str, str, IPAddress]:
        """What the Connection Manager tells logins apart by."""
        return self.user.name, self.user.context, self.client_address


class LoginBook:
    """The logins of a process that have not expired.

    Args:
        lifetime: seconds; the Connection Manager says it with each answer.
        retry_for: how long after a login its registration is tried again.
        renew: an open session renews its login every third of the lifetime.
    """

    def __init__(self, *, lifetime: float, retry_for: float, renew: bool) -> None:
        self.lifetime = lifetime
        self._retry_for = retry_for
        self._renew = renew
        # In the order of renew_after: a renewal moves a login to the end.
        self._open: dict[Login, None] = {}
        # The newest of each user and address; sessions that poll leave one entry, not thousands.
        self._closed: dict[tuple[str, str, IPAddress], Login] = {}
        self._waiting: dict[Login, None] = {}

    def __len__(self) -> int:
        return len(self._open) + len(self._closed)

    @property
    def waiting(self) -> int:
        """Logins whose registration is to be tried again."""
        return len(self._waiting)

    def add(self, login: Login) -> None:
        """A login whose session is open."""
        self._open[login] = None

    def end(self, login: Login) -> None:
        """The session of the login has ended; the login lives on."""
        login.session = None
        if self._open.pop(login, login) is None:
            self._closed[login.key] = login

    def registered(self, login: Login, now: float, *, renewed: bool) -> None:
        """The Connection Manager has it."""
        self._waiting.pop(login, None)
        login.attempts = 0
        if renewed:
            login.renewed_at = now

    def failed(self, login: Login, now: float) -> bool:
        """The Connection Manager did not answer; False: it was the last time for this login."""
        delay = min(FIRST_RETRY * 2**login.attempts, MAX_RETRY)
        login.attempts += 1
        login.retry_at = now + delay
        if login.retry_at > login.verified_at + self._retry_for:
            self._waiting.pop(login, None)
            return False
        self._waiting[login] = None
        return True

    def forget(self, login: Login) -> None:
        """The login is no more: refused, revoked or expired."""
        self._open.pop(login, None)
        self._waiting.pop(login, None)
        if self._closed.get(login.key) is login:
            del self._closed[login.key]

    def retries(self, now: float) -> list[Login]:
        """Logins to register again now."""
        return [login for login in self._waiting if login.retry_at <= now]

    def waiting_now(self) -> list[Login]:
        """Logins whose registration is to be tried again, whenever that would be."""
        return list(self._waiting)

    def take_renewals(self, now: float) -> list[Login]:
        """Open logins that are due for renewal; each comes again after a third of the lifetime."""
        if not self._renew:
            return []
        due = []
        for login in self._open:
            if login.renew_after + self.lifetime / 3 > now:
                break
            due.append(login)
        for login in due:
            login.renew_after = now
            del self._open[login]
            self._open[login] = None
        return due

    def unexpired(self, now: float) -> Iterator[Login]:
        """Every login that a Connection Manager without memory has to be told."""
        yield from self._open
        for login in self._closed.values():
            if now < login.renewed_at + self.lifetime:
                yield login

    def expire(self, now: float) -> None:
        """Forgets ended logins whose lifetime is over."""
        limit = now - self.lifetime
        for login in [one for one in self._closed.values() if one.renewed_at <= limit]:
            self.forget(login)

    def revoke(self, covers: Callable[[Login], bool]) -> list[Login]:
        """Forgets the logins that a revocation covers and gives them, for their sessions to end."""
        hit = [login for login in (*self._open, *self._closed.values()) if covers(login)]
        for login in hit:
            login.revoked = True
            self.forget(login)
        return hit
