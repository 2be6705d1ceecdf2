"""Counts over sliding windows, in memory that is bounded."""

from collections import OrderedDict
from typing import NamedTuple

__all__ = ["PARTS", "SlidingWindows", "Tally"]

PARTS = 60
"""Parts that a window is counted in; a part counts until the last of it is out of the window."""
MAX_KEYS = 500_000
_SWEPT_AT_ONCE = 4


class Tally(NamedTuple):
    """A counter after something was to be added.

    Attributes:
        total: in the window.
        admitted: whether it was added.
        wait: seconds until it could be; 0 if it was, infinite if it is more than the limit. Where
            nothing was to be added: until one could be.
    """

    total: float
    admitted: bool = True
    wait: float = 0.0


class SlidingWindows:
    """Counters by name, each over a window of its own length.

    A window is never looked at too short, only up to a sixtieth too long. Beyond MAX_KEYS the
    counter that was not touched for longest is forgotten.

    Args:
        max_keys: counters of one window length that are kept.
    """

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        # One for each length: within it the order of touching is the order of ageing.
        self._windows: dict[float, OrderedDict[str, _Window]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._windows.values()))

    def count(
        self, key: str, amount: float, window: float, now: float, *, limit: float = float("inf")
    ) -> Tally:
        """Adds to a counter, unless its total would be above the limit.

        Args:
            key: names the counter, together with the window.
            amount: 0 reads, a negative one gives back.
            window: seconds.
            now: seconds, never going back.
            limit: of the total.
        """
        windows = self._windows.setdefault(window, OrderedDict())
        width = window / PARTS
        part = int(now // width)
        self._sweep(windows, part)
        found = windows.get(key)
        if found is None:
            if not amount:
                return Tally(0.0)
            found = _Window()
        total = found.total(part)
        excess = total + (amount or 1) - limit
        if excess > 0 and amount >= 0:
            return Tally(total, admitted=not amount, wait=found.wait(excess, now, width))
        if amount:
            found.add(part, amount)
            windows[key] = found
            windows.move_to_end(key)
            if len(windows) > self._max_keys:
                windows.popitem(last=False)
        return Tally(max(0.0, total + amount))

    def forget(self, key: str) -> bool:
        """Sets the counters of this name to zero; whether one was not."""
        gone = [windows.pop(key, None) for windows in self._windows.values()]
        return any(gone)

    def _sweep(self, windows: "OrderedDict[str, _Window]", part: int) -> None:
        """Forgets a few counters that nothing is left of."""
        for _ in range(_SWEPT_AT_ONCE):
            if not windows:
                return
            key, oldest = next(iter(windows.items()))
            if oldest.total(part):
                return
            del windows[key]


class _Window:
    """A counter: its parts by their numbers, oldest first."""

    __slots__ = ("_amounts", "_parts")

    def __init__(self) -> None:
        self._parts: list[int] = []
        self._amounts: list[float] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def total(self, part: int) -> float:
        """What is in the window that ends in a part; older parts are forgotten."""
        gone = 0
        while gone < len(self._parts) and self._parts[gone] < part - PARTS:
            gone += 1
        if gone:
            del self._parts[:gone]
            del self._amounts[:gone]
        return max(0.0, sum(self._amounts))

    def add(self, part: int, amount: float) -> None:
        """Adds to the newest part."""
        if self._parts and self._parts[-1] >= part:
            self._amounts[-1] += amount
        else:
            self._parts.append(part)
            self._amounts.append(amount)

    def wait(self, excess: float, now: float, width: float) -> float:
        """Seconds until so much is out of the window."""
        for part, amount in zip(self._parts, self._amounts, strict=True):
            excess -= amount
            if excess <= 0:
                return (part + PARTS + 1) * width - now
        return float("inf")
