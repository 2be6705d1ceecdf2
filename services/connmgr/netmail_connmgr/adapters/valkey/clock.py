"""Between a partition's clock and the store's own."""

__all__ = ["MICROSECONDS", "PartitionClock"]

MICROSECONDS = 1_000_000
_LEAP = 1.0
"""Seconds; a clock that differs by more from what is known of it was set."""


class PartitionClock:
    """What is known of a partition's clock, in terms of the store's.

    The partition counts microseconds by its server's clock, which is evened out there; the store
    seconds by this machine's. An answer says what the former showed at some time between the
    sending of the question and its own arrival. Of all that this allows the earliest is assumed:
    logins end no later here than there.
    """

    def __init__(self) -> None:
        self._difference: float | None = None

    def observe(self, sent: float, received: float, shown: int) -> bool:
        """Takes what the partition's clock showed between two times of the store's.

        Returns: whether it leapt: times that were given out before are wrong.
        """
        lowest = sent - shown / MICROSECONDS
        highest = received - shown / MICROSECONDS
        known = self._difference
        if known is None:
            self._difference = lowest
            return False
        leapt = known < lowest - _LEAP or known > highest + _LEAP
        self._difference = lowest if leapt else min(max(known, lowest), highest)
        return leapt

    def to_store(self, shown: float) -> float:
        """The store's time of a partition's time."""
        return shown / MICROSECONDS + (self._difference or 0.0)

    def to_partition(self, time: float) -> int:
        """The partition's time of a store's time."""
        return int((time - (self._difference or 0.0)) * MICROSECONDS)
