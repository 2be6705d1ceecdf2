"""What the agent needs of storage; SQLite implements it, other engines can.

Every method that changes something returns after the durable commit. Errors are those of
`netmail_nmap.domain.errors`; each method may raise StoreUnavailable besides those it names.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from netmail_nmap.domain.delivery import (
    Body,
    DeliverResult,
    Envelope,
    Expansion,
    ItemReport,
    LeasedItem,
    QueuedMessage,
    QueueFilter,
    Submission,
    SubmitResult,
)
from netmail_nmap.domain.errors import NmapError
from netmail_nmap.domain.mail import (
    Appended,
    AppendTarget,
    Copied,
    Expunged,
    FetchedMessage,
    FetchRequest,
    FlagsStored,
    MailboxChange,
    MailboxInfo,
    MailboxView,
    OpenRequest,
    Quota,
    SearchOutcome,
    StoreRequest,
)
from netmail_nmap.domain.search import SearchKey


class Upload(Protocol):
    """A body on its way in: small ones wait in memory, large ones go to the store in pieces.

    What is not finished, or finished and never referred to, is swept away.
    """

    async def write(self, data: bytes) -> None:
        """Takes the next octets. Raises: MessageTooBig."""

    async def finish(self) -> Body:
        """Gives the whole body, to be submitted or appended."""

    async def abandon(self) -> None:
        """Nobody will refer to the body."""


class Watch(Protocol):
    """Changes of the mailboxes that a caller watches; what is not read yet is merged."""

    async def add(self, mailbox_ids: Sequence[int]) -> None:
        """Watches these too; each is told once at once, with its modseq now."""

    def remove(self, mailbox_ids: Sequence[int]) -> None:
        """Forgets these."""

    async def changes(self) -> Sequence[MailboxChange]:
        """Waits for the next changes."""


class MailStore(Protocol):
    """Mailboxes of users."""

    async def list_mailboxes(
        self, user_id: int, *, name: str = "", with_status: bool = False
    ) -> list[MailboxInfo]:
        """All mailboxes, or that one, with the names above them; subscriptions without a mailbox.

        Raises: UserNotFound, MailboxNotFound (with NAME).
        """

    async def create_mailbox(self, user_id: int, name: str, special_use: str = "") -> MailboxInfo:
        """Raises: MailboxExists, SpecialUseTaken, InvalidRequest, UserNotFound."""

    async def delete_mailbox(self, user_id: int, name: str) -> None:
        """Raises: MailboxNotFound, MailboxHasChildren, InvalidRequest (INBOX)."""

    async def rename_mailbox(self, user_id: int, old_name: str, new_name: str) -> None:
        """With the mailboxes below it; INBOX: moves its messages (RFC 3501 6.3.5).

        Raises: MailboxNotFound, MailboxExists, InvalidRequest.
        """

    async def set_subscribed(self, user_id: int, name: str, *, subscribed: bool) -> None:
        """Subscribes to a name, which need not exist. Raises: UserNotFound."""

    async def open_mailbox(self, request: OpenRequest) -> MailboxView:
        """State and messages, for a session. Raises: MailboxNotFound, UserNotFound."""

    async def open_mailboxes(
        self, requests: Sequence[OpenRequest]
    ) -> list["MailboxView | NmapError"]:
        """Several openings in one step; each result is as `open_mailbox` would give or raise it."""

    async def sync_mailbox(
        self, user_id: int, mailbox_id: int, since_modseq: int, *, claim_recent: bool = False
    ) -> MailboxView:
        """What changed since. Raises: MailboxGone."""

    def watch(self) -> AbstractAsyncContextManager[Watch]:
        """Watches mailboxes while the context lives."""

    def fetch(self, request: FetchRequest) -> AsyncIterator[Sequence[FetchedMessage]]:
        """Data of messages in UID order, in batches of about 1 MiB at most.

        UIDs that are not there are passed over. Raises: MailboxGone, MessageGone (a large message
        went while it was read).
        """

    async def search(
        self, user_id: int, mailbox_id: int, key: SearchKey, uids: Sequence[int] = ()
    ) -> SearchOutcome:
        """UIDs (of UIDS, if there are any) that match. Raises: MailboxGone, InvalidRequest."""

    async def store_flags(self, request: StoreRequest) -> FlagsStored:
        """Raises: MailboxGone, TooManyKeywords, InvalidRequest."""

    async def copy(
        self, user_id: int, mailbox_id: int, uids: Sequence[int], to_name: str
    ) -> Copied:
        """All or nothing. Raises: MailboxGone, MailboxNotFound, OverQuota, TooManyKeywords."""

    async def move(
        self, user_id: int, mailbox_id: int, uids: Sequence[int], to_name: str
    ) -> Copied:
        """All or nothing (RFC 6851). Raises: as `copy`, but OverQuota."""

    async def expunge(
        self, user_id: int, mailbox_id: int, uids: Sequence[int] | None, *, only_deleted: bool
    ) -> Expunged:
        """Removes these UIDs, only those with Deleted if so asked; None: all that have it.

        Many are removed in parts, others may change the mailbox in between; then previous_modseq
        of the outcome is a modseq at which nobody was. `store_flags` does the same.

        Raises: MailboxGone.
        """

    def upload(self, *, limit: int, local_prefix: bytes = b"") -> Upload:
        """Begins to take a body of at most LIMIT octets.

        LOCAL_PREFIX: header fields that belong to local delivery (Return-Path); the queue does
        not see them.
        """

    async def append(self, target: AppendTarget, body: Body) -> Appended:
        """Raises: MailboxNotFound, OverQuota, TooManyKeywords, UserNotFound."""

    def lock(self, user_id: int, name: str) -> AbstractAsyncContextManager[bool]:
        """POP3's exclusive lock; gives False at once if somebody else holds it."""

    async def quota(self, user_id: int) -> Quota:
        """Raises: UserNotFound."""


class QueueStore(Protocol):
    """Messages on their way: into mailboxes here, or to other hosts."""

    async def submit(self, submissions: Sequence[Submission]) -> list[SubmitResult]:
        """Takes each message: into the INBOX of users, into the queue for the rest.

        A message id that was taken before is answered ACCEPTED again and changes nothing.
        """

    async def deliver(
        self, envelope: Envelope, body: Body, expansions: Sequence[Expansion]
    ) -> list[DeliverResult]:
        """Takes a message that another NMAP agent hands over; idempotent for each recipient."""

    async def lease(
        self,
        *,
        limit: int,
        seconds: float,
        wait: float,
        worker: str,
        busy_destinations: Sequence[str] = (),
        limit_per_destination: int = 0,
    ) -> list[LeasedItem]:
        """Leases due items, destinations in turn; waits up to WAIT seconds for the first.

        Args:
            limit: how many at most.
            seconds: the lease lasts.
            wait: seconds.
            worker: its name, for people.
            busy_destinations: nothing of theirs.
            limit_per_destination: of each of the others at most; 0: no bound.
        """

    def read_message(self, lease_id: int, fence: int) -> AsyncIterator[bytes]:
        """The octets of a leased message. Raises: LeaseLost."""

    async def report_senders(self, reports: Sequence[ItemReport]) -> list[str]:
        """Senders that may have to be told of these outcomes; to be expanded for `report`."""

    async def report(
        self, reports: Sequence[ItemReport], senders: dict[str, Expansion]
    ) -> list[bool]:
        """Takes outcomes; False for each whose lease was lost. DSNs are written along with it."""

    async def list_queue(
        self, queue_filter: QueueFilter, *, page_size: int, after: int = 0
    ) -> tuple[list[QueuedMessage], int]:
        """A page of messages, and where the next begins (0: there is none)."""

    async def get_message(self, message_id: str) -> tuple[QueuedMessage, bytes]:
        """A message and its header section. Raises: QueueMessageNotFound."""

    async def retry(self, queue_filter: QueueFilter) -> int:
        """Makes items due now; gives their number, as the next three do."""

    async def hold(self, queue_filter: QueueFilter) -> int:
        """Keeps items from being leased."""

    async def release(self, queue_filter: QueueFilter) -> int:
        """Ends `hold`; they are due now."""

    async def bounced_senders(self, queue_filter: QueueFilter) -> list[str]:
        """Senders whom `remove` with bounces would tell."""

    async def remove(
        self, queue_filter: QueueFilter, *, bounce: bool, senders: dict[str, Expansion]
    ) -> int:
        """Removes items, with failure DSNs if BOUNCE."""
