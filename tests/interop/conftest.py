"""One whole installation for the interoperability tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installation import RunningInstallation, installation


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningInstallation]:
    """The demonstration's installation on free ports, shared by all tests of the run."""
    state: Path = tmp_path_factory.mktemp("installation")
    with installation(state) as started:
        yield started
