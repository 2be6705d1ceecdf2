"""From a leased queue item to what the SMTP transport sends."""

import contextlib
from collections.abc import AsyncGenerator, Callable

from netmail.nmap.v1 import queue_pb2
from netmail_common.header import header_end

from netmail_smtp.adapters.deliver_smtp import OutgoingMessage, OutgoingRecipient
from netmail_smtp.domain.deliver_outcome import MessageTraits
from netmail_smtp.domain.user_word import without_name

_HEADER_LIMIT = 1024 * 1024


async def outgoing(
    item: queue_pb2.LeasedItem, pieces: Callable[[], AsyncGenerator[bytes, None]]
) -> OutgoingMessage:
    """Reads the message once more than it is sent where its declared traits must be looked at.

    Args:
        item: as leased.
        pieces: reads the octets if they did not come along.

    Raises: what `pieces` raises.
    """
    envelope = item.envelope
    data = without_name(item.data) if item.data_included else None
    if data is not None:
        header_ascii, all_ascii = _look(data)
    elif envelope.smtputf8 or envelope.body_8bit:
        header_ascii, all_ascii = await _scan(pieces)
    else:
        header_ascii = all_ascii = True
    return OutgoingMessage(
        message_id=envelope.message_id,
        destination=item.destination,
        sender=envelope.sender,
        recipients=[
            OutgoingRecipient(r.address, _notify(r), r.original_recipient)
            for r in envelope.recipients
        ],
        traits=MessageTraits(
            # What is read piece by piece may turn out a little shorter.
            size=item.size if data is None else len(data),
            eight_bit=not all_ascii,
            # A raw 8-bit header of a message without SMTPUTF8 is passed on as it came.
            utf8_headers=envelope.smtputf8 and not header_ascii,
            utf8_sender=not envelope.sender.isascii(),
        ),
        data=data,
        pieces=None if data is not None else lambda: _without_name(pieces()),
        return_headers_only=envelope.return_headers_only,
        envelope_id=envelope.envelope_id,
    )


async def _without_name(source: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The octets of a message as they leave."""
    head = b""
    in_header = True
    async with contextlib.aclosing(source):
        async for piece in source:
            if not in_header:
                yield piece
                continue
            head += piece
            in_header = header_end(head) < 0 and len(head) < _HEADER_LIMIT
            if not in_header:
                yield without_name(head)
    if in_header:
        yield without_name(head)


def _notify(recipient: queue_pb2.Recipient) -> str:
    if recipient.notify_never:
        return "NEVER"
    given = (
        ("SUCCESS", recipient.notify_success),
        ("FAILURE", recipient.notify_failure),
        ("DELAY", recipient.notify_delay),
    )
    return ",".join(word for word, wanted in given if wanted)


def _look(data: bytes) -> tuple[bool, bool]:
    if data.isascii():
        return True, True
    return data.partition(b"\r\n\r\n")[0].isascii(), False


async def _scan(pieces: Callable[[], AsyncGenerator[bytes, None]]) -> tuple[bool, bool]:
    """Whether the header section, and whether everything, is ASCII."""
    all_ascii = True
    header = bytearray()
    in_header = True
    async with contextlib.aclosing(pieces()) as source:
        async for piece in source:
            all_ascii = all_ascii and piece.isascii()
            if in_header:
                header += piece
                end = header.find(b"\r\n\r\n")
                if end >= 0:
                    del header[end:]
                in_header = end < 0 and len(header) < _HEADER_LIMIT
    return header.isascii(), all_ascii
