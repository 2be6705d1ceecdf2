r"""A cursor over one command's octets: atoms, strings, numbers, lists (RFC 3501 section 9).

Literals stand in the octets as they came (`{5}\r\nhello`); the reader made sure they are whole.
"""

import re
from collections.abc import Callable
from typing import TypeVar

from netmail_pop_imap.protocol.imap.errors import BadCommand

_T = TypeVar("_T")

TAG = re.compile(rb'[^\x00-\x20(){%*"\\+\x7f-\xff]+')
ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
ASTRING_ATOM = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+')
LIST_ATOM = re.compile(rb'[^\x00-\x20(){"\\\x7f-\xff]+')
FLAG = re.compile(rb'\\?[^\x00-\x20(){%*"\\\]\x7f-\xff]+')
NUMBER = re.compile(rb"[0-9]{1,20}(?![0-9])")
QUOTED = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
LITERAL = re.compile(rb"\{([0-9]{1,20})\+?\}\r\n")
SEQUENCE = re.compile(rb"[0-9*:,]+")

MAX_DEPTH = 100
"""Parentheses within parentheses; more is nobody's search."""


class Cursor:
    """Reads a command from left to right; raises BadCommand where the grammar breaks."""

    __slots__ = ("data", "depth", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.depth = 0

    def match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        """The text of `pattern` here."""
        match = pattern.match(self.data, self.position)
        if match is None:
            raise BadCommand(f"Expected {what}")
        self.position = match.end()
        return match[0]

    def at(self, text: bytes) -> bool:
        """Whether `text` stands here."""
        return self.data.startswith(text, self.position)

    def skip(self, text: bytes) -> bool:
        """Passes `text` if it stands here."""
        if self.data.startswith(text, self.position):
            self.position += len(text)
            return True
        return False

    def expect(self, text: bytes) -> None:
        """Passes `text`, which must stand here."""
        if not self.skip(text):
            raise BadCommand(f"Expected {_name(text)}")

    def space(self) -> None:
        """Passes one space."""
        self.expect(b" ")

    def end(self) -> None:
        """The command must end here."""
        self.skip(b" ")  # some clients leave one
        if self.position != len(self.data):
            raise BadCommand("Unexpected text after the command")

    def atom(self, what: str = "an atom") -> str:
        """An atom; ASCII."""
        return self.match(ATOM, what).decode("ascii")

    def keyword(self, what: str = "a keyword") -> str:
        """An atom in upper case."""
        return self.atom(what).upper()

    def number(self, maximum: int = 0xFFFFFFFF) -> int:
        """An unsigned number, 32 bit unless said otherwise."""
        value = int(self.match(NUMBER, "a number"))
        if value > maximum:
            raise BadCommand("Number out of range")
        return value

    def string(self) -> bytes:
        """Quoted or literal."""
        match = QUOTED.match(self.data, self.position)
        if match is not None:
            self.position = match.end()
            text = match[1]
            if b"\\" in text:
                return re.sub(rb'\\(["\\])', rb"\1", text)
            return text
        match = LITERAL.match(self.data, self.position)
        if match is None:
            raise BadCommand("Expected a string")
        end = match.end() + int(match[1])
        if end > len(self.data):
            raise BadCommand("Literal is cut short")
        self.position = end
        text = self.data[match.end() : end]
        if b"\x00" in text:
            raise BadCommand("NUL in a literal")
        return text

    def astring(self) -> bytes:
        """Atom (] allowed) or string."""
        match = ASTRING_ATOM.match(self.data, self.position)
        if match is None:
            return self.string()
        self.position = match.end()
        return match[0]

    def nstring_is_nil(self) -> bool:
        """Passes NIL if it stands here."""
        if self.data[self.position : self.position + 3].upper() == b"NIL":
            self.position += 3
            return True
        return False

    def nstring(self) -> bytes | None:
        """A string, or NIL."""
        return None if self.nstring_is_nil() else self.string()

    def list_mailbox(self) -> bytes:
        """A LIST pattern: wildcards may stand bare."""
        match = LIST_ATOM.match(self.data, self.position)
        if match is None:
            return self.string()
        self.position = match.end()
        return match[0]

    def items(self, item: Callable[[], _T], *, empty: bool = False) -> list[_T]:
        """A parenthesised list, separated by single spaces.

        Args:
            item: reads one.
            empty: whether `()` is allowed.
        """
        self.expect(b"(")
        self.enter()
        found: list[_T] = []
        if not (empty and self.at(b")")):
            found.append(item())
            while self.skip(b" "):
                if self.at(b")"):  # a trailing space, seen in the wild
                    break
                found.append(item())
        self.expect(b")")
        self.depth -= 1
        return found

    def enter(self) -> None:
        """One level deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise BadCommand("Nested too deeply")


def _name(text: bytes) -> str:
    return "a space" if text == b" " else text.decode("ascii")
