"""Fixtures of the SMTP Agent's tests."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop
from netmail_common.certificates import LocalAuthority

from tests.smtp.receiving import IdentityFor, Receiving, receiving

Start = Callable[..., contextlib.AbstractAsyncContextManager[Receiving]]

_ON_BOTH_LOOPS = {"test_deliver_hosts", "test_deliver_tls"}
"""Modules where the loops differ: broken connections and TLS in the middle of one."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The agents run under uvloop, the tests on asyncio's own loop; these on both."""
    if item.path.stem not in _ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def start(identity_for: IdentityFor, authority: LocalAuthority, tmp_path: Path) -> Start:
    """Starts `smtp serve`; takes the keywords of `receiving`."""

    def begin(**settings: Any) -> contextlib.AbstractAsyncContextManager[Receiving]:
        return receiving(identity_for, authority, tmp_path, **settings)

    return begin
