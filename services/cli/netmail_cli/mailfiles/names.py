r"""Mailbox names as Maildir++ writes them: `.Work.Projects`, in modified UTF-7 (RFC 3501 5.1.3).

A dot within a part of a name is written `\2e`, a backslash `\5c`, as Dovecot's listescape does.
"""

import binascii
import re

from netmail_cli.mailfiles.message import MailFileError

__all__ = ["decode_utf7", "encode_utf7", "folder_name", "mailbox_name"]

INBOX = "INBOX"
_SHIFTED = re.compile(r"&([^&-]*)-")
_NEEDS_SHIFT = re.compile(r"[^\x20-\x7e]+|&")
_ESCAPED = re.compile(r"\\([0-9a-fA-F]{2})")
_NEEDS_ESCAPE = re.compile(r"[.\\/]")


def encode_utf7(name: str) -> str:
    """The name in modified UTF-7."""
    return _NEEDS_SHIFT.sub(_shift, name)


def decode_utf7(text: str) -> str:
    """The name in Unicode. Raises: MailFileError."""
    if not text.isascii():
        raise MailFileError(f"{text!r} is not modified UTF-7")
    decoded = _SHIFTED.sub(_unshift, text)
    if encode_utf7(decoded) != text:
        raise MailFileError(f"{text!r} is not modified UTF-7")
    return decoded


def folder_name(mailbox: str) -> str:
    """The folder of a mailbox; empty: the Maildir itself, which is INBOX."""
    if mailbox == INBOX:
        return ""
    parts = (
        _NEEDS_ESCAPE.sub(lambda match: f"\\{ord(match[0]):02x}", encode_utf7(part))
        for part in mailbox.split("/")
    )
    return "." + ".".join(parts)


def mailbox_name(folder: str) -> str:
    """The mailbox of a folder. Raises: MailFileError."""
    if not folder:
        return INBOX
    parts = []
    for part in folder.removeprefix(".").split("."):
        name = decode_utf7(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), part))
        if not name or "/" in name:
            raise MailFileError(f"{folder!r} is no mailbox's name")
        parts.append(name)
    return "/".join(parts)


def _shift(match: re.Match[str]) -> str:
    if match[0] == "&":
        return "&-"
    base64 = binascii.b2a_base64(match[0].encode("utf-16-be", "replace"), newline=False)
    return "&" + base64.decode("ascii").rstrip("=").replace("/", ",") + "-"


def _unshift(match: re.Match[str]) -> str:
    if not match[1]:
        return "&"
    base64 = match[1].replace(",", "/")
    try:
        return binascii.a2b_base64(base64 + "=" * (-len(base64) % 4)).decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise MailFileError(f"{match[0]!r} is not modified UTF-7") from error
