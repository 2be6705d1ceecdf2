"""The client fails closed, within its time, and gathers what comes at once."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import ConnectionManagerClient, ConnectionManagerUnavailable, UserKey
from netmail_common.roles import Role
from netmail_connmgr.domain.store import StoreUnavailable

from tests.connmgr.conftest import Server, check, login


@pytest.fixture
def asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many places each question to the store was about."""
    sizes: list[int] = []
    find = server.store.find

    async def counted(places: Sequence[bytes]) -> Any:
        sizes.append(len(places))
        await asyncio.sleep(0.01)
        return await find(places)

    monkeypatch.setattr(server.store, "find", counted)
    return sizes


async def test_what_comes_at_once_goes_in_few_calls(server: Server, asked: list[int]) -> None:
    client = server.client(Role.SMTP)
    await asyncio.gather(*(client.check_sender(check()) for _ in range(500)))
    assert sum(asked) == 500
    assert len(asked) < 10


async def test_a_lone_question_waits_for_nobody(server: Server, asked: list[int]) -> None:
    await server.client(Role.SMTP).check_sender(check())
    assert asked == [1]


async def test_an_answer_that_does_not_come_is_an_error_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def hang(_: object) -> Any:
        await never.wait()

    monkeypatch.setattr(server.store, "find", hang)
    monkeypatch.setattr(server.store, "register", hang)
    client = ConnectionManagerClient(server.channel(Role.ADMIN), timeout=0.3)
    begun = time.monotonic()
    for call in (client.check_sender(check()), client.register_one(login())):
        with pytest.raises(ConnectionManagerUnavailable):
            await call
    # Whoever has to wait for calls that hang has no more time than these.
    calls = [client.check_sender(check()) for _ in range(600)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, ConnectionManagerUnavailable) for result in results)
    assert time.monotonic() - begun < 10
    never.set()


async def test_a_store_that_does_not_answer_is_said_by_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> Any:
        raise StoreUnavailable

    for method in ("find", "register", "revoke"):
        monkeypatch.setattr(server.store, method, away)
    client = server.client(Role.ADMIN)
    for call in (
        client.check_sender(check()),
        client.register([login()]),
        client.revoke(user=UserKey("a", "c")),
    ):
        with pytest.raises(ConnectionManagerUnavailable) as caught:
            await call
        assert caught.value.reason == "STORE_UNAVAILABLE"


async def test_a_bug_of_the_server_is_no_yes_either(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(_: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(server.store, "find", bug)
    with pytest.raises(ConnectionManagerUnavailable) as caught:
        await server.client(Role.SMTP).check_sender(check())
    assert caught.value.reason == "INTERNAL"


async def test_an_answer_with_another_number_of_results_is_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def short(*_: object) -> pb.CheckSenderResponse:
        return pb.CheckSenderResponse()

    client = server.client(Role.SMTP)
    monkeypatch.setattr(client._stub, "CheckSender", lambda *_args, **_kwargs: short())
    with pytest.raises(ConnectionManagerUnavailable):
        await client.check_sender(check())


async def test_a_registration_grows_older_while_it_waits(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = server.store.register

    async def slow(items: Any) -> Any:
        await asyncio.sleep(0.3)
        return await register(items)

    monkeypatch.setattr(server.store, "register", slow)
    client = server.client(Role.POP_IMAP)
    names = [f"user{n}" for n in range(3)]
    tasks = []
    for name in names:  # two calls may be under way; the third waits for one of them
        tasks.append(asyncio.create_task(client.register_one(login(name))))
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks)
    ages = {one.user.name: one.age_ms async for one in server.client(Role.ADMIN).list_logins()}
    assert ages["user0"] < 100
    assert ages["user2"] >= 150


async def test_giving_up_on_a_question_does_not_disturb_the_others(server: Server) -> None:
    await server.client(Role.POP_IMAP).register_one(login())
    client = server.client(Role.SMTP)
    tasks = [asyncio.create_task(client.check_sender(check())) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(result, "decision", None) for result in results[1::2]] == [
        pb.DECISION_ALLOWED
    ] * 10
