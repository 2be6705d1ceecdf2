"""One whole installation for the interoperability tests; skips that are not allowed."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.installation import RunningInstallation, installation

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
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    """The demonstration's installation on free ports, shared by all tests of the run."""
    state: Path = tmp_path_factory.mktemp("installation")
    with installation(state) as started:
        yield started
