"""UDP port 689 over a table of its own."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import Installation, parse_config
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters import legacy_udp
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.stall import StallGuard
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.conftest import Clock
from tests.connmgr.legacy_udp.vectors import ACCESS_HASH, CREDENTIAL, TREE


@dataclass(slots=True)
class Served:
    """A running front end, its table and its clock."""

    port: int
    desk: LocalDesk
    store: MemoryStore
    clock: Clock


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


def installation(**section: Any) -> Installation:
    """Two contexts on one Messaging Server, and UDP by SECTION."""
    return parse_config(
        {
            "connection_managers": [
                {
                    "name": "cm1",
                    "listen": ["127.0.0.1:0"],
                    "loopback_grants": True,
                    "legacy_udp": {"listen": ["127.0.0.1:0"], **section},
                }
            ],
            "messaging_servers": [
                {
                    "name": "mail1",
                    "host_name": "mail.example.org",
                    "domains": ["example.org"],
                    "connection_manager": "cm1",
                    "contexts": [{"name": "users.demo"}, {"name": "guests.demo"}],
                    "nmap": {"listen": ["127.0.0.1:0"]},
                }
            ],
        }
    )


def setup_for(settings: Installation, desk: LocalDesk | None = None) -> FrontEndSetup:
    """What the process would open the front end with."""
    rules = AddressRules.of_installation(settings, "cm1")
    if desk is None:
        store = MemoryStore(TableLimits())
        desk = LocalDesk(store, NetworkMap(rules), max_users_per_network=8)
    return FrontEndSetup(settings, "cm1", rules, desk)


@pytest.fixture
def hash_file(tmp_path: Path) -> Path:
    """The access hash in hex."""
    file = tmp_path / "access_hash"
    file.write_text(f"{ACCESS_HASH.hex()}\n", encoding="ascii")
    return file


@pytest.fixture
def credential(tmp_path: Path) -> dict[str, Any]:
    """The settings of a shared credential."""
    file = tmp_path / "credential"
    file.write_text(f"{CREDENTIAL}\n", encoding="ascii")
    return {"credential_file": str(file), "tree": TREE}


@pytest.fixture
def serve(hash_file: Path) -> Serve:
    """Serves both protocols to 127.0.0.1; other settings by keyword, None takes one away."""

    @contextlib.asynccontextmanager
    async def start(limits: TableLimits | None = None, **section: Any) -> AsyncIterator[Served]:
        settings = {
            "allowed_sources": ["127.0.0.1/32"],
            "access_hash_file": str(hash_file),
            "plain": True,
            **section,
        }
        chosen = installation(
            **{key: value for key, value in settings.items() if value is not None}
        )
        clock = Clock()
        store = MemoryStore(limits or TableLimits(), clock=clock)
        rules = AddressRules.of_installation(chosen, "cm1")
        desk = LocalDesk(store, NetworkMap(rules), max_users_per_network=8)

        def run_meanwhile(now: float) -> None:
            desk.guard = StallGuard(now)

        clock.beat = run_meanwhile
        async with legacy_udp.prepare(setup_for(chosen, desk)) as ports:
            yield Served(ports[0], desk, store, clock)

    return start
