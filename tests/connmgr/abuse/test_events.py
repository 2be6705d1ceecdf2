"""ReportEvent and ForgetFailures: what is wrong with a call, and what several events in one do."""

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.grpc_errors import error_reason

from tests.connmgr.abuse.agents import Manager, managing, settings
from tests.connmgr.conftest import IdentityFor

HOTEL = ip_address("198.51.100.7").packed
ALICE = pb.UserKey(name="alice", context="users.demo")


@pytest.fixture
async def manager(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> AsyncIterator[Manager]:
    rates = {"after_login": {"recipients": 10}}
    async with managing(settings(certificates, tmp_path, rates=rates), identity_for) as running:
        yield running


def failed(user: pb.UserKey | None = ALICE, name: str = "", address: bytes = HOTEL) -> pb.Event:
    return pb.Event(
        client_address=address,
        service=pb.SERVICE_IMAP,
        messaging_server="mail1",
        user=user,
        typed_name=name,
        login_failed=pb.LoginFailed(),
    )


def wanted(recipients: int, address: bytes = HOTEL) -> pb.Event:
    relay = pb.RelayWanted(recipients=recipients, messages=1)
    return pb.Event(client_address=address, user=ALICE, relay_wanted=relay)


async def report(manager: Manager, *events: pb.Event) -> list[pb.EventResult]:
    return list((await manager.admin.ReportEvent(pb.ReportEventRequest(items=events))).results)


async def test_several_events_of_every_kind_in_one_call_are_answered_in_their_order(
    manager: Manager,
) -> None:
    succeeded = pb.Event(client_address=HOTEL, user=ALICE, login_succeeded=pb.LoginSucceeded())
    results = await report(
        manager,
        wanted(6),
        failed(),
        wanted(6),
        succeeded,
        wanted(4),
        pb.Event(client_address=HOTEL),
    )
    assert [result.accepted for result in results] == [True, True, False, True, True, True]
    assert (results[2].rate, results[2].retry_after_seconds > 3000) == ("user", True)


async def test_failures_in_one_call_count_one_after_the_other(manager: Manager) -> None:
    results = await report(manager, *[failed() for _ in range(7)])
    assert [result.delay_ms for result in results] == [0, 0, 0, 0, 500, 1000, 2000]


async def test_an_event_with_an_address_that_is_none_fails_the_call_and_counts_nothing(
    manager: Manager,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await report(manager, failed(), failed(address=b"abc"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_reason(caught.value) == "BAD_ADDRESS"
    forgotten = await manager.admin.ForgetFailures(pb.ForgetFailuresRequest(user=ALICE))
    assert forgotten.forgotten == 0


async def test_too_many_events_are_refused(manager: Manager) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await report(manager, *[failed() for _ in range(1001)])
    assert error_reason(caught.value) == "TOO_MANY_ITEMS"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.ForgetFailuresRequest(), "NOTHING_TO_FORGET"),
        (pb.ForgetFailuresRequest(user=pb.UserKey(context="users.demo")), "NOTHING_TO_FORGET"),
        (pb.ForgetFailuresRequest(client_address=b"abc"), "BAD_ADDRESS"),
    ],
)
async def test_what_cannot_be_forgotten_is_an_error(
    manager: Manager, request_: pb.ForgetFailuresRequest, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await manager.admin.ForgetFailures(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_reason(caught.value) == reason


@pytest.mark.parametrize("name", ["x" * 100_000, "\0\r\n", "\u202e"])
async def test_whatever_was_typed_as_a_name_is_counted(manager: Manager, name: str) -> None:
    results = await report(manager, *[failed(None, name) for _ in range(5)])
    assert results[-1].delay_ms == 500


async def test_where_guessing_is_not_counted_everything_is_let_pass(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    installation = settings(certificates, tmp_path, guessing={"enabled": False})
    async with managing(installation, identity_for) as manager:
        results = await report(manager, *[failed() for _ in range(50)])
        assert {result.delay_ms for result in results} == {0}
        check = pb.ConnectionCheck(client_address=HOTEL, service=pb.SERVICE_IMAP, user=ALICE)
        answer = await manager.admin.CheckConnection(pb.CheckConnectionRequest(items=[check]))
        assert answer.results[0].verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert (
            await manager.admin.ForgetFailures(pb.ForgetFailuresRequest(user=ALICE))
        ).forgotten == 0
