"""What is delivered: envelopes, recipients, bodies, and what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from netmail_common.mail_address import quote_local

from netmail_nmap.domain.dsn import Notify

DEFAULT_NOTIFY = Notify()
"""The sender said nothing: failures and delays are reported."""
MAX_INLINE_BODY = 1024 * 1024
"""Octets of a body that may travel and wait in memory in one piece."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient as the envelope names it."""

    address: str
    """local@domain, local part unquoted, domain as A-labels."""
    notify: Notify = DEFAULT_NOTIFY
    original_recipient: str = ""
    """DSN ORCPT, xtext decoded."""

    @property
    def domain(self) -> str:
        """The destination domain, A-labels in lower case."""
        return self.address.rpartition("@")[2].lower()


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sent a message to whom, and how (RFC 5321 2.3.1, RFC 3461)."""

    message_id: str
    """The queue's id, not the Message-ID field."""
    sender: str
    """Empty: the null sender."""
    recipients: tuple[Recipient, ...]
    smtputf8: bool = False
    body_8bit: bool = False
    return_headers_only: bool = False
    envelope_id: str = ""
    messaging_server: str = ""
    relayed_for: str = ""

    @property
    def return_path(self) -> bytes:
        """The header field that local delivery prepends (RFC 5321 4.4)."""
        local, at, domain = self.sender.rpartition("@")
        sender = f"{quote_local(local)}@{domain}" if at else ""
        return f"Return-Path: <{sender}>\r\n".encode()


@dataclass(frozen=True, slots=True)
class Expansion:
    """Where mail to one address goes: aliases, catch-all and forwarding followed, loops cut."""

    users: tuple[int, ...] = ()
    """Ids of the users whose INBOX takes it."""
    remote: tuple[str, ...] = ()
    """Addresses that go to the queue: the address itself if its domain is not ours, forwarding."""

    @property
    def unknown(self) -> bool:
        """The domain is ours and nobody takes the mail."""
        return not self.users and not self.remote


class RecipientResolver(Protocol):
    """The directory's part in delivery."""

    async def expand(
        self, addresses: Sequence[str], *, handed_over: bool = False
    ) -> list[Expansion]:
        """Tells where mail to each address (local@domain) goes; same order, same length.

        HANDED_OVER: another NMAP agent hands the message over; it is not forwarded to one again.

        A disabled user counts as unknown. An address whose domain this NMAP agent does not serve
        is its own `remote`. Never raises for an odd address: that one is unknown.
        """


class StoredBody(Protocol):
    """A large body that is in the store already, without a reference yet."""

    @property
    def size(self) -> int:
        """Octets, the local part not counted."""


Body = bytes | StoredBody


@dataclass(frozen=True, slots=True)
class Submission:
    """One message to take."""

    envelope: Envelope
    body: Body
    expansions: tuple[Expansion, ...]
    """One for each recipient of the envelope."""
    sender: Expansion | None = None
    """Where mail to the sender goes; needed when a recipient has NOTIFY=SUCCESS."""


class SubmitOutcome(Enum):
    """What became of a submission."""

    ACCEPTED = auto()
    TEMPORARY_FAILURE = auto()
    INSUFFICIENT_STORAGE = auto()
    INVALID = auto()


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The answer to one submission."""

    outcome: SubmitOutcome
    delivered: int = 0
    """Mailboxes that have it."""
    queued: int = 0
    """Recipients in the queue."""


class DeliveryOutcome(Enum):
    """What became of one recipient at the next hop."""

    DELIVERED = auto()
    DEFERRED = auto()
    FAILED = auto()


@dataclass(frozen=True, slots=True)
class DeliverResult:
    """What became of one recipient that another NMAP agent handed over."""

    address: str
    outcome: DeliveryOutcome
    status: str
    diagnostic: str = ""


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """What the next hop said about one leased recipient."""

    address: str
    outcome: DeliveryOutcome
    status: str = ""
    diagnostic: str = ""
    remote_mta: str = ""
    dsn_passed_on: bool = False
    final: bool = False
    """It is in the recipient's mailbox: delivered, not relayed."""


@dataclass(frozen=True, slots=True)
class ItemReport:
    """What became of a leased item; fenced."""

    lease_id: int
    fence: int
    recipients: tuple[RecipientReport, ...] = ()
    untried: bool = False


@dataclass(frozen=True, slots=True)
class LeasedItem:
    """All due recipients of one message for one destination, under one lease."""

    lease_id: int
    fence: int
    envelope: Envelope
    destination: str
    attempt: int
    """Attempts so far, this one included."""
    size: int
    age: int
    """Seconds since the message was accepted."""
    data: bytes | None = None
    """Small bodies come along."""


class QueueState(Enum):
    """Where a queue item stands."""

    READY = auto()
    LEASED = auto()
    DEFERRED = auto()
    HELD = auto()


@dataclass(frozen=True, slots=True)
class QueuedRecipient:
    """A recipient in the queue, for operators."""

    address: str
    destination: str
    state: QueueState
    attempts: int
    due_in: int
    """Seconds; 0: due."""
    last_status: str
    last_diagnostic: str


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message in the queue, for operators."""

    message_id: str
    sender: str
    size: int
    age: int
    """Seconds."""
    relayed_for: str
    recipients: tuple[QueuedRecipient, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class QueueFilter:
    """Which messages an operator means; empty fields do not restrict."""

    message_id: str = ""
    destination: str = ""
    sender: str = ""
