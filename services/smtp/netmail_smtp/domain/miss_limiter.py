"""Strangers may not ask the Connection Manager as often as they like."""

import time
from collections import deque
from collections.abc import Callable

from netmail_common.networks import Address, NetworkMap

__all__ = ["MissLimiter"]

MAX_MISSES = 10
"""Questions a network may ask in a second without being known."""
_MAX_TRACKED = 100_000
_GOOD_FOR = 60.0


class MissLimiter:
    """Counts questions per network that were not answered with yes, over one second.

    A network that was known a moment ago asks as often as it likes. Networks are what logins are
    kept for: of an IPv6 client's many addresses none begins anew.

    Args:
        networks: the Connection Manager's.
        limit: questions in a second.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        networks: NetworkMap,
        limit: int = MAX_MISSES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks = networks
        self._limit = limit
        self._clock = clock
        self._misses: dict[bytes, deque[float]] = {}
        self._good: dict[bytes, float] = {}

    def may_ask(self, address: Address) -> bool:
        """Counts one question; False: too many came from this address's network."""
        now = self._clock()
        network = self._networks.locate(address).key
        if self._good.get(network, 0.0) > now:
            return True
        misses = self._misses.get(network)
        if misses is None:
            if len(self._misses) >= _MAX_TRACKED:
                self._misses.clear()
            misses = self._misses[network] = deque()
        while misses and misses[0] <= now - 1.0:
            misses.popleft()
        if len(misses) >= self._limit:
            return False
        misses.append(now)
        return True

    def answered(self, address: Address, *, known: bool) -> None:
        """Takes the answer: yes does not count, and vouches for the next ones."""
        network = self._networks.locate(address).key
        if not known:
            self._good.pop(network, None)
            return
        if len(self._good) >= _MAX_TRACKED:
            self._good.clear()
        self._good[network] = self._clock() + _GOOD_FOR
        self._misses.pop(network, None)
