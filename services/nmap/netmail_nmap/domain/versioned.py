"""What was read from a directory that has not changed since."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class VersionedCache(Generic[V]):
    """Remembers values until the version changes; bounded.

    Args:
        version: the directory's version now; None: it may change unseen, nothing is remembered.
        size: entries; a full cache begins anew.
    """

    def __init__(self, version: Callable[[], Hashable | None], *, size: int = 50_000) -> None:
        self._version = version
        self._size = size
        self._known_version: Hashable | None = None
        self._values: dict[str, V] = {}

    def version(self) -> Hashable | None:
        """The version now: ask before reading, and say it to `put`."""
        return self._version()

    def get(self, key: str) -> V | None:
        """The value read from the directory as it is now."""
        version = self._version()
        if version is None or version != self._known_version:
            return None
        return self._values.get(key)

    def put(self, key: str, value: V, version: Hashable | None) -> None:
        """Remembers what was read since VERSION was asked for, if that still holds."""
        if version is None or version != self._version():
            return
        if version != self._known_version or len(self._values) >= self._size:
            self._values.clear()
            self._known_version = version
        self._values[key] = value
