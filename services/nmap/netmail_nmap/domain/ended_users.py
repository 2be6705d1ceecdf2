"""Whose open sessions must end: his credentials changed, or he was disabled or removed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class EndedUsers:
    """Passes the ids of such users on to those who listen; belongs to one event loop."""

    def __init__(self) -> None:
        self._listeners: set[Callable[[int], None]] = set()

    @contextmanager
    def listening(self, listener: Callable[[int], None]) -> Iterator[None]:
        """Calls LISTENER with each user id while the block runs; it must not block."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)

    def publish(self, user_id: int) -> None:
        """Tells everyone who listens."""
        for listener in tuple(self._listeners):
            listener(user_id)
