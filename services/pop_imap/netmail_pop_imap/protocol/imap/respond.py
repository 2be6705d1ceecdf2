"""What a server sends: strings, literals, status responses."""

import re

_QUOTABLE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*\Z")
_PLAIN = re.compile(rb"[\x20\x21\x23-\x5b\x5d-\x7e]{0,200}\Z")
_ASTRING = re.compile(rb'[^\x00-\x20(){%*"\\\x7f-\xff]+\Z')


def quote(text: bytes) -> bytes:
    """A string: quoted where that is allowed and short, else a literal."""
    if _PLAIN.match(text):
        return b'"%b"' % text
    if len(text) <= 1000 and _QUOTABLE.match(text):
        return b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return literal(text)


def nstring(text: bytes | None) -> bytes:
    """A string, or NIL for None."""
    return b"NIL" if text is None else quote(text)


def literal(text: bytes) -> bytes:
    """A literal."""
    return b"{%d}\r\n%b" % (len(text), text)


def astring(text: bytes) -> bytes:
    """An atom where that is allowed, else a string."""
    return text if _ASTRING.match(text) and text.upper() != b"NIL" else quote(text)


def untagged(text: str) -> bytes:
    """`* text`."""
    return f"* {text}\r\n".encode("ascii", "replace")


def tagged(tag: str, condition: str, text: str, code: str = "") -> bytes:
    """`tag OK [CODE] text`."""
    code = f"[{code}] " if code else ""
    return f"{tag} {condition} {code}{text}\r\n".encode("ascii", "replace")
