"""A word in the place of a user's name, where names are not to leave (x_auth_ok.remote: hmac).

The message is stamped with both: X-Auth-OK names the user to local recipients, X-Auth-Hash holds
the word. When the message leaves, the first goes and the second becomes X-Auth-OK. Both are ours:
what came with such fields lost them when it was stamped.
"""

import base64
import hashlib
import hmac

from netmail_common.header import scan_header

__all__ = ["HASH_FIELD", "UserWords", "without_name"]

HASH_FIELD = b"X-Auth-Hash"
_OK_FIELD = b"X-Auth-OK"
MIN_KEY = 32
"""Octets of a key, at least."""
_LENGTH = 20
"""Characters of a word: 100 bits."""


class UserWords:
    """Gives each user the same word every time; who has no key cannot tell whose it is.

    Raises: ValueError, for a key that is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY:
            raise ValueError(f"fewer than {MIN_KEY} octets")
        self._key = key

    def word(self, user: str, context: str) -> str:
        """The word of a user."""
        digest = hmac.digest(self._key, f"{user}\0{context}".encode(), hashlib.sha256)
        return "~" + base64.b32encode(digest).decode().lower()[:_LENGTH]


def without_name(head: bytes) -> bytes:
    """The beginning of a message, its whole header in it, as it may leave.

    A message without the user's word stays as it is.
    """
    if HASH_FIELD not in head:
        return head
    header = scan_header(head)
    if not header.count("x-auth-hash"):
        return head
    pieces, position = [], 0
    for field in header.fields:
        if field.name not in {"x-auth-ok", "x-auth-hash"}:
            continue
        pieces.append(head[position : field.start])
        if field.name == "x-auth-hash":
            pieces.extend((_OK_FIELD, b":", head[field.value_start : field.end]))
        position = field.end
    return b"".join((*pieces, head[position:]))
