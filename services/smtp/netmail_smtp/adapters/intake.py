"""Takes the content of one message: checks it, stamps it, hands it to the queue.

Small messages are held in memory until their end and share a Submit call with others. What grows
beyond that goes to the queue while it comes in, as soon as its header has been checked.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from netmail_common.config import SmtpLimits
from netmail_common.header import Header, header_end, scan_header
from netmail_common.nmap import Accepted, QueueClient, QueueError

from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.adapters.upload import Upload
from netmail_smtp.domain.trace import Hop, check_hops, stamp_message
from netmail_smtp.protocol.data import ContentCheck, SizeState
from netmail_smtp.protocol.reply import MessageRefused, SmtpError

STREAM_ABOVE = 1024 * 1024 - 32 * 1024
"""Octets; our own header fields still fit beside them into one unary Submit."""

HeaderCheck = Callable[[Header], Awaitable[None]]
"""Checks the header's senders. Raises: SmtpError."""
HopMaker = Callable[[], Hop]


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What one message's intake works with.

    Attributes:
        limits: of sizes and hops.
        queue: where it goes.
        messaging_server: who takes it.
        check_senders: called once, with the whole header.
        hop: called after that, for Received.
        submission: asked after check_senders: whether missing fields are added.
    """

    limits: SmtpLimits
    queue: QueueClient
    messaging_server: str
    check_senders: HeaderCheck
    hop: HopMaker
    submission: Callable[[], bool]


class MessageIntake:
    """The content of one message from its first octet to the durable commit."""

    def __init__(self, transaction: Transaction, settings: IntakeSettings) -> None:
        self._transaction = transaction
        self._settings = settings
        self._check = ContentCheck(settings.limits.message_size)
        self._chunks: list[bytes] = []
        self._held = 0
        self._ascii = True
        self._refusal: SmtpError | None = None
        self._upload: Upload | None = None

    @property
    def size(self) -> int:
        """Octets so far."""
        return self._check.size

    async def feed(self, chunk: bytes) -> None:
        """Takes content. Waits while the queue does not keep up.

        Raises: SmtpError with `close`: the message is twice as large as it may be.
        """
        state = self._check.feed(chunk)
        if state is SizeState.FAR_OVER:
            self.abandon()
            limit = self._settings.limits.message_size
            text = f"The message is far larger than {limit} octets"
            raise SmtpError(552, "5.3.4", text, close=True)
        if state is SizeState.OVER:
            self.abandon()
        elif self._upload is not None:
            await self._upload.send(chunk)
        elif self._refusal is None and chunk:
            self._chunks.append(chunk)
            self._held += len(chunk)
            self._ascii = self._ascii and chunk.isascii()
            if self._held > STREAM_ABOVE:
                await self._begin_upload()

    async def finish(self) -> Accepted:
        """The content is complete: stores it durably.

        Raises: SmtpError.
        """
        try:
            self._check.finish()
            if self._refusal is not None:
                raise self._refusal
            if self._upload is not None:
                return await self._upload.finish()
            content = b"".join(self._chunks)
            self._chunks.clear()
            header, pieces = await self._accept_header(content)
            pieces.append(memoryview(content)[header.body :])
            data = b"".join(pieces)
            del content, pieces
            envelope = self._transaction.envelope(
                messaging_server=self._settings.messaging_server,
                body_8bit=not self._ascii,
                header_is_ascii=header.data[: header.body].isascii(),
            )
            return await self._settings.queue.submit(envelope, data)
        except QueueError as error:
            raise SmtpError(*error.smtp) from error
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Forgets the content; nothing is stored unless `finish` said so."""
        self._chunks.clear()
        if self._upload is not None:
            self._upload.abandon()
            self._upload = None

    async def _begin_upload(self) -> None:
        content = b"".join(self._chunks)
        self._chunks.clear()
        try:
            if header_end(content) < 0:
                raise MessageRefused(552, "5.3.4", "The header is too large")
            header, pieces = await self._accept_header(content)
        except SmtpError as error:
            self._refusal = error
            return
        envelope = self._transaction.envelope(
            messaging_server=self._settings.messaging_server,
            body_8bit=not self._ascii,
            header_is_ascii=header.data[: header.body].isascii(),
        )
        self._upload = Upload(self._settings.queue, envelope)
        await self._upload.send(b"".join(pieces))
        await self._upload.send(content[header.body :])

    async def _accept_header(self, content: bytes) -> tuple[Header, list[bytes | memoryview]]:
        """Checks the header and gives it with ours before it."""
        header = scan_header(content)
        limits = self._settings.limits
        if header.end > limits.header_size:
            raise MessageRefused(552, "5.3.4", "The header is too large")
        if header.longest_line() > limits.header_line:
            raise MessageRefused(550, "5.6.0", "The header has a line that is too long")
        check_hops(header, limits.received_hops)
        await self._settings.check_senders(header)
        pieces: list[bytes | memoryview] = []
        pieces.extend(
            stamp_message(header, self._settings.hop(), submission=self._settings.submission())
        )
        return header, pieces
