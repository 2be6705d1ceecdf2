"""Mail addresses: strict parsing and one way to compare them (RFC 5321 4.1.2, RFC 6531 3.3)."""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass

import idna

MAX_LOCAL_OCTETS = 255
"""More than RFC 5321 4.5.3.1.1 asks for (64): VERP and SRS write longer ones."""
MAX_DOMAIN_OCTETS = 255

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff"
_DOT_STRING = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
# qtextSMTP and quoted-pairSMTP (RFC 5321 4.1.2), UTF8-non-ascii (RFC 6531 3.3).
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_LDH_DOMAIN = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


class AddressError(ValueError):
    """The text is not a mail address; the message says why, without repeating it."""


@dataclass(frozen=True, slots=True)
class MailAddress:
    """A mail address in the one form in which addresses are kept.

    Attributes:
        local: the local part, unquoted, NFC; case is kept.
        domain: lower-case A-labels, or an address literal: `[192.0.2.1]`, `[IPv6:2001:db8::1]`.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        """Gives `local@domain` in SMTP's spelling, the local part quoted if it must be."""
        return f"{quote_local(self.local)}@{self.domain}"

    @property
    def wire(self) -> str:
        """The spelling inside gRPC messages: `local@domain`, the local part never quoted."""
        return f"{self.local}@{self.domain}"

    @property
    def is_literal(self) -> bool:
        """Whether the domain is an address literal."""
        return self.domain.startswith("[")

    @property
    def is_ascii(self) -> bool:
        """Whether it can travel without SMTPUTF8."""
        return self.local.isascii()

    def key(self) -> str:
        """What two spellings of one address have in common: equal keys, same address."""
        return f"{fold(self.local)}@{self.domain}"

    @classmethod
    def from_wire(cls, text: str) -> "MailAddress":
        """Reads the spelling of `wire`.

        Raises: AddressError.
        """
        local, at, domain = text.rpartition("@")
        if not at:
            raise AddressError("no @")
        return cls(_check_local(local), parse_domain(domain))


def parse_mail_address(text: str) -> MailAddress:
    """Reads one `Mailbox` of RFC 5321 4.1.2, with the additions of RFC 6531 3.3.

    No white space, comments, display name, angle brackets or source route.

    Raises: AddressError.
    """
    if text.startswith('"'):
        match = _QUOTED.match(text)
        if match is None:
            raise AddressError("the quoted local part does not end, or has a character it may not")
        local, rest = _QUOTED_PAIR.sub(r"\1", match[1]), text[match.end() :]
    else:
        at = text.find("@")
        local, rest = (text, "") if at < 0 else (text[:at], text[at:])
        # Normalized too: U+037E becomes a semicolon.
        for spelling in (local, unicodedata.normalize("NFC", local)):
            if _DOT_STRING.fullmatch(spelling) is None:
                raise AddressError("the local part is empty or has a character it may not")
    if not rest.startswith("@"):
        raise AddressError("no @ behind the local part")
    return MailAddress(_check_local(local), parse_domain(rest[1:]))


def parse_domain(text: str) -> str:
    """Reads a domain name or address literal into the form that MailAddress keeps.

    Raises: AddressError.
    """
    if text.startswith("["):
        return _parse_literal(text)
    if not text or len(text) > 4 * MAX_DOMAIN_OCTETS:
        raise AddressError("the domain is empty or too long")
    lowered = text.lower()
    # "xn--" labels and everything beyond ASCII must be valid IDNA; plain names need only be LDH.
    if not text.isascii() or "xn--" in lowered:
        try:
            lowered = idna.encode(text, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise AddressError("the domain is not a valid internationalized name") from error
    if len(lowered) > MAX_DOMAIN_OCTETS or _LDH_DOMAIN.fullmatch(lowered) is None:
        raise AddressError("the domain is not a host name")
    return lowered


def quote_local(local: str) -> str:
    """Writes a local part as SMTP and message headers spell it, quoted if it must be."""
    if _DOT_STRING.fullmatch(local):
        return local
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def fold(text: str) -> str:
    """Canonical caseless form (Unicode 3.13, D145), NFC."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", decomposed))


def split_subaddress(local: str, separator: str) -> tuple[str, str]:
    """Splits `user+tag` into user and tag; without a separator the tag is empty.

    A local part that begins with the separator has no user to split off: it stays whole.
    """
    if not separator:
        return local, ""
    user, found, tag = local.partition(separator)
    return (user, tag) if user and found else (local, "")


def _check_local(local: str) -> str:
    normal = local if local.isascii() else unicodedata.normalize("NFC", local)
    if not normal:
        raise AddressError("the local part is empty")
    for character in normal:
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            raise AddressError("the local part has a control character")
    if len(normal.encode("utf-8")) > MAX_LOCAL_OCTETS:
        raise AddressError("the local part is too long")
    return normal


def _parse_literal(text: str) -> str:
    if not text.endswith("]"):
        raise AddressError("the address literal does not end")
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            address = ipaddress.IPv6Address(inner[5:])
            if address.scope_id is not None:
                raise AddressError("an address literal has no zone")
            return f"[IPv6:{address.compressed}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ipaddress.AddressValueError as error:
        raise AddressError("the address literal is not an address") from error
