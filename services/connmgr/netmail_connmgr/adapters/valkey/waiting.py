"""Registrations that the store could not take, or may have lost, to be made again."""

from collections import deque
from collections.abc import Sequence

from netmail_common.connmgr.model import Registration, UserKey

from netmail_connmgr.adapters import metrics

__all__ = ["WaitingRegistrations"]

REMEMBERED = 10.0
"""Seconds for which a registration is remembered that the store has acknowledged."""

_Key = tuple[bytes, UserKey, str]


class WaitingRegistrations:
    """Bounded; of what does not fit the oldest goes.

    Args:
        limit: registrations that may wait, and as many that are remembered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[_Key, tuple[Registration, float]] = {}
        self._made: deque[tuple[Registration, float]] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, registration: Registration, since: float) -> None:
        """Keeps a registration that was not made; an agent's next try takes its place."""
        user = registration.profile.user
        key = (registration.place, user, registration.session_id)
        self._waiting.pop(key, None)
        if self._limit and len(self._waiting) >= self._limit:
            del self._waiting[next(iter(self._waiting))]
            metrics.WAITING_DROPPED.inc()
        if self._limit:
            self._waiting[key] = (registration, since)

    def made(self, registration: Registration, now: float) -> None:
        """Remembers one that was made: a server that fails may not have passed it on."""
        self._made.append((registration, now))
        while self._made and self._made[0][1] < now - REMEMBERED:
            self._made.popleft()

    def take(self) -> list[tuple[Registration, float]]:
        """Everything that is to be made again, oldest first, each with the time of its asking."""
        found = [*self._made, *self._waiting.values()]
        self._waiting.clear()
        return found

    def put_back(self, registrations: Sequence[tuple[Registration, float]]) -> None:
        """Keeps what could not be made once more."""
        for registration, since in registrations:
            self.wait(registration, since)
