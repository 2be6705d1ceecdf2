"""Logins through an NMAP agent: passwords and SCRAM over the Authenticate stream."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from netmail.nmap.v1 import directory_pb2 as pb
from netmail.nmap.v1 import directory_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import Installation
from netmail_common.mail_address import parse_mail_address
from netmail_common.nmap import DirectoryClient, NmapChannels, ScramExchange
from netmail_common.roles import Role
from netmail_common.sasl import (
    AuthFailed,
    AuthMalformed,
    AuthUnavailable,
    Mechanism,
    run_sasl,
)
from netmail_nmap.app import Running, nmap_agent

from tests.nmap.agents import ADDRESS, client_of, login, scram


async def test_a_user_logs_in_by_name_and_by_address(
    mail1: Running, client: DirectoryClient
) -> None:
    alice = await login(client, "alice", "wonderland")
    assert (alice.name, alice.context, alice.server) == ("alice", "users.demo", "mail1")
    assert alice.addresses == ("alice@example.org",)
    assert alice.domains == ("example.org",)
    assert alice.credential_epoch > 0
    assert await login(client, "Alice@Example.ORG", "wonderland") == alice
    with pytest.raises(AuthFailed):
        await login(client, "alice", "Wonderland")


async def test_users_of_the_other_messaging_server_are_found_there(
    mail1: Running, mail2: Running, client: DirectoryClient
) -> None:
    carol = await login(client, "carol", "branch-office")
    assert (carol.context, carol.server) == ("branch.demo", "mail2")
    assert carol.domains == ("branch.example.org",)
    assert await login(client, "carol@branch.example.org", "branch-office") == carol
    assert await scram(client, "carol", "branch-office") == carol
    for name in ("nobody", "nobody@branch.example.org", "nobody@example.net", "alice@"):
        with pytest.raises(AuthFailed):
            await login(client, name, "x")


async def test_a_standalone_server_knows_its_own_users_only(
    mail1: Running,
    mail2: Running,
    installation: Installation,
    identity_for: Callable[[Role], Identity],
) -> None:
    async with client_of(installation, "mail2", identity_for(Role.POP_IMAP)) as client:
        assert (await login(client, "carol", "branch-office")).name == "carol"
        for name in ("alice", "alice@example.org"):
            with pytest.raises(AuthFailed):
                await login(client, name, "wonderland")
        with pytest.raises(AuthFailed):
            await scram(client, "alice", "wonderland")


async def test_scram_through_the_whole_way(mail1: Running, client: DirectoryClient) -> None:
    assert client.scram_offered
    assert (await scram(client, "alice", "wonderland")).name == "alice"
    with pytest.raises(AuthFailed):
        await scram(client, "alice@example.org", "x")
    with pytest.raises(AuthMalformed):
        await client.start_scram(b"garbage", service="imap", client_address=ADDRESS)


async def test_a_failure_says_whose_credentials_they_were_not_to_those_who_count(
    mail1: Running, mail2: Running, client: DirectoryClient
) -> None:
    async def whom(name: str, password: str) -> tuple[str, str] | None:
        with pytest.raises(AuthFailed) as by_password:
            await login(client, name, password)
        with pytest.raises(AuthFailed) as by_scram:
            await scram(client, name, password)
        assert by_scram.value.user == by_password.value.user
        return by_password.value.user

    # An alias gives no more guesses than the name.
    assert await whom("alice", "x") == await whom("Alice@example.org", "x")
    assert await whom("alice", "x") == ("alice", "users.demo")
    assert await whom("carol", "x") == ("carol", "branch.demo")
    assert await whom("nobody", "x") is None
    assert await whom("nobody@branch.example.org", "x") is None


async def test_many_exchanges_share_one_stream(mail1: Running, client: DirectoryClient) -> None:
    async def one(n: int) -> str:
        name, password = (("alice", "wonderland"), ("bob", "builder"))[n % 2]
        if n % 3 == 0:
            return (await scram(client, name, password)).name
        if n % 5 == 0:
            with pytest.raises(AuthFailed):
                await login(client, name, "wrong")
            return name
        return (await login(client, name, password)).name

    names = await asyncio.gather(*(one(n) for n in range(100)))
    assert names == ["alice", "bob"] * 50


async def test_exchanges_are_bounded_and_given_back(
    mail1: Running, client: DirectoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_nmap.adapters.grpc_authenticate.MAX_OPEN", 3)

    async def start() -> ScramExchange:
        return await client.start_scram(b"n,,n=alice,r=abc", service="imap", client_address=ADDRESS)

    for _ in range(10):  # a client that goes away gives its place back
        (await start()).cancel()
    held = [await start() for _ in range(3)]
    with pytest.raises(AuthUnavailable):
        await start()
    held[0].cancel()
    with pytest.raises(AuthMalformed):  # and so does one that talks nonsense
        await held[1].finish(b"nonsense")
    assert (await scram(client, "alice", "wonderland")).name == "alice"


async def test_a_client_that_goes_away_while_it_waits_disturbs_nobody(
    mail1: Running, client: DirectoryClient
) -> None:
    logins = [asyncio.create_task(login(client, "alice", f"wrong{n}")) for n in range(10)]
    await asyncio.sleep(0.005)
    for task in logins[::2]:
        task.cancel()
    results = await asyncio.gather(*logins, return_exceptions=True)
    assert all(isinstance(result, AuthFailed) for result in results[1::2])
    assert (await login(client, "alice", "wonderland")).name == "alice"


async def test_an_agent_that_is_away_is_a_temporary_failure_for_whom_it_may_hold(
    mail1: Running,
    client: DirectoryClient,
    installation: Installation,
    identity_for: Callable[[Role], Identity],
) -> None:
    assert (await login(client, "alice", "wonderland")).name == "alice"
    with pytest.raises(AuthFailed):
        await login(client, "nobody@example.org", "x")
    async with client_of(installation, "mail1", identity_for(Role.SMTP), timeout=0.3) as impatient:
        results = await impatient.resolve(
            [parse_mail_address(a) for a in ("carol@branch.example.org", "bob@example.org")]
        )
        assert [r.outcome.name for r in results] == ["TEMPORARY_FAILURE", "LOCAL"]
        with pytest.raises(AuthUnavailable):  # could be a user of mail2
            await login(impatient, "nobody", "x")
        with pytest.raises(AuthUnavailable):
            await scram(impatient, "carol", "branch-office")


async def test_logins_wait_for_an_agent_that_restarts(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> None:
    async with client_of(installation, "mail1", identity_for(Role.SMTP)) as client:
        early = asyncio.create_task(login(client, "alice", "wonderland"))
        async with nmap_agent(installation, "mail1"):
            assert (await early).name == "alice"
        again = asyncio.create_task(login(client, "alice", "wonderland"))
        async with nmap_agent(installation, "mail1"):
            assert (await again).name == "alice"
    names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
    assert not {name for name in names if name.startswith("_LiveStream")}


async def test_the_sasl_layer_over_the_directory(mail1: Running, client: DirectoryClient) -> None:
    async def challenge(_encoded: bytes) -> bytes | None:
        return None

    result = await run_sasl(
        Mechanism.PLAIN,
        b"AGFsaWNlAHdvbmRlcmxhbmQ=",
        challenge=challenge,
        directory=client,
        service="smtp",
        client_address=ADDRESS,
    )
    assert result.user.name == "alice"


async def test_odd_steps_on_the_stream_are_answered_and_disturb_nobody(
    mail1: Running, installation: Installation, identity_for: Callable[[Role], Identity]
) -> None:
    channels = NmapChannels(installation, "mail1", identity_for(Role.SMTP))
    stub = directory_pb2_grpc.DirectoryServiceStub(channels.for_server("mail1").raw)
    call: Any = stub.Authenticate()  # type: ignore[call-arg] # optional
    start = pb.AuthenticateStart(
        mechanism=pb.MECHANISM_SCRAM_SHA_256,
        client_first=b"n,,n=alice,r=abc",
        messaging_server="mail1",
        last=True,
    )
    requests = [
        pb.AuthenticateRequest(exchange_id=1),
        pb.AuthenticateRequest(exchange_id=2, response=b"never begun"),
        pb.AuthenticateRequest(exchange_id=3, cancel=pb.AuthenticateCancel()),
        pb.AuthenticateRequest(exchange_id=4, start=pb.AuthenticateStart()),
        pb.AuthenticateRequest(exchange_id=5, start=start),
    ]
    for request in requests:
        await call.write(request)
    outcomes = {}
    for _ in range(4):
        response = await call.read()
        outcomes[response.exchange_id] = response.outcome
    assert outcomes == {
        1: pb.AUTHENTICATE_OUTCOME_MALFORMED,
        2: pb.AUTHENTICATE_OUTCOME_TEMPORARY_FAILURE,
        4: pb.AUTHENTICATE_OUTCOME_MALFORMED,
        5: pb.AUTHENTICATE_OUTCOME_CONTINUE,
    }
    # An id that is in use cannot be begun again.
    await call.write(pb.AuthenticateRequest(exchange_id=5, start=start))
    assert (await call.read()).outcome == pb.AUTHENTICATE_OUTCOME_MALFORMED
    await call.write(pb.AuthenticateRequest(exchange_id=5, cancel=pb.AuthenticateCancel()))
    await call.write(pb.AuthenticateRequest(exchange_id=5, start=start))
    assert (await call.read()).outcome == pb.AUTHENTICATE_OUTCOME_CONTINUE
    await call.done_writing()
    assert await call.read() is cast("Any", grpc.aio).EOF
    await channels.close()
