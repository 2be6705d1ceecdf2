"""Faults of strangers: each is counted, few are logged."""

import time
from collections import Counter
from collections.abc import Callable

from netmail_common.logging import get_logger
from prometheus_client import Counter as Metric

__all__ = ["FaultLog"]

log = get_logger(__name__)

_INTERVAL = 60.0


class FaultLog:
    """Counts faults and writes at most one line in so many seconds, with all counts since.

    Args:
        event: what the line says.
        metric: with the label `fault`.
        interval: seconds.
    """

    def __init__(
        self,
        event: str,
        metric: Metric,
        *,
        interval: float = _INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = event
        self._metric = metric
        self._interval = interval
        self._clock = clock
        self._next = clock()
        self._since: Counter[str] = Counter()

    def count(self, fault: str) -> None:
        """One more."""
        self._metric.labels(fault).inc()
        self._since[fault] += 1
        now = self._clock()
        if now >= self._next:
            self._next = now + self._interval
            log.warning(self._event, **dict(self._since))
            self._since.clear()
