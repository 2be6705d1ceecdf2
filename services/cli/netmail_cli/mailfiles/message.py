"""A message with what a mailbox knows of it."""

import re
from dataclasses import dataclass

__all__ = ["FORWARDED", "FileMessage", "MailFileError", "Problem", "is_keyword"]

FORWARDED = "$Forwarded"
_KEYWORD = re.compile(r"[!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|~]{1,255}")


class MailFileError(Exception):
    """The file or folder is not what it should be; the text is for people."""


@dataclass(frozen=True, slots=True)
class FileMessage:
    """A message from a file, or for one."""

    mailbox: str
    flags: tuple[str, ...]
    r"""System flags with backslash, and keywords."""
    date: int | None
    """Internal date, seconds since the epoch; None: the file does not say."""
    data: bytes
    origin: str = ""
    """Where it was found, for people."""
    exact: bool = False
    """Its octets are known to be those that were exported."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a file that cannot be a message of ours; the rest is not touched by it."""

    origin: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


def is_keyword(name: str) -> bool:
    """Whether IMAP allows it (an atom, RFC 3501 9)."""
    return _KEYWORD.fullmatch(name) is not None
