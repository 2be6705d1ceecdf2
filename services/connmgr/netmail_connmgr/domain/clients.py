"""Where the clients of listeners came from in the last hour, as the agents tell."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["ClientBook", "ListenerKey", "Seen"]

_HOUR = 3600.0
_SLICE = 300.0
_MAX_ADDRESSES = 2000
"""Of one listener in one slice; the rest is counted together."""
_MAX_LISTENERS = 256

ListenerKey = tuple[str, str]
"""A Messaging Server and a listener of it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Clients of one listener.

    Attributes:
        connections: by address, 4 or 16 octets.
        others: connections of clients that there was no room for.
    """

    connections: Mapping[bytes, int]
    others: int = 0


@dataclass(slots=True)
class _Slice:
    begun: float
    connections: Counter[bytes] = field(default_factory=Counter)
    others: int = 0


class ClientBook:
    """Counts connections by listener and address, over an hour, in bounded space."""

    def __init__(self) -> None:
        self._slices: dict[ListenerKey, deque[_Slice]] = {}

    def add(self, listener: ListenerKey, seen: Seen, now: float) -> None:
        """Takes a report; of listeners beyond the bound nothing is kept."""
        slices = self._slices.get(listener)
        if slices is None:
            if len(self._slices) >= _MAX_LISTENERS:
                return
            slices = self._slices[listener] = deque()
        if not slices or now - slices[-1].begun >= _SLICE:
            slices.append(_Slice(now))
        self._forget(slices, now)
        last = slices[-1]
        last.others += seen.others
        for address, count in seen.connections.items():
            if address in last.connections or len(last.connections) < _MAX_ADDRESSES:
                last.connections[address] += count
            else:
                last.others += count

    def last_hour(self, now: float) -> Iterator[tuple[ListenerKey, Seen]]:
        """What is known, by listener."""
        for listener, slices in sorted(self._slices.items()):
            self._forget(slices, now)
            total: Counter[bytes] = Counter()
            for one in slices:
                total.update(one.connections)
            yield listener, Seen(total, sum(one.others for one in slices))

    @staticmethod
    def _forget(slices: deque[_Slice], now: float) -> None:
        while slices and now - slices[0].begun >= _HOUR:
            slices.popleft()
