"""Short words for what the contract's tests do again and again."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from netmail_nmap.domain.delivery import (
    DeliveryOutcome,
    Envelope,
    Expansion,
    ItemReport,
    LeasedItem,
    Recipient,
    RecipientReport,
    Submission,
    SubmitResult,
)
from netmail_nmap.domain.mail import (
    AppendTarget,
    FetchedMessage,
    FetchRequest,
    MailboxView,
    OpenRequest,
    StoreMode,
    StoreRequest,
)
from netmail_nmap.domain.store import MailStore, QueueStore

PLAIN = b"From: bob@example.net\r\nSubject: greetings\r\n\r\nHello there.\r\n"


@dataclass
class Words:
    mail: MailStore
    queue: QueueStore
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def envelope(
        self,
        *recipients: str | Recipient,
        sender: str = "sender@example.net",
        message_id: str | None = None,
    ) -> Envelope:
        return Envelope(
            message_id or f"message-{next(self.numbers):012d}",
            sender,
            tuple(r if isinstance(r, Recipient) else Recipient(r) for r in recipients),
        )

    async def submit(self, envelope: Envelope, *to: Expansion, data: bytes = PLAIN) -> SubmitResult:
        (result,) = await self.queue.submit([Submission(envelope, data, to)])
        return result

    async def deliver_to(self, user: int, data: bytes = PLAIN) -> None:
        await self.submit(self.envelope("user@example.org"), Expansion((user,)), data=data)

    async def enqueue(
        self, address: str | Recipient, *, sender: str = "sender@example.net", data: bytes = PLAIN
    ) -> str:
        text = address if isinstance(address, str) else address.address
        envelope = self.envelope(address, sender=sender)
        await self.submit(envelope, Expansion(remote=(text,)), data=data)
        return envelope.message_id

    async def enqueue_many(self, count: int, domain: str) -> None:
        """All in one call."""
        addresses = [f"user{number}@{domain}" for number in range(count)]
        await self.queue.submit(
            [
                Submission(self.envelope(address), PLAIN, (Expansion(remote=(address,)),))
                for address in addresses
            ]
        )

    async def append(
        self, user: int, name: str = "INBOX", data: bytes = PLAIN, flags: tuple[str, ...] = ()
    ) -> int:
        appended = await self.mail.append(AppendTarget(user, name, flags, 1_700_000_000), data)
        return appended.uid

    async def open(self, user: int, name: str = "INBOX", *, claim: bool = False) -> MailboxView:
        return await self.mail.open_mailbox(
            OpenRequest(user, name, with_sizes=True, with_object_ids=True, claim_recent=claim)
        )

    async def flags(self, user: int, name: str = "INBOX") -> dict[int, str]:
        columns = (await self.open(user, name)).messages
        return {
            uid: columns.flag_sets[number]
            for uid, number in zip(columns.uids, columns.flag_set, strict=True)
        }

    async def set_flags(
        self,
        user: int,
        mailbox: int,
        uids: Sequence[int],
        *flags: str,
        mode: StoreMode = StoreMode.ADD,
    ) -> None:
        await self.mail.store_flags(StoreRequest(user, mailbox, uids, mode, flags))

    async def fetch(self, request: FetchRequest) -> list[FetchedMessage]:
        return [part async for batch in self.mail.fetch(request) for part in batch]

    async def bodies(self, user: int, name: str = "INBOX") -> list[bytes]:
        view = await self.open(user, name)
        request = FetchRequest(user, view.state.mailbox_id, view.messages.uids, body=True)
        whole: dict[int, bytes] = {}
        for part in await self.fetch(request):
            whole[part.uid] = whole.get(part.uid, b"") + part.body
        return list(whole.values())

    async def lease(self, limit: int = 10, seconds: float = 60, **more: object) -> list[LeasedItem]:
        return await self.queue.lease(
            limit=limit,
            seconds=seconds,
            wait=0,
            worker="test",
            **more,  # type: ignore[arg-type]
        )

    async def report(
        self,
        item: LeasedItem,
        outcome: DeliveryOutcome,
        status: str = "",
        *,
        sender: Expansion | None = None,
        **more: object,
    ) -> bool:
        report = ItemReport(
            item.lease_id,
            item.fence,
            tuple(
                RecipientReport(r.address, outcome, status, **more)  # type: ignore[arg-type]
                for r in item.envelope.recipients
            ),
        )
        senders = {item.envelope.sender: sender} if sender is not None else {}
        (accepted,) = await self.queue.report([report], senders)
        return accepted
