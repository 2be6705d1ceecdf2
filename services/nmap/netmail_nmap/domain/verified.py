"""Passwords that were verified a moment ago, so that not every POP poll costs an Argon2."""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

from netmail_nmap.domain.users import UserRecord


class VerifiedPasswords:
    """Remembers successes only, as HMACs under a key of this process.

    An entry holds for the stored hash and credential epoch that it was verified against: any
    change of either, on whatever replica, voids it.

    Args:
        lifetime: seconds; 0: remembers nothing.
        clock: monotonic seconds.
        size: entries; the least recently stored goes.
    """

    def __init__(self, lifetime: float, clock: Callable[[], float], *, size: int = 100_000) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._size = size
        self._key = secrets.token_bytes(32)
        self._entries: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()

    def remember(self, user: UserRecord, password: str) -> None:
        """Stores a success."""
        if self._lifetime <= 0:
            return
        place = (user.context, user.name_key)
        self._entries.pop(place, None)
        self._entries[place] = (self._clock() + self._lifetime, self._digest(user, password))
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def has(self, user: UserRecord, password: str) -> bool:
        """Whether this password was verified for this very stored hash."""
        entry = self._entries.get((user.context, user.name_key))
        if entry is None:
            return False
        expires, digest = entry
        if expires <= self._clock():
            del self._entries[user.context, user.name_key]
            return False
        return hmac.compare_digest(digest, self._digest(user, password))

    def _digest(self, user: UserRecord, password: str) -> bytes:
        stored = user.credentials.password_hash.encode()
        head = f"{user.credential_epoch}:{len(stored)}:".encode()
        return hmac.digest(self._key, head + stored + password.encode(), "sha256")
