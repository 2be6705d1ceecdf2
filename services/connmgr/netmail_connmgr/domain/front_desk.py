"""What front ends ask: every protocol ends in the same table, by the same rules."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from netmail_common.connmgr.model import SenderDecision, SenderQuestion, UserKey

from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.table import Registered

__all__ = ["Answer", "Enquiry", "FrontDesk", "FrontDeskUnavailable", "RelayedMail"]


class FrontDeskUnavailable(Exception):
    """There is no answer; nothing may be allowed for it."""


class Enquiry(NamedTuple):
    """May a client relay?

    Attributes:
        client_address: 4 or 16 octets.
        question: without senders and with Binding.ANY it asks for any live login that may grant.
        front_end: who asks, for the log: "UDP 689".
    """

    client_address: bytes
    question: SenderQuestion
    front_end: str


class Answer(NamedTuple):
    """A decision and, if it allowed by a login, for how many seconds that login still counts."""

    decision: SenderDecision
    remaining: float = 0.0


class RelayedMail(NamedTuple):
    """Mail that a known sender wants another server to relay; for its rates.

    Attributes:
        client_address: 4 or 16 octets.
        authenticated: by SMTP AUTH. False: known by a login.
        messages: 0: more recipients of a message that was counted before.
        session_id: of the login; empty: not known.
        front_end: who asks, for the log: "Postfix relay".
    """

    client_address: bytes
    user: UserKey
    authenticated: bool
    recipients: int
    messages: int
    session_id: str
    front_end: str


class FrontDesk(Protocol):
    """The Connection Manager as its front ends see it, in its own process or from another.

    Answers stand in the order of the questions. Every method may raise FrontDeskUnavailable.
    """

    async def register(self, candidates: Sequence[Candidate]) -> Sequence[Registered]:
        """Registers logins; what is not admitted is answered by Outcome.INVALID."""

    async def enquire(self, enquiries: Sequence[Enquiry]) -> Sequence[Answer]:
        """Decides, and writes down what it decided.

        Raises: ValueError, for an address that is none.
        """

    async def check_connections(
        self, questions: Sequence[ConnectionQuestion]
    ) -> Sequence[ConnectionVerdict]:
        """Judges clients by the lists, DNSBL, reverse DNS and failed logins."""

    async def count_mail(self, mails: Sequence[RelayedMail]) -> Sequence[bool]:
        """Counts mail; whether it is within the rates of its sender: what is not is not counted.

        Raises: ValueError, for an address that is none.
        """

    async def login_failed(self, question: ConnectionQuestion) -> None:
        """Counts a failed login."""

    async def log_out(self, user: UserKey | None, client_address: bytes) -> None:
        """Ends the login of a user from an address; without a user everybody's from there."""
