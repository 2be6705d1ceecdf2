"""The agents that the tests of sessions share."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from netmail_common.certificates import LocalAuthority

from tests.pop_imap.agents import Agents, running_agents


@pytest.fixture(scope="session")
def agents(
    tmp_path_factory: pytest.TempPathFactory, authority: LocalAuthority, certificates: Path
) -> Iterator[Agents]:
    """One installation for all tests of the run."""
    folder = tmp_path_factory.mktemp("agents")
    with running_agents(folder, authority, certificates, lambda _: None) as running:
        yield running


@pytest.fixture(scope="session")
def new_user() -> Callable[[], str]:
    """Gives a user that no other test has."""
    numbers = count()
    return lambda: f"user{next(numbers)}"
