"""Bodies on their way in: small ones wait in memory, large ones go to the store in pieces."""

from netmail_nmap.adapters.objects import PART
from netmail_nmap.adapters.sql import _bodies
from netmail_nmap.adapters.sql._bodies import CHUNK, LargeBody, chunk_id
from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._writer import Transaction
from netmail_nmap.domain.delivery import Body
from netmail_nmap.domain.errors import MessageTooBig

_PIECE = 4 * CHUNK
"""Octets of one write: a large message shares its commits with everybody else."""


class SqlUpload:
    """See `netmail_nmap.domain.store.Upload`. Holds about 2 MiB at most, 8 on the way to objects.

    A large body is marked as an orphan until a message refers to it, so one that is never
    finished is swept away: at the next start, or at once after `abandon`.
    """

    def __init__(self, core: Core, *, limit: int, local_prefix: bytes) -> None:
        self._core = core
        self._limit = limit
        self._prefix = local_prefix
        self._buffer = bytearray()
        self._received = 0
        self._id = 0
        self._chunks = 0
        self._finished = False
        self._piece = _PIECE if core.objects is None else PART

    async def write(self, data: bytes) -> None:
        """Takes the next octets. Raises: MessageTooBig."""
        self._received += len(data)
        if self._received > self._limit:
            raise MessageTooBig
        self._buffer += data
        if self._id == 0:
            if len(self._buffer) <= self._core.inline:
                return
            await self._begin()
        while len(self._buffer) >= self._piece:
            await self._write_chunks(self._piece)

    async def finish(self) -> Body:
        """Gives the whole body."""
        self._finished = True
        if self._id == 0:
            return bytes(self._buffer)
        while self._buffer:
            await self._write_chunks(min(len(self._buffer), self._piece))
        return LargeBody(self._id, len(self._prefix) + self._received, len(self._prefix))

    async def abandon(self) -> None:
        """Nobody will refer to it: it may be swept now. Does nothing to a small body."""
        if self._id == 0:
            return
        body_id, now = self._id, self._core.now_ms()
        await self._core.writer.run(
            lambda transaction: _bodies.mark_orphans(transaction.driver, [body_id], now)
        )

    async def _begin(self) -> None:
        first = bytes(self._buffer)
        end = _bodies.header_end(first)
        del self._buffer[:end]
        header = self._prefix + first[:end]

        def operation(transaction: Transaction) -> int:
            body_id = self._core.ids.next_body(transaction.driver)
            _bodies.begin_large(
                transaction.driver,
                body_id,
                len(self._prefix),
                header,
                self._due_at(),
                elsewhere=self._core.objects is not None,
            )
            return body_id

        self._id = await self._core.writer.run(operation)

    async def _write_chunks(self, octets: int) -> None:
        piece = bytes(self._buffer[:octets])
        del self._buffer[:octets]
        if self._core.objects is not None:
            await self._core.objects.put(self._id, self._chunks, piece)
            self._chunks += 1
            await self._core.writer.run(self._go_on)
            return
        chunks = []
        for start in range(0, octets, CHUNK):
            chunks.append((chunk_id(self._id, self._chunks), piece[start : start + CHUNK]))
            self._chunks += 1

        def operation(transaction: Transaction) -> None:
            _bodies.insert_chunks(transaction.driver, chunks)
            self._go_on(transaction)

        await self._core.writer.run(operation)

    def _go_on(self, transaction: Transaction) -> None:
        """Others see that it is under way."""
        if not self._core.alone:
            _bodies.mark_orphans(transaction.driver, [self._id], self._due_at())

    def _due_at(self) -> int:
        if self._core.alone:
            return _bodies.NOT_YET
        return self._core.now_ms() + _bodies.UPLOAD_GRACE_MS


async def placed(core: Core, body: Body, local_prefix: bytes) -> Body:
    """A body that came in one piece, brought to where large ones are if it is one.

    Raises: StoreUnavailable.
    """
    if core.objects is None or not isinstance(body, bytes) or len(body) <= core.inline:
        return body
    upload = SqlUpload(core, limit=len(body), local_prefix=local_prefix)
    await upload.write(body)
    return await upload.finish()
