"""Fixtures that every part's tests share."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.roles import Role

# Before a plain test looptime asks for the current event loop, and would make one nobody closes.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    """The local CA of installation `netmail`."""
    return LocalAuthority.open_or_create(tmp_path_factory.mktemp("ca"), "netmail")


@pytest.fixture(scope="session")
def certificates(authority: LocalAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every role's certificate."""
    folder = tmp_path_factory.mktemp("tls")
    for role in Role:
        authority.issue(role, folder)
    return folder


@pytest.fixture(scope="session")
def identity_for(certificates: Path) -> Callable[[Role], Identity]:
    """The identity of a role."""
    return lambda role: Identity.from_folder(certificates, role)
