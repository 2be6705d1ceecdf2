"""Prometheus metrics: one way to name them, one set of buckets."""

import contextlib
import time
from collections.abc import Iterator, Sequence

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["DURATION_BUCKETS", "counter", "duration", "gauge", "timed"]

DURATION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30)
"""Seconds: from an answer out of memory to a timeout."""


def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
    """A counter `netmail_NAME_total`."""
    return Counter(f"netmail_{name}", text, labels)


def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge `netmail_NAME`."""
    return Gauge(f"netmail_{name}", text, labels)


def duration(name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
    """A histogram `netmail_NAME_seconds`."""
    return Histogram(f"netmail_{name}_seconds", text, labels, buckets=DURATION_BUCKETS)


@contextlib.contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observes how long the block took, however it ends."""
    start = time.perf_counter()
    try:
        yield
    finally:
        histogram.observe(time.perf_counter() - start)
