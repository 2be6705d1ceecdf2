"""Failed logins, as the rest of the Connection Manager deals with them."""

import asyncio
from collections.abc import Iterable, Sequence

from netmail_common.connmgr.model import UserKey
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import metrics, record
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict
from netmail_connmgr.domain.counters import CountersUnavailable
from netmail_connmgr.domain.guessing import Guessing

__all__ = ["FailureCounts"]

log = get_logger(__name__)

_MAX_WAITING = 100_000


class FailureCounts:
    """Guessing, for whoever must go on when the counters are away. Belongs to one event loop.

    Judges as ConnectionChecks do: what cannot be found out speaks for the client.
    """

    def __init__(self, guessing: Guessing) -> None:
        self._guessing = guessing
        self._waiting: dict[tuple[UserKey, bytes], None] = {}
        self._wake = asyncio.Event()

    @property
    def every_connection(self) -> bool:
        """Whether connections are to be checked that no suspicion is about: no."""
        return False

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        """Judges connections and logins.

        Raises: ValueError, for an address that is none.
        """
        try:
            return await self._guessing.check(questions)
        except CountersUnavailable:
            metrics.COUNTERS_UNAVAILABLE.inc(len(questions))
            return [ConnectionVerdict()] * len(questions)

    async def failed(self, questions: Sequence[ConnectionQuestion]) -> list[float]:
        """Counts failed logins; for each the seconds to wait before it is answered.

        Raises: ValueError, for an address that is none; CountersUnavailable.
        """
        delays = await self._guessing.failed(questions)
        for question, delay in zip(questions, delays, strict=True):
            record.failed_login(question, delay)
        return delays

    async def count_failure(self, question: ConnectionQuestion) -> None:
        """Counts one that a front end has heard of; if that cannot be done it is let pass."""
        try:
            await self.failed([question])
        except CountersUnavailable:
            metrics.COUNTERS_UNAVAILABLE.inc()
        except ValueError:
            log.debug("failed login from no address")

    async def forget(self, user: UserKey | None, address: bytes) -> int:
        """Forgets failures of a user, a network, or both; how many counters were not zero.

        Raises: ValueError, for an address that is none; CountersUnavailable.
        """
        return await self._guessing.forget(user, address)

    def remember(self, logins: Iterable[tuple[UserKey, bytes]]) -> None:
        """Users have logged in from addresses; taken note of in the background."""
        for login in self._guessing.not_noted(logins):
            if not self._waiting:
                self._wake.set()
            if len(self._waiting) < _MAX_WAITING:
                self._waiting[login] = None

    async def run(self) -> None:
        """Takes note of logins until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            logins, self._waiting = list(self._waiting), {}
            try:
                await self._guessing.logged_in(logins)
            except CountersUnavailable:
                metrics.COUNTERS_UNAVAILABLE.inc(len(logins))
