"""May a client connect, and may it try to log in?"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from netmail_common.connmgr.model import UserKey

__all__ = ["ConnectionChecks", "ConnectionQuestion", "ConnectionVerdict", "Service", "Verdict"]


class Service(Enum):
    """Where a client wants in."""

    UNKNOWN = 0
    SMTP = 1
    SUBMISSION = 2
    POP3 = 3
    IMAP = 4


class Verdict(Enum):
    """What becomes of it."""

    ALLOWED = "allowed"
    DENY_TEMPORARY = "denied for now"
    DENY_PERMANENT = "denied"


class ConnectionQuestion(NamedTuple):
    """A connection that has come, or a login that is about to be judged.

    Attributes:
        client_address: 4 or 16 octets.
        user: whose login; None: none, or of nobody that exists.
        typed_name: the name as it was typed, where no such user exists.
    """

    client_address: bytes
    service: Service = Service.UNKNOWN
    messaging_server: str = ""
    listener: str = ""
    agent: str = ""
    user: UserKey | None = None
    typed_name: str = ""

    @property
    def is_login(self) -> bool:
        """Whether it is about a login."""
        return self.user is not None or bool(self.typed_name)


class ConnectionVerdict(NamedTuple):
    """The answer to a ConnectionQuestion.

    Attributes:
        comment: for the client, printable ASCII in one line; may be empty.
        require_auth: allowed, but must authenticate before it sends anything.
        delay: seconds before a login is answered.
        deny_for: seconds that a denial lasts, about.
        rule: which one decided, for the log; empty: none had anything to say.
    """

    verdict: Verdict = Verdict.ALLOWED
    comment: str = ""
    require_auth: bool = False
    delay: float = 0.0
    deny_for: float = 0.0
    rule: str = ""


class ConnectionChecks(Protocol):
    """All rules about connections, in their order: lists, DNSBL, reverse DNS, guessing."""

    @property
    def every_connection(self) -> bool:
        """Whether connections are to be checked that no suspicion is about."""

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        """Judges; whatever cannot be found out in time speaks for the client.

        Raises: ValueError, for an address that is none.
        """

    async def explain(self, question: ConnectionQuestion) -> tuple[ConnectionVerdict, list[str]]:
        """Judges one client for people: every rule is asked, and what each said is told.

        Raises: ValueError, for an address that is none.
        """
