"""Argon2 and its like off the event loop: a bounded number at once, a bounded number waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from netmail_common.metrics import duration, gauge, timed

from netmail_nmap.domain.credentials import HashParameters, make_credentials, verify_password
from netmail_nmap.domain.directory_errors import HashingBusy
from netmail_nmap.domain.users import Credentials

T = TypeVar("T")

_DURATION = duration("nmap_password_hash", "Time to hash or verify a password, waiting included")
_WAITING = gauge("nmap_password_hash_waiting", "Passwords that are being hashed or wait for it")


class PasswordHasher:
    """Hashes and verifies in threads (the libraries let go of the GIL).

    Memory is bounded by `concurrency` times the memory cost, time by `queue`.

    Args:
        parameters: of new hashes.
        concurrency: at once.
        queue: that may wait; beyond it HashingBusy.
    """

    def __init__(self, parameters: HashParameters, *, concurrency: int, queue: int) -> None:
        self.parameters = parameters
        self._limit = concurrency + queue
        self._busy = 0
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="password")

    async def make(self, password: str) -> Credentials:
        """Hashes a prepared password.

        Raises: HashingBusy.
        """
        return await self._run(lambda: make_credentials(password, self.parameters))

    async def verify(self, password_hash: str, password: str) -> bool:
        """Verifies a prepared password.

        Raises: HashingBusy.
        """
        return await self._run(lambda: verify_password(password_hash, password))

    async def close(self) -> None:
        """Waits for what is being hashed; drops what waits."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._busy >= self._limit:
            raise HashingBusy
        self._change(1)
        future = self._threads.submit(work)
        loop = asyncio.get_running_loop()
        # The place is free when the thread is done, not when the caller is cancelled.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._change, -1))
        with timed(_DURATION):
            return await asyncio.wrap_future(future)

    def _change(self, by: int) -> None:
        self._busy += by
        _WAITING.set(self._busy)
