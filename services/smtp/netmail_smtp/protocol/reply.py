"""SMTP replies (RFC 5321 4.2) with enhanced status codes (RFC 2034, RFC 3463)."""

import functools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, of one line or several.

    Attributes:
        code: 200 to 599.
        enhanced: status code "5.7.1", written before each line; empty: none (greeting, EHLO, 354).
        text: the lines, separated by a line feed; never empty.
    """

    code: int
    enhanced: str
    text: str

    def encode(self) -> bytes:
        """The octets, CRLF included.

        What is not printable is replaced: nothing that a client sent can end a line of ours.
        """
        return _encode(self.code, self.enhanced, self.text)

    @property
    def positive(self) -> bool:
        """Whether it is a 2xx or 3xx reply."""
        return self.code < 400


@functools.lru_cache(maxsize=512)
def _encode(code: int, enhanced: str, text: str) -> bytes:
    """Kept, because most replies are said again and again."""
    prefix = f"{enhanced} " if enhanced else ""
    lines = text.split("\n")
    last = len(lines) - 1
    return b"".join(
        f"{code}{' ' if index == last else '-'}{prefix}{_printable(line)}\r\n".encode(
            "utf-8", "backslashreplace"
        )
        for index, line in enumerate(lines)
    )


def _printable(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return "".join(c if c.isprintable() else "?" for c in line)


class SmtpError(Exception):
    """A command or message is refused; the error carries its wire reply.

    Attributes:
        reply: what the client gets.
        close: True: the connection ends after the reply.
    """

    def __init__(self, code: int, enhanced: str, text: str, *, close: bool = False) -> None:
        super().__init__(f"{code} {enhanced} {text}")
        self.reply = Reply(code, enhanced, text)
        self.close = close


class CommandSyntaxError(SmtpError):
    """The command line does not parse."""


class MessageRefused(SmtpError):
    """The message as a whole is refused, after its end."""


OK = Reply(250, "2.0.0", "OK")
"""To RSET and NOOP."""
