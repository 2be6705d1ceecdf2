"""Rates of known senders: so much an hour, counted over all agents and replicas."""

from collections.abc import Sequence
from typing import NamedTuple

from netmail_common.config import RatesConfig
from netmail_common.connmgr.rates import RATE_WINDOW, RateCount, RelayWanted, rate_counts

from netmail_connmgr.domain.counters import Count, Counted, Counters

__all__ = ["RateVerdict", "Rates"]


class RateVerdict(NamedTuple):
    """Whether mail may go on.

    Attributes:
        rate: user, network or login: the first that is exceeded.
        retry_after: seconds until it may, about.
    """

    accepted: bool = True
    rate: str = ""
    retry_after: float = 0.0


_WITHIN = RateVerdict()


class Rates:
    """Counts what known senders send.

    Args:
        counters: shared by all replicas.
        config: the limits.
    """

    def __init__(self, counters: Counters, config: RatesConfig) -> None:
        self._counters = counters
        self._config = config

    async def admit(self, wanted: Sequence[RelayWanted]) -> list[RateVerdict]:
        """Counts mail if no rate is exceeded by it; else nothing of it is counted.

        Raises: CountersUnavailable.
        """
        asked = [list(rate_counts(self._config, one)) for one in wanted]
        counts = [_count(one) for many in asked for one in many]
        answers = iter(await self._counters.count(counts) if counts else ())
        verdicts, returned = [], []
        for many in asked:
            counted = [(one, next(answers)) for one in many]
            refused = [(one, answer) for one, answer in counted if not answer.admitted]
            verdicts.append(_verdict(refused))
            if refused:
                returned += [_give_back(one) for one, answer in counted if answer.admitted]
        if returned:
            await self._counters.count(returned)
        return verdicts


def _verdict(refused: Sequence[tuple[RateCount, Counted]]) -> RateVerdict:
    if not refused:
        return _WITHIN
    wait = max(answer.wait for _, answer in refused)
    return RateVerdict(accepted=False, rate=refused[0][0].rate, retry_after=min(wait, RATE_WINDOW))


def _count(one: RateCount) -> Count:
    return Count(one.key, one.amount, RATE_WINDOW, float(one.limit))


def _give_back(one: RateCount) -> Count:
    return _count(one)._replace(amount=-one.amount)
