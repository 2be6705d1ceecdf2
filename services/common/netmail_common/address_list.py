"""Strict reading of address fields: From, Sender, Resent-* (RFC 5322 3.4, RFC 6532, RFC 6854).

Only today's syntax, none of the obsolete forms but the dot in a display name: what one reader
takes for another address than the next must not pass. Comments and encoded words never count as
part of an address.
"""

import re
from dataclasses import dataclass

from netmail_common.mail_address import AddressError, MailAddress, parse_mail_address, quote_local

MAX_ADDRESSES = 1000
"""In one field."""

_ATOM_CHARACTERS = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff"
_DOT_ATOM = re.compile(rf"[{_ATOM_CHARACTERS}]+(?:\.[{_ATOM_CHARACTERS}]+)*")
# A display name's words; a dot may stand in them (obs-phrase, which everybody writes).
_WORD = re.compile(rf"[{_ATOM_CHARACTERS}.]+")
# FWS of RFC 5322 3.2.2: at most one line end, and never a line of white space only.
_SPACE = re.compile(r"(?:[ \t]*\r\n)?[ \t]+")
_QUOTED = re.compile(
    r'"((?:(?:(?:[ \t]*\r\n)?[ \t]+)?(?:[!#-\[\]-~\u0080-\U0010ffff]|\\[ -~\t]))*'
    r'(?:(?:[ \t]*\r\n)?[ \t]+)?)"'
)
_COMMENT_TEXT = re.compile(r"(?:[!-'*-\[\]-~\u0080-\U0010ffff]|\\[ -~\t]|(?:[ \t]*\r\n)?[ \t]+)+")
_LITERAL = re.compile(r"\[[!-Z^-~]*\]")
_QUOTED_PAIR = re.compile(r"\\(.)")
_LINE_END = re.compile(r"\r\n")


class AddressFieldError(ValueError):
    """The field is not a strict address list; the text says why without repeating it."""


@dataclass(frozen=True, slots=True)
class AddressField:
    """What an address field holds.

    Attributes:
        addresses: every address, those inside groups included.
        has_group: some of them stand in a group, or there is an empty one.
    """

    addresses: tuple[MailAddress, ...]
    has_group: bool


def parse_address_field(value: bytes) -> AddressField:
    """Reads a field's value, folded as it stands in the message.

    Raises: AddressFieldError.
    """
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise AddressFieldError("it is not UTF-8") from None
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: list[MailAddress] = []
        self._has_group = False

    def read(self) -> AddressField:
        self._address(inside_group=False)
        while self._take(","):
            self._address(inside_group=False)
        if self._at != len(self._text):
            raise AddressFieldError("something follows an address without a comma")
        return AddressField(tuple(self._found), self._has_group)

    def _address(self, *, inside_group: bool) -> None:
        """Reads one address: addr-spec, name-addr or group."""
        self._cfws()
        start = self._at
        words = self._phrase()
        if self._peek() == "<":
            self._at += 1
            self._addr_spec()
            if not self._take(">"):
                raise AddressFieldError("an angle bracket is not closed")
            self._cfws()
        elif self._peek() == ":" and words and not inside_group:
            self._at += 1
            self._group()
        else:
            self._at = start
            self._addr_spec()

    def _group(self) -> None:
        self._has_group = True
        self._cfws()
        if not self._take(";"):
            self._address(inside_group=True)
            while self._take(","):
                self._address(inside_group=True)
            if not self._take(";"):
                raise AddressFieldError("a group is not closed")
        self._cfws()

    def _phrase(self) -> int:
        words = 0
        while True:
            match = _WORD.match(self._text, self._at) or _QUOTED.match(self._text, self._at)
            if match is None:
                return words
            words += 1
            self._at = match.end()
            self._cfws()

    def _addr_spec(self) -> None:
        self._cfws()
        local = self._local_part()
        self._cfws()
        if not self._take("@"):
            raise AddressFieldError("an address has no @ where it must be")
        self._cfws()
        match = _DOT_ATOM.match(self._text, self._at) or _LITERAL.match(self._text, self._at)
        if match is None:
            raise AddressFieldError("an address has no domain")
        self._at = match.end()
        self._cfws()
        try:
            self._found.append(parse_mail_address(f"{quote_local(local)}@{match[0]}"))
        except AddressError as error:
            raise AddressFieldError(str(error)) from error
        if len(self._found) > MAX_ADDRESSES:
            raise AddressFieldError("too many addresses")

    def _local_part(self) -> str:
        match = _DOT_ATOM.match(self._text, self._at)
        if match is not None:
            local = match[0]
        else:
            match = _QUOTED.match(self._text, self._at)
            if match is None:
                raise AddressFieldError("an address has no local part")
            local = _QUOTED_PAIR.sub(r"\1", _LINE_END.sub("", match[1]))
        self._at = match.end()
        if "=?" in local:
            raise AddressFieldError("an encoded word stands where an address must be")
        return local

    def _cfws(self) -> None:
        """Skips white space and comments."""
        while True:
            match = _SPACE.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
            elif self._peek() == "(":
                self._comment()
            else:
                return

    def _comment(self) -> None:
        depth = 0
        while True:
            character = self._peek()
            if character == "(":
                depth += 1
                self._at += 1
            elif character == ")":
                depth -= 1
                self._at += 1
                if not depth:
                    return
            else:
                match = _COMMENT_TEXT.match(self._text, self._at)
                if match is None:
                    raise AddressFieldError(
                        "a comment is not closed, or has a character it may not"
                    )
                self._at = match.end()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        if self._peek() == character:
            self._at += 1
            return True
        return False
