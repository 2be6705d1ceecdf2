"""How message octets and parameter texts are written by a client.

Every line ends in CRLF, and no bare CR or LF is ever sent: what a lenient host takes for a line end
must be one, or it could be made to see a second message in the first.
"""

import re

_BARE = re.compile(rb"\r\n|\r|\n")
_LINE_DOT = re.compile(rb"(?m)^\.")
_XTEXT = re.compile(r"[^!-*,-<>-~]")
_UTF8_XTEXT = re.compile(r"[^!-*,-<>-\[\]-~]")


def normal_lines(data: bytes) -> bytes:
    """The message with CRLF at each line's end, the last one's too; unchanged if it has them."""
    if data.count(b"\n") != (pairs := data.count(b"\r\n")) or data.count(b"\r") != pairs:
        data = _BARE.sub(b"\r\n", data)
    return data if data.endswith(b"\r\n") or not data else data + b"\r\n"


def dot_stuffed(data: bytes) -> bytes:
    """A whole message as DATA sends it, the final dot included (RFC 5321 4.5.2)."""
    data = normal_lines(data)
    if data.startswith(b".") or b"\n." in data:
        data = _LINE_DOT.sub(b"..", data)
    return data + b".\r\n"


class DotStuffer:
    """The same for a message that comes in pieces."""

    def __init__(self) -> None:
        self._line_start = True
        self._held_cr = False

    def feed(self, data: bytes) -> bytes:
        """Gives what can be sent now. A CR at the end waits for its LF."""
        if self._held_cr:
            data = b"\r" + data
        self._held_cr = data.endswith(b"\r")
        if self._held_cr:
            data = data[:-1]
        if not data:
            return b""
        data = _BARE.sub(b"\r\n", data)
        starts_with_dot = self._line_start and data.startswith(b".")
        self._line_start = data.endswith(b"\n")
        data = data.replace(b"\n.", b"\n..")
        return b"." + data if starts_with_dot else data

    def finish(self) -> bytes:
        """Gives the rest, the final dot included."""
        if self._held_cr or not self._line_start:
            return b"\r\n.\r\n"
        return b".\r\n"


def xtext(text: str) -> str:
    """RFC 3461 4; for ASCII text."""
    return _XTEXT.sub(lambda match: f"+{ord(match[0]):02X}", text)


def original_recipient(text: str) -> str:
    """ORCPT's value of "addr-type;address" (RFC 3461 4.2, RFC 6533 3)."""
    kind, _, address = text.partition(";")
    if address.isascii() and kind.lower() != "utf-8":
        return f"{xtext(kind)};{xtext(address)}"
    return "utf-8;" + _UTF8_XTEXT.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", address)
