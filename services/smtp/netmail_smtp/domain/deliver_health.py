"""Hosts that failed are left alone for a while: a dead one costs one time-out in all."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from netmail_smtp.domain.deliver_outcome import DeliveryFailure

_MAX_HOSTS = 20_000


@dataclass(slots=True)
class _Host:
    failures: int
    until: float
    failure: DeliveryFailure | None
    proven: bool


class HostHealth:
    """Which hosts answer; all times in seconds of CLOCK."""

    def __init__(self, *, first: float, longest: float, clock: Callable[[], float]) -> None:
        """Makes an empty table.

        Args:
            first: how long a host is left alone after its first failure; doubled each time.
            longest: the most.
            clock: monotonic.
        """
        self._first = first
        self._longest = longest
        self._clock = clock
        self._hosts: dict[Hashable, _Host] = {}

    def suspended(self, host: Hashable) -> DeliveryFailure | None:
        """The failure for which HOST is left alone now."""
        state = self._hosts.get(host)
        if state is None or state.until <= self._clock():
            return None
        return state.failure

    def proven(self, host: Hashable) -> bool:
        """HOST's last session was a good one: several may be opened at once."""
        state = self._hosts.get(host)
        return state is not None and state.proven

    def failed(self, host: Hashable, failure: DeliveryFailure) -> None:
        """No session came about. Failures within one suspension count once."""
        now = self._clock()
        state = self._hosts.get(host)
        if state is None:
            self._make_room(now)
            state = self._hosts[host] = _Host(0, 0, None, proven=False)
        if state.until > now:
            return
        state.until = now + min(self._longest, self._first * 2.0 ** min(state.failures, 32))
        state.failures += 1
        state.failure = failure
        state.proven = False

    def succeeded(self, host: Hashable) -> None:
        """A session came about."""
        if host not in self._hosts:
            self._make_room(self._clock())
        self._hosts[host] = _Host(0, 0, None, proven=True)

    def _make_room(self, now: float) -> None:
        """Forgets hosts that are not suspended when there are too many."""
        if len(self._hosts) >= _MAX_HOSTS:
            self._hosts = {key: host for key, host in self._hosts.items() if host.until > now}
            if len(self._hosts) >= _MAX_HOSTS:
                self._hosts.clear()
