"""What a server's EHLO reply offers (RFC 5321 4.1.1.1), as far as our client uses it."""

from dataclasses import dataclass
from typing import Self

from netmail_smtp.protocol.client_reply import Reply


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions of one session state; those before STARTTLS are void after it."""

    name: str = ""
    """The server's name for itself, lower case."""
    pipelining: bool = False
    eight_bit_mime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    chunking: bool = False
    starttls: bool = False
    size: int | None = None
    """The largest message in octets; 0: the server does not say; None: SIZE is not offered."""
    auth: frozenset[str] = frozenset()
    """SASL mechanisms, upper case."""
    max_recipients: int | None = None
    """LIMITS RCPTMAX (RFC 9422)."""
    max_messages: int | None = None
    """LIMITS MAILMAX."""

    @classmethod
    def from_ehlo(cls, reply: Reply) -> Self:
        """Reads a positive EHLO reply; what is unknown or malformed is not there."""
        keywords: dict[str, list[str]] = {}
        auth: set[str] = set()
        for line in reply.lines[1:]:
            # Old servers write AUTH=LOGIN PLAIN beside or instead of AUTH LOGIN PLAIN.
            words = line.upper().replace("AUTH=", "AUTH ", 1).split()
            if not words:
                continue
            if words[0] == "AUTH":
                auth.update(words[1:])
            keywords.setdefault(words[0], words[1:])
        limits = dict(word.partition("=")[::2] for word in keywords.get("LIMITS", []))
        return cls(
            name=_name(reply),
            pipelining="PIPELINING" in keywords,
            eight_bit_mime="8BITMIME" in keywords,
            smtputf8="SMTPUTF8" in keywords,
            dsn="DSN" in keywords,
            chunking="CHUNKING" in keywords,
            starttls="STARTTLS" in keywords,
            size=_size(keywords.get("SIZE")),
            auth=frozenset(auth),
            max_recipients=_positive(limits.get("RCPTMAX")),
            max_messages=_positive(limits.get("MAILMAX")),
        )

    @classmethod
    def from_helo(cls, reply: Reply) -> Self:
        """A server without EHLO has none."""
        return cls(name=_name(reply))


def _name(reply: Reply) -> str:
    return reply.lines[0].partition(" ")[0].lower().rstrip(".")


def _size(words: list[str] | None) -> int | None:
    if words is None:
        return None
    return (_positive(words[0]) or 0) if words else 0


def _positive(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    return int(text) or None
