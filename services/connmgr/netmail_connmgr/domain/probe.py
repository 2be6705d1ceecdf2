"""Tokens by which a person outside may ask a listener which address arrived.

A token proves itself: any replica that has the key knows its own, and nothing is kept.
"""

import base64
import hashlib
import hmac
import secrets

__all__ = ["ProbeTokens"]

_NONCE = 6
_TIME = 5
_MAC = 15


class ProbeTokens:
    """Makes tokens and knows them again.

    Args:
        key: of all replicas.
        lifetime: seconds.
    """

    def __init__(self, key: bytes, *, lifetime: float = 900.0) -> None:
        self._key = hashlib.sha256(b"netmail probe\0" + key).digest()
        self._lifetime = lifetime

    def issue(self, wall: float) -> str:
        """A token, of letters, digits, - and _; WALL: seconds since 1970."""
        body = int(wall + self._lifetime).to_bytes(_TIME, "big") + secrets.token_bytes(_NONCE)
        return base64.urlsafe_b64encode(body + self._mac(body)).rstrip(b"=").decode()

    def knows(self, token: str, wall: float) -> bool:
        """Whether it is one of ours and not too old."""
        try:
            octets = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except ValueError:
            return False
        body, mac = octets[: _TIME + _NONCE], octets[_TIME + _NONCE :]
        if len(octets) != _TIME + _NONCE + _MAC or not hmac.compare_digest(mac, self._mac(body)):
            return False
        return wall < int.from_bytes(body[:_TIME], "big")

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC]
