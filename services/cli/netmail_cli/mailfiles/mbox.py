"""mbox, in its form mboxrd: a line like a separator gets one `>` more, and loses it again.

Each exported message begins with four lines of ours behind its separator: `X-NetMail-Export` with
the version, the octets of the message, its internal date and its mailbox; then `Status`, `X-Status`
and `X-Keywords`, as other programs know them. An import takes off exactly these, so that the octets
are what they were, a line without an end included. In files of other programs the three fields may
stand anywhere in the header; they are taken out.
"""

import calendar
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from netmail_cli.mailfiles.message import FileMessage, MailFileError, Problem
from netmail_cli.mailfiles.names import INBOX, decode_utf7, encode_utf7

__all__ = ["mbox_entry", "read_mbox"]

_WRITER = "netmail-export"
_PIECE = 1024 * 1024
_MAX_SEPARATOR = 1000
_SEPARATOR_LIKE = re.compile(rb"^(>*From )", re.MULTILINE)
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_SEPARATOR = re.compile(rb"From (?:.*? )?(\w{3} +\w{3} +\d{1,2} +\d{1,2}:\d\d(?::\d\d)?.*)")
_DATE = re.compile(
    rb"\w{3} +(\w{3}) +(\d{1,2}) +(\d{1,2}):(\d\d)(?::(\d\d))?"
    rb"(?: +[A-Z]{1,5})? +(\d{4})(?: +([+-])(\d\d)(\d\d))?\s*"
)
_OURS = re.compile(rb"X-NetMail-Export: 1 (\d{1,18}) (-?\d{1,18}) (.+)\r?\n")
_STATUS = re.compile(
    rb"^(Status|X-Status|X-Keywords):(.*\n(?:[ \t].*\n)*)", re.IGNORECASE | re.MULTILINE
)
_HEADER_END = re.compile(rb"^\r?\n", re.MULTILINE)
_MONTHS = (b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec").split()
_LETTERS = {"A": "\\Answered", "F": "\\Flagged", "D": "\\Deleted", "T": "\\Draft"}


def mbox_entry(message: FileMessage) -> bytes:
    """A message as it is appended to an mbox."""
    date = message.date or 0
    letters = "".join(letter for letter, flag in _LETTERS.items() if flag in message.flags)
    keywords = " ".join(flag for flag in message.flags if not flag.startswith("\\"))
    head = (
        f"From {_WRITER} {_asctime(date)}\n"
        f"X-NetMail-Export: 1 {len(message.data)} {date} {encode_utf7(message.mailbox)}\n"
        f"Status: {'RO' if chr(92) + 'Seen' in message.flags else 'O'}\n"
        f"X-Status: {letters}\n"
        f"X-Keywords: {keywords}\n"
    )
    return head.encode("ascii") + _SEPARATOR_LIKE.sub(rb">\1", message.data) + b"\n"


def read_mbox(file: BinaryIO, name: str, *, limit: int) -> Iterator[FileMessage | Problem]:
    """The messages of an mbox, and what in it is none.

    Args:
        file: can be sought in.
        name: for people.
        limit: octets of one message.

    Raises: MailFileError when it is no mbox at all.
    """
    reader = _Reader(file, limit)
    separator = reader.first_separator()
    if separator is None:
        raise MailFileError(f"{name} is not an mbox: it does not begin with a line `From ...`")
    number = 0
    while separator:
        number += 1
        origin = f"{name}, message {number}"
        if not separator.endswith(b"\n"):
            yield Problem(origin, "is cut off")
            return
        start = file.tell()
        line = file.readline(_PIECE)
        ours = _OURS.fullmatch(line)
        if ours is not None or _is_rest_of_ours(separator, line):
            found = reader.exported(ours, origin)
            yield found
            if isinstance(found, Problem):
                file.seek(start)
            separator, between = reader.next_exported()
            if between and isinstance(found, FileMessage):
                yield Problem(origin, "something follows it that is no message")
            continue
        file.seek(start)
        data, following = reader.up_to_separator()
        if data is None:
            yield Problem(origin, "is larger than a message may be")
        else:
            yield _foreign(data, separator, origin)
        separator = following


def _is_rest_of_ours(separator: bytes, line: bytes) -> bool:
    """Whether what we wrote behind our separator is damaged; whoever removed it had a reason."""
    damaged = not line.endswith(b"\n") or line.startswith(b"X-NetMail-Export")
    return damaged and separator.startswith(f"From {_WRITER} ".encode())


@dataclass(slots=True)
class _Reader:
    file: BinaryIO
    limit: int

    def first_separator(self) -> bytes | None:
        """None: it is no mbox; empty: there is nothing in it."""
        line = self.file.readline(_PIECE)
        while line in (b"\n", b"\r\n"):
            line = self.file.readline(_PIECE)
        if not line:
            return b""
        return line if line.startswith(b"From ") else None

    def next_exported(self) -> tuple[bytes, bool]:
        """The separator that follows an exported message (empty: the end); what came before it.

        In what we wrote no other line begins as a separator does.
        """
        between = False
        while (line := self.file.readline(_PIECE)) and not line.startswith(b"From "):
            between = True
        return line, between

    def exported(self, ours: re.Match[bytes] | None, origin: str) -> FileMessage | Problem:
        """A message of ours, exactly as long as it was."""
        if ours is None:
            return Problem(origin, "is cut off, or another program has changed it")
        size, date = int(ours[1]), int(ours[2])
        try:
            mailbox = decode_utf7(ours[3].decode("ascii", "replace"))
        except MailFileError as error:
            return Problem(origin, str(error))
        if size > self.limit:
            return Problem(origin, "is larger than a message may be")
        fields = {}
        for name in (b"Status", b"X-Status", b"X-Keywords"):
            field, _, value = self.file.readline().partition(b":")
            if field != name:
                return Problem(origin, "another program has changed its X-NetMail-Export lines")
            fields[name.lower()] = value
        data = bytearray()
        while len(data) < size:
            line = self.file.readline(size - len(data) + 2 * self.limit)
            if not line:
                return Problem(origin, "is cut off")
            data += _QUOTED.sub(rb"\1", line)
        if len(data) == size + 1 and data.endswith(b"\n"):
            del data[-1]  # its last line had no end
        elif len(data) != size or self.file.readline(2) != b"\n":
            return Problem(origin, f"is not as long as it was ({size} octets)")
        return FileMessage(mailbox, _flags(fields), date, bytes(data), origin, exact=True)

    def up_to_separator(self) -> tuple[bytes | None, bytes]:
        """What comes before the next separator, None if it is too much; that one."""
        data = bytearray()
        too_much = False
        after_blank = False
        while line := self.file.readline(_PIECE):
            if after_blank and _SEPARATOR.match(line[:_MAX_SEPARATOR]):
                break
            after_blank = line in (b"\n", b"\r\n")
            too_much = too_much or len(data) + len(line) > self.limit
            if too_much:
                data.clear()
            else:
                data += line
        return (None if too_much else _without_blank(bytes(data))), line


def _without_blank(data: bytes) -> bytes:
    """Without the empty line that belongs to the separator."""
    if data.endswith(b"\r\n\r\n") or data == b"\r\n":
        return data[:-2]
    if data.endswith(b"\n\n") or data == b"\n":
        return data[:-1]
    return data


def _foreign(data: bytes, separator: bytes, origin: str) -> FileMessage:
    data = _QUOTED.sub(rb"\1", data)
    end = _HEADER_END.search(data)
    at = end.start() if end else len(data)
    fields: dict[bytes, bytes] = {}

    def take(match: re.Match[bytes]) -> bytes:
        fields[match[1].lower()] = match[2]
        return b""

    header = _STATUS.sub(take, data[:at])
    return FileMessage(INBOX, _flags(fields), _date(separator), header + data[at:], origin)


def _flags(fields: dict[bytes, bytes]) -> tuple[str, ...]:
    values = {name: value.decode("ascii", "replace") for name, value in fields.items()}
    flags = ["\\Seen"] if "R" in values.get(b"status", "") else []
    status = values.get(b"x-status", "")
    flags += [flag for letter, flag in _LETTERS.items() if letter in status]
    flags += values.get(b"x-keywords", "").split()
    return tuple(dict.fromkeys(flags))


def _asctime(seconds: int) -> str:
    try:
        return time.asctime(time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "Thu Jan  1 00:00:00 1970"


def _date(separator: bytes) -> int | None:
    """The time of a separator, UTC unless it says otherwise; None if it has none we can read."""
    found = _SEPARATOR.match(separator[:_MAX_SEPARATOR])
    date = _DATE.fullmatch(found[1]) if found else None
    if date is None or date[1].title() not in _MONTHS:
        return None
    month = _MONTHS.index(date[1].title()) + 1
    seconds = calendar.timegm(
        (int(date[6]), month, int(date[2]), int(date[3]), int(date[4]), int(date[5] or 0))
    )
    if date[7]:
        offset = int(date[8]) * 3600 + int(date[9]) * 60
        seconds += offset if date[7] == b"-" else -offset
    return seconds
