"""Recipients that were found are not looked up again for a moment."""

from collections.abc import Sequence

import pytest
from netmail_common.mail_address import MailAddress
from netmail_common.nmap import DirectoryClient, Resolution, ResolveOutcome
from netmail_smtp.adapters.lookups import RecipientLookups

ALICE, BOB, NOBODY = (MailAddress(name, "example.org") for name in ("alice", "bob", "nobody"))


class Directory(DirectoryClient):
    """Counts what it is asked; only the network is missing."""

    def __init__(self) -> None:
        self.asked: list[tuple[MailAddress, int]] = []

    async def resolve(self, addresses: Sequence[MailAddress], size: int = 0) -> list[Resolution]:
        self.asked.extend((address, size) for address in addresses)
        return [
            Resolution(ResolveOutcome.UNKNOWN_USER)
            if address == NOBODY
            else Resolution(ResolveOutcome.LOCAL, name=address.local)
            for address in addresses
        ]


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def directory() -> Directory:
    return Directory()


async def names(lookups: RecipientLookups, *addresses: MailAddress, size: int = 0) -> list[str]:
    return [resolution.name for resolution in await lookups.resolve(addresses, size)]


async def test_only_what_is_not_remembered_is_asked(directory: Directory) -> None:
    clock = Clock()
    lookups = RecipientLookups(directory, 0.25, clock)
    assert await names(lookups, ALICE, NOBODY) == ["alice", ""]
    assert await names(lookups, NOBODY, ALICE, BOB) == ["", "alice", "bob"]
    assert directory.asked == [(ALICE, 0), (NOBODY, 0), (NOBODY, 0), (BOB, 0)]
    clock.time += 0.25
    assert await names(lookups, ALICE) == ["alice"]
    assert directory.asked[4:] == [(ALICE, 0)]


async def test_another_size_is_another_question(directory: Directory) -> None:
    lookups = RecipientLookups(directory, 0.25, Clock())
    await names(lookups, ALICE, size=1)
    await names(lookups, ALICE, size=2)
    assert directory.asked == [(ALICE, 1), (ALICE, 2)]


async def test_without_a_time_nothing_is_remembered(directory: Directory) -> None:
    lookups = RecipientLookups(directory, 0, Clock())
    await names(lookups, ALICE)
    await names(lookups, ALICE)
    assert len(directory.asked) == 2


async def test_memory_is_bounded(directory: Directory) -> None:
    lookups = RecipientLookups(directory, 0.25, Clock())
    for number in range(10_001):
        await names(lookups, MailAddress(f"u{number}", "example.org"))
    await names(lookups, MailAddress("u0", "example.org"))
    assert len(directory.asked) == 10_002
