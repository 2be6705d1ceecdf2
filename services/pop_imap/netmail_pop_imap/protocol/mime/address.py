"""Address lists as ENVELOPE shows them (RFC 3501 7.4.2, RFC 5322 3.4); tolerant."""

import re
from dataclasses import dataclass

_SIMPLE = re.compile(
    rb"(?:([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    rb"|\"([^\"\\\r\n]*)\")?"
    rb" ?<([^\x00-\x20<>()\[\]\\,;:@\"\x7f-\xff]+)@([A-Za-z0-9.-]+)>\Z"
)
_BARE = re.compile(rb"([^\x00-\x20<>()\[\]\\,;:@\"\x7f-\xff]+)@([A-Za-z0-9.-]+)\Z")
_TOKEN = re.compile(
    rb"(?P<space>[ \t\r\n]+)"
    rb"|(?P<quoted>\"(?:[^\"\\]|\\.)*(?:\"|\Z))"
    rb"|(?P<literal>\[[^\]\\]*(?:\]|\Z))"
    rb"|(?P<special>[<>@,;:()\\\"\[\]])"
    rb"|(?P<atom>[^\s<>@,;:()\\\"\[\]]+)",
    re.DOTALL,
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)

NO_MAILBOX = b"MISSING_MAILBOX"
NO_DOMAIN = b"MISSING_DOMAIN"
"""NIL would mean a group there."""

MAX_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class Address:
    """One element of an address list. A group begins with (mailbox, no host), ends with neither."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


_GROUP_END = Address(None, None, None, None)


def parse_addresses(value: bytes) -> list[Address]:
    """The addresses of an unfolded field value; never fails."""
    simple = _SIMPLE.match(value)
    if simple is not None:
        return [Address(simple[1] or simple[2] or None, None, simple[3], simple[4])]
    bare = _BARE.match(value)
    if bare is not None:
        return [Address(None, None, bare[1], bare[2])]
    return _Reader(value).read()


class _Reader:
    """Collects words until a comma, semicolon or the end says what they were."""

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.position = 0
        self.found: list[Address] = []
        self.words: list[bytes] = []
        self.spaced = False
        self.domain: list[bytes] | None = None
        self.comment: bytes | None = None
        self.in_group = False
        self.complete = False

    def read(self) -> list[Address]:
        while self.position < len(self.value) and len(self.found) < MAX_ADDRESSES:
            self._token()
        self._finish()
        if self.in_group:
            self.found.append(_GROUP_END)
        return self.found

    def _token(self) -> None:
        match = _TOKEN.match(self.value, self.position)
        if match is None:  # cannot be: every octet is in one of the classes
            self.position += 1
            return
        self.position = match.end()
        text = match[0]
        match match.lastgroup:
            case "space":
                self.spaced = True
            case "quoted":
                self._word(_unquote(text))
            case "atom" | "literal":
                self._word(text)
            case _:
                self._special(text)

    def _word(self, text: bytes) -> None:
        if self.domain is not None:
            self.domain.append(text)
        elif self.words and not self.spaced:
            self.words[-1] += text
        else:
            self.words.append(text)
        self.spaced = False

    def _special(self, text: bytes) -> None:
        if text == b",":
            self._finish()
        elif text == b";":
            self._finish()
            if self.in_group:
                self.found.append(_GROUP_END)
                self.in_group = False
        elif text == b"(":
            self.comment = self._read_comment()
        elif text == b"<":
            self._angle()
        elif text == b"@":
            if self.domain is None:
                self.domain = []
        elif text == b":" and not self.in_group and self.domain is None:
            self.found.append(Address(None, None, b" ".join(self.words), None))
            self._clear()
            self.in_group = True

    def _read_comment(self) -> bytes:
        depth, start = 1, self.position
        while self.position < len(self.value):
            octet = self.value[self.position]
            self.position += 2 if octet == 0x5C else 1
            depth += (octet == 0x28) - (octet == 0x29)
            if depth == 0:
                return _QUOTED_PAIR.sub(rb"\1", self.value[start : self.position - 1]).strip()
        return self.value[start:].strip()

    def _angle(self) -> None:
        end = self.value.find(b">", self.position)
        inside = self.value[self.position : end if end >= 0 else len(self.value)]
        if inside.startswith(b'"'):  # a quoted local part may hold >
            quoted = _TOKEN.match(self.value, self.position)
            if quoted is not None:
                end = self.value.find(b">", quoted.end())
                inside = self.value[self.position : end if end >= 0 else len(self.value)]
        self.position = end + 1 if end >= 0 else len(self.value)
        route = None
        inside = inside.strip()
        if inside.startswith(b"@") and b":" in inside:
            route, _, inside = inside.partition(b":")
        local, at, host = inside.rpartition(b"@")
        if not at:
            local, host = inside, b""
        words = self.words
        if self.domain is not None:  # "a@b <c@d>": what stands before is the name
            words = [b" ".join(words) + b"@" + b"".join(self.domain)]
        name = b" ".join(words) or self.comment or None
        self._clear()
        if inside:
            self.found.append(
                Address(name, route, _unquote(local) or NO_MAILBOX, host.strip() or NO_DOMAIN)
            )
        else:
            self.found.append(Address(name, None, NO_MAILBOX, NO_DOMAIN))
        self.complete = True

    def _finish(self) -> None:
        if not self.complete and (self.words or self.domain is not None):
            local = b" ".join(self.words) or NO_MAILBOX
            host = b"".join(self.domain or []) or NO_DOMAIN
            self.found.append(Address(self.comment, None, local, host))
        self._clear()

    def _clear(self) -> None:
        self.words = []
        self.domain = None
        self.comment = None
        self.complete = False


def _unquote(text: bytes) -> bytes:
    text = text.strip()
    if not text.startswith(b'"'):
        return text
    return _QUOTED_PAIR.sub(
        rb"\1", text[1:-1] if len(text) > 1 and text.endswith(b'"') else text[1:]
    )
