"""The text of a message as a person reads it: encoded words, transfer encodings, charsets undone.

For SEARCH only: nothing here is ever written back into a message.
"""

import binascii
import codecs
import email
import email.policy
import quopri
import re
from collections.abc import Iterator

_FOLD = re.compile(rb"\r?\n(?=[ \t])")
# RFC 2047 section 2; RFC 2231 section 5 adds the language. White space between two encoded words
# is not part of the text (section 6.2).
_ENCODED_WORD = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
_BETWEEN = re.compile(r"(\?=)[ \t\r\n]+(?==\?[^?\s]+\?[bBqQ]\?[^?\s]*\?=)")
# Codecs of Python that are no charsets of mail; some of them are slow on hostile input.
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"}
)
ENCODED = (b"base64", b"quoted-printable", b"=?")
"""A message in ASCII with none of these words has its ASCII text as it stands."""


def decode_charset(data: bytes, charset: str) -> str:
    """Decodes octets; an unknown charset counts as UTF-8, what is not UTF-8 as Latin-1."""
    try:
        name = codecs.lookup(charset).name
        if name.replace("-", "_") not in _NO_CHARSETS:
            return data.decode(name, "replace")
    except (LookupError, ValueError):
        pass
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def decode_value(raw: bytes) -> str:
    """A header field's value: unfolded, encoded words decoded."""
    text = decode_charset(_FOLD.sub(b"", raw), "utf-8" if _is_utf8(raw) else "latin-1")
    if "=?" not in text:
        return text
    return _ENCODED_WORD.sub(_decoded_word, _join_split_words(_BETWEEN.sub(r"\1", text)))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


_SPLIT_BASE64 = re.compile(r"(=\?[^?\s]+\?[bB]\?)([A-Za-z0-9+/]*)\?=(?=(=\?[^?\s]+\?[bB]\?))")


def _join_split_words(text: str) -> str:
    """Neighbouring base64 words of one charset become one: some split characters between them."""
    parts: list[str] = []
    position = 0
    for match in _SPLIT_BASE64.finditer(text):
        same = match[1].lower() == match[3].lower() and len(match[2]) % 4 == 0
        if not same:
            continue
        parts.append(text[position : match.end(2)])
        position = match.end() + len(match[3])
    return "".join(parts) + text[position:]


def _decoded_word(match: re.Match[str]) -> str:
    charset, encoding, payload = match.groups()
    data = payload.encode("utf-8", "replace")
    try:
        if encoding in "bB":
            data = binascii.a2b_base64(data + b"=" * (-len(data) % 4))
        else:
            data = quopri.decodestring(data, header=True)
    except binascii.Error:
        return match[0]
    return decode_charset(data, charset)


def field_pattern(name: str) -> re.Pattern[bytes]:
    """Finds the fields of that name in a header section; group 1 is the raw value."""
    return re.compile(
        rb"^" + re.escape(name.encode()) + rb"[ \t]*:(.*(?:\n[ \t].*)*)",
        re.IGNORECASE | re.MULTILINE,
    )


def decode_header(header: bytes) -> str:
    """A whole header section as text, unfolded."""
    return "\n".join(decode_value(line) for line in _FOLD.sub(b"", header).split(b"\n"))


def may_hold_ascii(header_and_body: bytes, lower_word: bytes) -> bool:
    """False: the decoded text of the message certainly has no such ASCII word, in any case.

    Cheap: only a message that uses an encoding (or the word itself) has to be taken apart.
    """
    lower = header_and_body.lower()
    return (
        lower_word in lower or any(encoded in lower for encoded in ENCODED) or not lower.isascii()
    )


def body_texts(message: bytes) -> Iterator[str]:
    """The text parts of a message, decoded; headers of attached messages too."""
    parsed = email.message_from_bytes(message, policy=email.policy.compat32)
    for part in parsed.walk():
        if part is not parsed and part.get_content_maintype() != "multipart":
            yield "\n".join(decode_value(_raw(value)) for value in part.values())
        if part.get_content_maintype() == "text":
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                yield decode_charset(payload, str(part.get_content_charset("utf-8")))


def _raw(value: object) -> bytes:
    return str(value).encode("utf-8", "surrogateescape")
