"""When a deferred delivery is tried again, when its sender is warned, when it is given up.

RFC 5321 4.5.4.1: a delay that grows, four to five days in all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from netmail_common.config import QueueConfig

EXPIRED_STATUS = "4.4.7"
"""RFC 3463 3.5: delivery time expired."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The recipient stays in the queue."""

    delay: float
    """Seconds until the next attempt."""
    warn: bool
    """Send a delay DSN now (where NOTIFY allows it): the first attempt after `delay_warning`."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The recipient's time is over: a failure with status 4.4.7."""


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """Exponential back-off with jitter; all times in seconds."""

    first_retry: float
    max_retry: float
    jitter: float
    """Share of the delay that is random, 0 to 1."""
    lifetime: float
    delay_warning: float

    @classmethod
    def from_config(cls, config: QueueConfig) -> Self:
        """The schedule that the configuration asks for."""
        return cls(
            first_retry=config.first_retry,
            max_retry=config.max_retry,
            jitter=config.jitter,
            lifetime=config.lifetime,
            delay_warning=config.delay_warning,
        )

    def after(
        self, *, attempt: int, age: float, warned: bool, random: Callable[[], float]
    ) -> RetryLater | GiveUp:
        """Decides after a deferred attempt.

        The last attempt is made when the lifetime ends, not one delay earlier.

        Args:
            attempt: attempts so far, this one included; at least 1.
            age: seconds since the message was accepted.
            warned: a delay DSN has been sent for this recipient.
            random: gives numbers in [0, 1).
        """
        if age >= self.lifetime:
            return GiveUp()
        # 2**64 first retries are beyond any lifetime; the bound keeps the float finite.
        delay = min(self.max_retry, self.first_retry * 2.0 ** min(attempt - 1, 64))
        delay *= 1 - self.jitter * random()
        return RetryLater(
            delay=min(delay, self.lifetime - age),
            warn=not warned and age >= self.delay_warning,
        )
