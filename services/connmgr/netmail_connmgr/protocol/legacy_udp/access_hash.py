"""The secret that agents share, and the handshake that proves it."""

import functools
import hashlib
import hmac
import re
import string
from collections.abc import Callable
from hmac import compare_digest

__all__ = [
    "CREDENTIAL_LENGTH",
    "HASH_LENGTH",
    "CredentialError",
    "Handshake",
    "access_hash",
    "parse_access_hash",
    "tree_of",
]

CREDENTIAL_LENGTH = 4096
HASH_LENGTH = 128
SLOT = 300
"""Seconds that a salt is given out; it is accepted for as many more."""
_PIECE = 512
_SHORT_TREE = 100
_ALPHABET = frozenset((string.ascii_letters + string.digits).encode())
_MAX_SOURCES = 8192


class CredentialError(ValueError):
    """The secret is not usable; the text says why, without repeating it."""


def tree_of(name: str, *, without_backslash: bool) -> bytes:
    """The tree in a server's DN: up to its second backslash, with the leading one.

    Args:
        without_backslash: the leading one is left out and the rest cut at 100 characters, as one
            of both variants in the original sources did.

    Raises: CredentialError.
    """
    lead, backslash, rest = name.partition("\\")
    tree = rest.partition("\\")[0]
    if lead or not backslash or not tree:
        raise CredentialError("the tree begins with a backslash and has a name: \\Tree")
    if without_backslash:
        return tree[:_SHORT_TREE].encode()
    return (backslash + tree).encode()


def access_hash(credential: bytes, tree: bytes) -> bytes:
    """The hash of a shared credential in a tree, 128 octets.

    Raises: CredentialError: the original went on with a hash that everybody knows.
    """
    credential = credential[:CREDENTIAL_LENGTH]
    if len(credential) < CREDENTIAL_LENGTH:
        raise CredentialError(f"the credential is shorter than {CREDENTIAL_LENGTH} characters")
    if not _ALPHABET.issuperset(credential):
        raise CredentialError("the credential has characters other than a-z, A-Z and 0-9")
    so_far = b""
    for start in range(0, CREDENTIAL_LENGTH, _PIECE):
        so_far += _md5(credential[start : start + _PIECE] + (so_far or tree)).digest()
    return so_far


def parse_access_hash(text: str) -> bytes:
    """Reads an access hash of 256 hex digits. Raises: CredentialError."""
    text = text.strip()
    if not re.fullmatch(r"[0-9a-fA-F]{256}", text):
        raise CredentialError("an access hash is 256 hex digits")
    octets = bytes.fromhex(text)
    if not any(octets):
        raise CredentialError("the access hash is all zeros: whoever made it had no credential")
    return octets


class Handshake:
    """Salts and what clients make of them; nothing is remembered about any client.

    Salt and password belong to an address: the agents of one host share them, and every process
    that knows the access hash gives the same ones at the same time.

    Args:
        secret: the access hash.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._key = hashlib.sha256(b"salt" + secret).digest()
        self._pair: Callable[[bytes, int], tuple[bytes, bytes]] = functools.lru_cache(_MAX_SOURCES)(
            self._make_pair
        )

    def salt(self, source: bytes, now: float) -> bytes:
        """The salt for a source address, 32 hex digits.

        Args:
            now: seconds since 1970, about the same wherever the access hash is known.
        """
        return self._pair(source, int(now) // SLOT)[0]

    def accepts(self, source: bytes, password: bytes, now: float) -> bool:
        """Whether the password answers this salt or the one before; its case does not matter."""
        slot = int(now) // SLOT
        password = password.lower()
        return compare_digest(password, self._pair(source, slot)[1]) or compare_digest(
            password, self._pair(source, slot - 1)[1]
        )

    def _make_pair(self, source: bytes, slot: int) -> tuple[bytes, bytes]:
        """A salt, and the password that answers it."""
        message = source + slot.to_bytes(8, "big", signed=True)
        salt = hmac.digest(self._key, message, "sha256").hex()[:32].encode()
        return salt, _md5(salt + self._secret).hexdigest().encode()


def _md5(data: bytes) -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)  # the protocol's, not our choice
