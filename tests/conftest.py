"""Fixtures that every part's tests share; skips that are not allowed."""

import asyncio
import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.roles import Role

# Before a plain test looptime asks for the current event loop, and would make one nobody closes.
asyncio.set_event_loop(None)


NO_SKIP = "NETMAIL_NO_SKIP"
"""Environment: 1 turns a skip into a failure, where every Debian package is meant to be there."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get(NO_SKIP) == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (and {NO_SKIP}=1 allows no skips)"
    return report


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
