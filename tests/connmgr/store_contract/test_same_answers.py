"""Whatever happens in whatever order, Redis answers what the table in memory answers."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netmail_common.config import ValkeyConfig
from netmail_common.connmgr.model import ANONYMOUS, Login, Registration, UserKey
from netmail_common.connmgr.packed import key_end
from netmail_connmgr.domain.changes import Change
from netmail_connmgr.domain.store import (
    LoginFilter,
    LoginStore,
    Position,
    RevokeOrder,
    StoreFull,
)

from tests.connmgr.store_contract.stores import (
    ALICE,
    BOB,
    memory_store,
    prefixed,
    registration,
    valkey_store,
)
from tests.support.valkey import one_redis

USERS = (ALICE, BOB, UserKey("carol", "users.demo"), ANONYMOUS)
NETWORKS = (b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02", b"\x0a\x00\x00\x03", bytes(range(16)))
PLACES = (*NETWORKS, NETWORKS[0] + b"-")
STEP = 60
"""Seconds between two ages: far more than the stores' calls differ by."""
LIFETIME = 900

Step = Registration | RevokeOrder


@st.composite
def registrations(draw: st.DrawFn) -> Registration:
    user = draw(st.sampled_from(USERS))
    epoch = draw(st.one_of(st.none(), st.integers(1, 4)))
    return registration(
        user,
        draw(st.sampled_from(PLACES)),
        session=draw(st.sampled_from(["", "a", "b", "c"])),
        age=float(STEP * draw(st.integers(0, 16)) + STEP / 2),
        epoch=None if user == ANONYMOUS else epoch,
        renewal=draw(st.booleans()),
    )


@st.composite
def revocations(draw: st.DrawFn) -> RevokeOrder:
    user = draw(st.one_of(st.none(), st.sampled_from(USERS[:3])))
    network = draw(st.sampled_from([*NETWORKS, None] if user is not None else NETWORKS))
    epoch = draw(st.integers(0, 4)) if user is not None else 0
    return RevokeOrder(user, network, epoch, reason="test")


@dataclass(frozen=True)
class Row:
    """A login, its times rounded to what they were meant to be."""

    user: UserKey
    place: bytes
    session: str
    epoch: int | None
    age: int
    remaining: int


def row(login: Login, now: float) -> Row:
    return Row(
        login.user,
        login.place,
        login.session_id,
        login.credential_epoch,
        round((now - login.verified) / (STEP / 2)),
        round((login.expires - now) / (STEP / 2)),
    )


async def play(store: LoginStore, steps: list[Step]) -> list[Any]:
    """Everything that can be seen of the store while it goes through the steps."""
    seen: list[Any] = []
    wake = asyncio.Event()
    async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
        copy: dict[bytes, Login] = {}
        await feed.snapshot(logins=True)
        for step in steps:
            if isinstance(step, RevokeOrder):
                seen.append(await revoked(store, step))
            else:
                (answer,) = await store.register([step])
                remaining = round(answer.remaining / (STEP / 2))
                seen.append(answer._replace(remaining=float(remaining)))
            while changes := await feed.take(3):
                apply(store, copy, changes)
            found = await store.find(PLACES)
            seen.append([{row(one, at.now) for one in at.logins} for at in found])
            # The watcher's copy is the table, at every step.
            now = store.now()
            assert {row(one, now) for one in copy.values() if one.expires > now} == {
                row(one, at.now) for at in found for one in at.logins
            }
        page = await store.list_logins(LoginFilter(), 1000, "")
        seen.append({row(one, page.now) for one in page.logins})
    return seen


async def revoked(store: LoginStore, order: RevokeOrder) -> int | None:
    """How many; None: there was no room."""
    try:
        return await store.revoke(order)
    except StoreFull:
        return None


def apply(store: LoginStore, copy: dict[bytes, Login], changes: list[Change]) -> None:
    for change in changes:
        for key in change.removed:
            copy.pop(key, None)
        if change.record:
            key = change.record[: key_end(change.record)]
            copy[key] = store.packer.unpack(change.record)


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with one_redis() as node:
        yield node.address


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.one_of(registrations(), registrations(), revocations()), max_size=25))
def test_redis_answers_as_the_table_in_memory_does(redis_address: str, steps: list[Step]) -> None:
    async def run() -> None:
        limits: dict[str, Any] = {
            "max_networks_per_user": 2,
            "max_logins": 7,
            "login_lifetime": LIFETIME,
        }
        config = prefixed(ValkeyConfig(addresses=[redis_address]))
        async with memory_store(**limits) as ours, valkey_store(config, **limits) as shared:
            assert await play(shared, steps) == await play(ours, steps)

    asyncio.run(run())
