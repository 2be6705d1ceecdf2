"""Counts over sliding windows that all replicas share: failed logins, messages, recipients."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Count", "Counted", "Counters", "CountersUnavailable"]


class CountersUnavailable(Exception):
    """The store of the counters does not answer."""


class Count(NamedTuple):
    """Adds to a counter.

    Attributes:
        key: names the counter.
        amount: to add; 0 reads, a negative one gives back.
        window: seconds that it looks back.
        limit: nothing is added if the total would exceed it.
    """

    key: str
    amount: int
    window: float
    limit: float = float("inf")


class Counted(NamedTuple):
    """A counter after that.

    Attributes:
        total: in the window.
        admitted: whether the amount was added.
        wait: seconds until it could be; 0 if it was. Where nothing was to be added: until one
            could be.
    """

    total: float
    admitted: bool
    wait: float = 0.0


class Counters(Protocol):
    """Counters and notes with an end; every method may raise CountersUnavailable."""

    async def count(self, counts: Sequence[Count]) -> Sequence[Counted]:
        """Answers each by the result of the same index; each by itself is atomic."""

    async def note(self, keys: Sequence[str], seconds: float) -> None:
        """Remembers the keys for so long from now, or a tenth less."""

    async def noted(self, keys: Sequence[str]) -> Sequence[bool]:
        """Which of them are remembered."""

    async def forget(self, keys: Sequence[str]) -> int:
        """Sets counters to zero and forgets notes; how many there were."""
