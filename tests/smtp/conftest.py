"""Fixtures of the SMTP Agent's tests."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from netmail_common.certificates import LocalAuthority

from tests.smtp.receiving import IdentityFor, Receiving, receiving

Start = Callable[..., contextlib.AbstractAsyncContextManager[Receiving]]


@pytest.fixture
def start(identity_for: IdentityFor, authority: LocalAuthority, tmp_path: Path) -> Start:
    """Starts `smtp serve`; takes the keywords of `receiving`."""

    def begin(**settings: Any) -> contextlib.AbstractAsyncContextManager[Receiving]:
        return receiving(identity_for, authority, tmp_path, **settings)

    return begin
