"""Stores to put through the contract."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from netmail_common.config import ValkeyConfig
from netmail_common.connmgr.model import LoginProtocol, Profile, Registration, UserKey
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.adapters.valkey.connection import Valkey
from netmail_connmgr.adapters.valkey.store import ValkeyStore
from netmail_connmgr.domain.store import LoginStore
from netmail_connmgr.domain.table import Registered, TableLimits

OpenStore = Callable[..., AbstractAsyncContextManager[LoginStore]]
"""Opens an empty store; the limits by keyword."""

HOME = b"\xc0\x00\x02\x01"
OFFICE = b"\xc0\x00\x02\x02"
ALICE = UserKey("alice", "users.demo")
BOB = UserKey("bob", "users.demo")


@contextlib.asynccontextmanager
async def memory_store(**limits: Any) -> AsyncIterator[MemoryStore]:
    yield MemoryStore(TableLimits(**limits))


@contextlib.asynccontextmanager
async def valkey_store(
    config: ValkeyConfig, *, wait: bool = True, **limits: Any
) -> AsyncIterator[ValkeyStore]:
    """Opens a store; WAIT until it was read."""
    valkey = Valkey(config)
    store = ValkeyStore(valkey, TableLimits(**limits), config)
    running = asyncio.create_task(store.run())
    try:
        if wait:
            async with asyncio.timeout(60):
                await store.ready()
        yield store
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await valkey.close()


def prefixed(config: ValkeyConfig) -> ValkeyConfig:
    """The same server, but a table of its own."""
    return config.model_copy(update={"prefix": f"test-{secrets.token_hex(6)}"})


def registration(
    user: UserKey = ALICE,
    place: bytes = HOME,
    *,
    session: str = "s",
    age: float = 0.0,
    epoch: int | None = 1,
    renewal: bool = False,
    **more: Any,
) -> Registration:
    profile = more.pop("profile", Profile(user))
    return Registration(
        profile=profile,
        place=place,
        client_address=more.pop("client_address", place.removesuffix(b"-")),
        protocol=more.pop("protocol", LoginProtocol.POP3),
        messaging_server=more.pop("messaging_server", "mail1"),
        agent="pop_imap/1",
        session_id=session,
        age=age,
        credential_epoch=epoch,
        renewal=renewal,
    )


async def register(store: LoginStore, *args: Any, **fields: Any) -> Registered:
    (answer,) = await store.register([registration(*args, **fields)])
    return answer


async def live(store: LoginStore, place: bytes = HOME) -> set[UserKey]:
    (found,) = await store.find([place])
    return {login.user for login in found.logins}


async def holds(store: LoginStore, size: int) -> bool:
    """Whether it has so many logins, as far as it knows."""
    return await store.size() == size


def places(count: int) -> Sequence[bytes]:
    return [bytes((198, 51, 100, number)) for number in range(count)]
