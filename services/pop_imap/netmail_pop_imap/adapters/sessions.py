"""The open connections of a process, and how they end at a drain."""

import asyncio
from random import Random

from netmail_pop_imap.adapters.metrics import SESSIONS
from netmail_pop_imap.domain.session import Ending, Session


class SessionSet:
    """Every open connection of the process."""

    def __init__(self) -> None:
        self._sessions: set[Session] = set()
        self._finishing: set[asyncio.Future[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """A connection was made."""
        self._sessions.add(session)
        self._empty.clear()
        SESSIONS.labels(session.protocol_name).inc()

    def discard(self, session: Session) -> None:
        """A connection is gone."""
        if session in self._sessions:
            self._sessions.remove(session)
            SESSIONS.labels(session.protocol_name).dec()
        if not self._sessions:
            self._empty.set()

    def finish(self, work: asyncio.Future[None]) -> None:
        """Work that must end well even if its client goes away; a drain waits for it."""
        self._finishing.add(work)
        work.add_done_callback(self._finished)

    def _finished(self, work: asyncio.Future[None]) -> None:
        self._finishing.discard(work)
        if not work.cancelled():
            work.exception()  # whoever waits for it answers; if nobody does it is not an accident

    async def drain(self, ceiling: float, random: Random) -> None:
        """Ends every session within `ceiling` seconds.

        Farewells are spread at random, 100 a second but over half the time at most, so that the
        clients do not all come back at once; what is left at the ceiling is cut.
        """
        loop = asyncio.get_running_loop()
        spread = min(ceiling / 2, len(self._sessions) / 100)
        for session in tuple(self._sessions):
            loop.call_later(random.uniform(0, spread), session.end, Ending.SHUTDOWN)
        try:
            async with asyncio.timeout(ceiling):
                await self._empty.wait()
                await asyncio.gather(*self._finishing, return_exceptions=True)
        except TimeoutError:
            for session in tuple(self._sessions):
                session.cut()
