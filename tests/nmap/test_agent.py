"""The NMAP agent as its clients see it: gRPC over mutual TLS, two Messaging Servers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from netmail.nmap.v1 import directory_pb2 as pb
from netmail.nmap.v1 import directory_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import ConfigError, Installation, parse_config
from netmail_common.grpc_client import Channel
from netmail_common.grpc_errors import error_reason
from netmail_common.mail_address import parse_mail_address
from netmail_common.nmap import DirectoryClient, NmapChannels, ResolveOutcome, ScramExchange
from netmail_common.roles import Role
from netmail_common.sasl import (
    AuthenticatedUser,
    AuthFailed,
    AuthMalformed,
    AuthUnavailable,
    Mechanism,
    run_sasl,
)
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.app import Running, nmap_agent
from netmail_nmap.domain.credentials import HashParameters
from passlib.hash import ldap_sha1
from scramp import ScramClient

ADDRESS = ip_address("192.0.2.7")
CHEAP = {"time_cost": 1, "memory_kib": 8}
HASHING = HashParameters(time_cost=1, memory_kib=8)


def free_port() -> int:
    """A port that the kernel chose a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def two_servers(state: Path, certificates: Path, **nmap: Any) -> Installation:
    def server(name: str, domain: str, context: str, users: dict[str, str]) -> dict[str, Any]:
        return {
            "name": name,
            "host_name": f"{name}.{domain}",
            "domains": [domain],
            "standalone": name == "mail2",
            "ube_relaying": {"smtp_after_pop": False},
            "contexts": [
                {
                    "name": context,
                    "initial_users": [{"name": n, "password": p} for n, p in users.items()],
                }
            ],
            "nmap": {"listen": [f"127.0.0.1:{free_port()}"], "argon2": CHEAP, **nmap},
        }

    return parse_config(
        {
            "grpc": {"certificates": str(certificates)},
            "messaging_servers": [
                server(
                    "mail1",
                    "example.org",
                    "users.demo",
                    {"alice": "wonderland", "bob": "builder"},
                ),
                server("mail2", "branch.example.org", "branch.demo", {"carol": "branch-office"}),
            ],
        },
        state=state,
    )


@pytest.fixture
def installation(tmp_path: Path, certificates: Path) -> Installation:
    return two_servers(tmp_path, certificates)


@pytest.fixture
async def mail1(installation: Installation) -> AsyncIterator[Running]:
    async with nmap_agent(installation, "mail1") as running:
        yield running


@pytest.fixture
async def mail2(installation: Installation) -> AsyncIterator[Running]:
    async with nmap_agent(installation, "mail2") as running:
        yield running


@contextlib.asynccontextmanager
async def client_of(
    installation: Installation, server: str, identity: Identity, **options: Any
) -> AsyncIterator[DirectoryClient]:
    channels = NmapChannels(installation, server, identity)
    client = DirectoryClient(channels, **options)
    try:
        yield client
    finally:
        await client.close()
        await channels.close()


@pytest.fixture
async def client(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[DirectoryClient]:
    async with client_of(installation, "mail1", identity_for(Role.SMTP)) as made:
        yield made


@pytest.fixture
async def admin(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> "AsyncIterator[directory_pb2_grpc.DirectoryServiceAsyncStub]":
    channel = Channel(
        installation.messaging_server("mail1").nmap.target,
        identity_for(Role.ADMIN),
        installation="netmail",
        expected_role=Role.NMAP,
    )
    yield directory_pb2_grpc.DirectoryServiceStub(channel.raw)
    await channel.close()


async def login(client: DirectoryClient, name: str, password: str) -> AuthenticatedUser:
    return await client.authenticate_password(
        name, password, service="smtp", client_address=ADDRESS
    )


async def scram(client: DirectoryClient, name: str, password: str) -> AuthenticatedUser:
    """Logs in as a SCRAM client that checks the server's proof too."""
    theirs = ScramClient(["SCRAM-SHA-256"], name, password)
    exchange = await client.start_scram(
        theirs.get_client_first().encode(), service="imap", client_address=ADDRESS
    )
    theirs.set_server_first(exchange.server_first.decode())
    outcome = await exchange.finish(theirs.get_client_final().encode())
    theirs.set_server_final(outcome.server_final.decode())
    return outcome.user


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
    results = await client.resolve(
        [parse_mail_address(a) for a in ("carol@branch.example.org", "bob@example.org")]
    )
    assert [r.outcome.name for r in results] == ["TEMPORARY_FAILURE", "LOCAL"]
    async with client_of(installation, "mail1", identity_for(Role.SMTP), timeout=0.3) as impatient:
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


async def test_recipients_are_looked_up_at_the_owner_of_their_domain(
    mail1: Running, mail2: Running, client: DirectoryClient
) -> None:
    addresses = [
        "alice+tag@example.org",
        "carol@branch.example.org",
        "nobody@example.org",
        "someone@example.net",
        "postmaster@branch.example.org",
        "u@[192.0.2.1]",
    ]
    results = await client.resolve([parse_mail_address(a) for a in addresses], 100)
    assert [(r.outcome.name, r.server, r.name) for r in results] == [
        ("LOCAL", "mail1", "alice"),
        ("LOCAL", "mail2", "carol"),
        ("UNKNOWN_USER", "mail1", ""),
        ("NOT_LOCAL", "", ""),
        ("LOCAL", "mail2", "carol"),
        ("NOT_LOCAL", "", ""),
    ]
    assert await client.resolve([]) == []


async def test_messages_of_different_sizes_are_looked_up_in_one_call(
    mail1: Running,
    client: DirectoryClient,
    admin: "directory_pb2_grpc.DirectoryServiceAsyncStub",
) -> None:
    await admin.UpdateUser(pb.UpdateUserRequest(user=pb.UserRef(name="alice"), quota_bytes=1000))
    alice = [parse_mail_address("alice@example.org")]
    small, large = await asyncio.gather(client.resolve(alice, 10), client.resolve(alice, 5000))
    assert small[0].outcome is ResolveOutcome.LOCAL
    assert large[0].outcome is ResolveOutcome.MAILBOX_FULL


async def test_administration_by_grpc(
    mail1: Running,
    client: DirectoryClient,
    admin: "directory_pb2_grpc.DirectoryServiceAsyncStub",
) -> None:
    frank = pb.UserRef(name="frank", context="users.demo")
    made = await admin.CreateUser(
        pb.CreateUserRequest(user=frank, password="s3cret", addresses=["f@example.org"])
    )
    assert list(made.user.addresses) == ["frank@example.org", "f@example.org"]
    assert (await login(client, "f@example.org", "s3cret")).name == "frank"
    changed = await admin.SetPassword(pb.SetPasswordRequest(user=frank, password="other"))
    assert changed.user.credential_epoch > made.user.credential_epoch
    with pytest.raises(AuthFailed):
        await login(client, "frank@example.org", "s3cret")
    await admin.AddAddress(pb.AddAddressRequest(user=frank, address="ff@example.org"))
    await admin.RemoveAddress(pb.RemoveAddressRequest(user=frank, address="f@example.org"))
    forward = pb.ForwardSetting(forward_to=["x@example.net"], keep_copy=True)
    updated = await admin.UpdateUser(pb.UpdateUserRequest(user=frank, forward=forward))
    assert list(updated.user.addresses) == ["frank@example.org", "ff@example.org"]
    assert list(updated.user.forward_to) == ["x@example.net"]
    assert (await admin.GetUser(pb.GetUserRequest(user=frank))).user == updated.user
    listed = await admin.ListUsers(pb.ListUsersRequest(page_size=2))
    assert [user.name for user in listed.users] == ["alice", "bob"]
    rest = await admin.ListUsers(pb.ListUsersRequest(page_token=listed.next_page_token))
    assert [user.name for user in rest.users] == ["frank"]
    await admin.SetUserDisabled(pb.SetUserDisabledRequest(user=frank, disabled=True))
    with pytest.raises(AuthFailed):
        await login(client, "frank@example.org", "other")
    await admin.DeleteUser(pb.DeleteUserRequest(user=frank))
    contexts = (await admin.ListContexts(pb.ListContextsRequest())).contexts
    assert [(c.name, c.messaging_server, c.users, c.keeps_verifiers) for c in contexts] == [
        ("users.demo", "mail1", 2, True)
    ]


async def test_refusals_say_why_to_programs(
    mail1: Running, admin: "directory_pb2_grpc.DirectoryServiceAsyncStub"
) -> None:
    alice, nobody = pb.UserRef(name="alice"), pb.UserRef(name="nobody")
    refused: dict[str, Awaitable[object]] = {
        "USER_NOT_FOUND": admin.GetUser(pb.GetUserRequest(user=nobody)),
        "USER_EXISTS": admin.CreateUser(pb.CreateUserRequest(user=alice, password="x")),
        "ADDRESS_TAKEN": admin.AddAddress(
            pb.AddAddressRequest(user=alice, address="bob@example.org")
        ),
        "DOMAIN_NOT_LOCAL": admin.AddAddress(
            pb.AddAddressRequest(user=alice, address="alice@example.net")
        ),
        "PASSWORD_INVALID": admin.SetPassword(pb.SetPasswordRequest(user=alice)),
        "CONTEXT_NOT_FOUND": admin.ListUsers(pb.ListUsersRequest(context="nowhere")),
        "INVALID_REQUEST": admin.ListUsers(pb.ListUsersRequest(page_token="zzz")),
    }
    for reason, call in refused.items():
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert error_reason(caught.value) == reason


async def test_an_smtp_agent_may_not_administer(
    mail1: Running, installation: Installation, identity_for: Callable[[Role], Identity]
) -> None:
    channels = NmapChannels(installation, "mail1", identity_for(Role.SMTP))
    stub = directory_pb2_grpc.DirectoryServiceStub(channels.for_server("mail1").raw)
    request = pb.SetPasswordRequest(user=pb.UserRef(name="alice"), password="mine")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SetPassword(request)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await channels.close()


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


async def test_a_context_in_a_password_file(
    tmp_path: Path,
    certificates: Path,
    identity_for: Callable[[Role], Identity],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("netmail_nmap.adapters.htpasswd._POLL_SECONDS", 0.01)
    file = tmp_path / "staff.htpasswd"
    file.write_text(f"dave:{ldap_sha1.hash('director')}\n", encoding="utf-8")
    data = two_servers(tmp_path, certificates).model_dump(mode="json")
    data["messaging_servers"][0]["contexts"] = [
        {"name": "staff.demo", "backend": "htpasswd", "file": str(file)}
    ]
    installation = parse_config(data, state=tmp_path)
    async with (
        nmap_agent(installation, "mail1") as running,
        client_of(installation, "mail1", identity_for(Role.POP_IMAP)) as client,
    ):
        assert not client.scram_offered
        dave = await login(client, "Dave@example.org", "director")
        assert (dave.name, dave.addresses) == ("dave", ("dave@example.org",))
        assert dave.user_id
        ended: list[int] = []
        with running.store.ended_users.listening(ended.append):
            file.write_text(f"dave:{ldap_sha1.hash('fired')}\n", encoding="utf-8")
            async with asyncio.timeout(10):
                while not ended:  # noqa: ASYNC110 - the file is looked at
                    await asyncio.sleep(0.01)
        assert ended == [dave.user_id]
        with pytest.raises(AuthFailed):
            await login(client, "dave@example.org", "director")
        again = await login(client, "dave@example.org", "fired")
        assert again.credential_epoch > dave.credential_epoch


async def test_a_second_start_finds_the_users_and_changes_none(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> None:
    async with nmap_agent(installation, "mail1") as running:
        alice = await running.directory.find_login("alice")
    async with nmap_agent(installation, "mail1") as running:
        assert await running.directory.find_login("alice") == alice


async def test_an_initial_user_who_was_removed_stays_removed(installation: Installation) -> None:
    async with nmap_agent(installation, "mail1") as running:
        assert await running.directory.find_login("bob")
        users = UserAdministration(
            running.directory, PasswordHasher(HASHING, concurrency=1, queue=1)
        )
        await users.delete("bob", "users.demo")
        await users.set_password("alice", "users.demo", "changed")
        changed = await running.directory.find_login("alice")
    async with nmap_agent(installation, "mail1") as running:
        assert await running.directory.find_login("bob") is None
        assert await running.directory.find_login("alice") == changed


async def test_an_initial_user_who_cannot_be_made_stops_the_start(
    tmp_path: Path, certificates: Path
) -> None:
    installation = two_servers(tmp_path, certificates)
    mail1 = installation.messaging_servers[0]
    odd = {"name": "alice", "password": "x", "addresses": ["alice@elsewhere.example"]}
    data = installation.model_dump(mode="json")
    data["messaging_servers"][0]["contexts"] = [
        {"name": mail1.contexts[0].name, "initial_users": [odd]}
    ]
    with pytest.raises(ConfigError, match="initial user 'alice'"):
        async with nmap_agent(parse_config(data, state=tmp_path), "mail1"):
            pass


async def test_a_store_has_one_process(mail1: Running, installation: Installation) -> None:
    with pytest.raises(ConfigError, match="in use"):
        async with nmap_agent(installation, "mail1"):
            pass


@pytest.mark.parametrize(
    ("nmap", "text"),
    [
        ({"catch_all": "nobody"}, "catch_all"),
        ({"postmaster": "p@example.net"}, "postmaster"),
        ({"store": {"url": "sqlite:///:memory:"}}, "store"),
    ],
)
async def test_settings_that_make_no_sense_stop_the_start(
    tmp_path: Path, certificates: Path, nmap: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        async with nmap_agent(two_servers(tmp_path, certificates, **nmap), "mail1"):
            pass


async def test_a_server_that_is_not_configured_stops_the_start(installation: Installation) -> None:
    with pytest.raises(ConfigError, match="mail9"):
        async with nmap_agent(installation, "mail9"):
            pass
