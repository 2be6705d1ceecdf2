"""What the Connection Manager knows and says, whatever store or front end it goes through."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple

__all__ = [
    "ANONYMOUS",
    "Binding",
    "CheckedSender",
    "Decision",
    "Login",
    "LoginProtocol",
    "Profile",
    "Reason",
    "Registration",
    "Revocation",
    "SenderDecision",
    "SenderQuestion",
    "UserKey",
]


class UserKey(NamedTuple):
    """A user of a context; both empty: nobody known by name (legacy clients only)."""

    name: str
    context: str

    def __str__(self) -> str:
        """Gives `alice.users.demo`, as NetMail writes it."""
        return f"{self.name}.{self.context}" if self.context else self.name


ANONYMOUS = UserKey("", "")


class _Kind(Enum):
    """Hashes as quickly as any object; Enum's own is Python code, and asked at each decision."""

    __hash__ = object.__hash__


class LoginProtocol(_Kind):
    """How the user logged in."""

    POP3 = 1
    IMAP = 2
    LEGACY_UDP = 3
    WHOSON = 4
    AUTH_POLICY = 5


class Binding(StrEnum):
    """Which senders a login vouches for."""

    STRICT = "strict"
    DOMAIN = "domain"
    ANY = "any"


class Decision(_Kind):
    """May the client relay?"""

    ALLOWED = "allowed"
    DENIED = "denied"
    MUST_AUTHENTICATE = "must authenticate"


class Reason(_Kind):
    """Why the decision is what it is."""

    LOGIN = "login"
    NO_LOGIN = "no login"
    EXPIRED = "expired"
    SHARED_NETWORK = "shared network"
    NEVER_GRANTS = "never grants"
    SENDER_NOT_OWNED = "sender not owned"
    SENDER_OF_OTHER_USER = "sender of other user"
    NO_USER = "login without a user"
    LISTED = "always allowed"
    BLOCKED = "blocked"


class Profile(NamedTuple):
    """What a login says about its user; shared by the logins of the user that say the same.

    Attributes:
        user: whose.
        addresses: the user's mail addresses in wire spelling.
        address_keys: the same, as MailAddress.key().
        domains: of the Messaging Server that holds the user, lower-case A-labels.
    """

    user: UserKey
    addresses: tuple[str, ...] = ()
    address_keys: tuple[str, ...] = ()
    domains: frozenset[str] = frozenset()


class Registration(NamedTuple):
    """A login that wants to be remembered.

    Attributes:
        place: the network and whether it may grant (Located.place).
        age: seconds since the password was verified.
        credential_epoch: the user's credential counter; None where the agent knows none.
        renewal: an open session renews; its lifetime counts from now.
    """

    profile: Profile
    place: bytes
    client_address: bytes
    protocol: LoginProtocol
    messaging_server: str
    agent: str
    session_id: str
    age: float
    credential_epoch: int | None
    renewal: bool = False


class Login(NamedTuple):
    """A login in the table. Times are seconds on the table's clock.

    Attributes:
        serial: grows with each new login; renewals keep it.
        verified: when the password was verified.
        expires: from then on the login is not live.
    """

    serial: int
    profile: Profile
    place: bytes
    client_address: bytes
    protocol: LoginProtocol
    messaging_server: str
    session_id: str
    verified: float
    expires: float
    credential_epoch: int | None

    @property
    def user(self) -> UserKey:
        """Who logged in."""
        return self.profile.user


@dataclass(frozen=True, slots=True)
class Revocation:
    """Ends logins, and refuses registrations that are older than itself.

    Attributes:
        made: when, on the table's clock.
        user: whose logins; None: any user's.
        network: Located.key of the network; None: any.
        credential_epoch: logins with a smaller one are revoked; 0: all that are older than `made`.
        client_address: as it was asked for; for the log and the watchers.
        reason: a word or two.
    """

    made: float
    user: UserKey | None
    network: bytes | None
    credential_epoch: int
    client_address: bytes | None = None
    prefix_length: int = 0
    reason: str = ""

    def covers(
        self, user: UserKey, network: bytes, verified: float, credential_epoch: int | None
    ) -> bool:
        """Whether it ends this login.

        By credential epoch where both know one, else by age: a login with the new password may
        come in before the revocation of the old one does, and must stay.
        """
        if self.user is not None and self.user != user:
            return False
        if self.network is not None and self.network != network:
            return False
        if self.credential_epoch and credential_epoch is not None:
            return credential_epoch < self.credential_epoch
        return verified <= self.made


@dataclass(frozen=True, slots=True)
class CheckedSender:
    """A sender of a message.

    Attributes:
        address: as it was given; named in refusals.
        key: MailAddress.key(); empty if it is no address.
        domain: lower-case A-labels; empty if it is no address.
        known: the directory was asked whose it is.
        owner: its answer; None: nobody's.
    """

    address: str
    key: str = ""
    domain: str = ""
    known: bool = False
    owner: UserKey | None = None


class SenderQuestion(NamedTuple):
    """May a client with these senders relay?"""

    senders: tuple[CheckedSender, ...] = ()
    binding: Binding = Binding.STRICT


class SenderDecision(NamedTuple):
    """The answer.

    Attributes:
        login: the one that is named in the trace: the sender's owner's, else the newest.
        users: everybody with a live login there, newest first, at most MAX_NAMED_USERS.
        user_count: how many there are.
        refused_sender: with DENIED.
    """

    decision: Decision
    reason: Reason
    login: Login | None = None
    users: tuple[UserKey, ...] = ()
    user_count: int = 0
    refused_sender: str = ""
