"""Mailbox names in modified UTF-7 (RFC 3501 5.1.3)."""

import binascii
import re

from netmail_pop_imap.protocol.imap.errors import BadCommand

_SHIFTED = re.compile(r"&([^&-]*)-")
_NEEDS_SHIFT = re.compile(r"[^\x20-\x7e]+|&")


def decode_mailbox(octets: bytes) -> str:
    """The name in Unicode.

    Raises: BadCommand, for eight-bit octets, controls and shifts that no encoder writes.
    """
    try:
        text = octets.decode("ascii")
    except UnicodeDecodeError as error:
        raise BadCommand("Mailbox name is not modified UTF-7", "CLIENTBUG") from error
    if not text.isprintable():
        raise BadCommand("Control character in a mailbox name", "CLIENTBUG")
    if "&" not in text:
        return text
    decoded = _SHIFTED.sub(_unshift, text)
    if encode_mailbox(decoded) != octets:  # refuses a second spelling of the same name
        raise BadCommand("Mailbox name is not modified UTF-7", "CLIENTBUG")
    return decoded


def _unshift(match: re.Match[str]) -> str:
    if not match[1]:
        return "&"
    base64 = match[1].replace(",", "/")
    try:
        octets = binascii.a2b_base64(base64 + "=" * (-len(base64) % 4))
        return octets.decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise BadCommand("Mailbox name is not modified UTF-7", "CLIENTBUG") from error


def encode_mailbox(name: str) -> bytes:
    """The name in modified UTF-7. Unpaired surrogates become U+FFFD."""
    return _NEEDS_SHIFT.sub(_shift, name).encode("ascii")


def _shift(match: re.Match[str]) -> str:
    if match[0] == "&":
        return "&-"
    octets = match[0].encode("utf-16-be", "replace")
    base64 = binascii.b2a_base64(octets, newline=False).decode("ascii")
    return "&" + base64.rstrip("=").replace("/", ",") + "-"
