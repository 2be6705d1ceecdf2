"""Looks recipients up, and remembers for a moment those that were found.

Bursts of mail to one mailbox are common (lists, floods, backups of a queue), and a lookup costs as
much as everything else that RCPT does. The moment is shorter than any message takes from RCPT to
its end, so that it opens no window that was not there; refusals are never remembered.
"""

import time
from collections.abc import Callable, Sequence

from netmail_common.mail_address import MailAddress
from netmail_common.nmap import DirectoryClient, Resolution, ResolveOutcome

_MAX_REMEMBERED = 10_000


class RecipientLookups:
    """Resolve with a short memory.

    Args:
        directory: is asked.
        seconds: how long a recipient that was found counts as found; 0: not at all.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        directory: DirectoryClient,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._seconds = seconds
        self._clock = clock
        self._found: dict[tuple[MailAddress, int], tuple[float, Resolution]] = {}

    async def resolve(self, addresses: Sequence[MailAddress], size: int) -> Sequence[Resolution]:
        """One result for each address, in order.

        Args:
            addresses: the recipients of one message.
            size: octets of the message as declared, 0 when unknown; for the quota.
        """
        if not self._seconds:
            return await self._directory.resolve(addresses, size)
        now = self._clock()
        known = [self._remembered(address, size, now) for address in addresses]
        asked = [a for a, found in zip(addresses, known, strict=True) if found is None]
        if asked:
            answers = await self._directory.resolve(asked, size)
            self._remember(asked, size, answers)
            rest = iter(answers)
            return [found or next(rest) for found in known]
        return [found for found in known if found is not None]

    def _remembered(self, address: MailAddress, size: int, now: float) -> Resolution | None:
        found = self._found.get((address, size))
        return found[1] if found is not None and found[0] > now else None

    def _remember(
        self, addresses: Sequence[MailAddress], size: int, answers: Sequence[Resolution]
    ) -> None:
        if len(self._found) >= _MAX_REMEMBERED:
            self._found.clear()
        until = self._clock() + self._seconds
        for address, answer in zip(addresses, answers, strict=True):
            if answer.outcome is ResolveOutcome.LOCAL:
                self._found[address, size] = until, answer
