"""The NMAP agent as its clients see it: gRPC over mutual TLS, two Messaging Servers."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from netmail.nmap.v1 import directory_pb2 as pb
from netmail.nmap.v1 import directory_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import ConfigError, Installation, parse_config
from netmail_common.grpc_errors import error_reason
from netmail_common.mail_address import parse_mail_address
from netmail_common.nmap import DirectoryClient, NmapChannels, ResolveOutcome
from netmail_common.roles import Role
from netmail_common.sasl import (
    AuthFailed,
)
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.app import Running, nmap_agent
from passlib.hash import ldap_sha1

from tests.nmap.agents import HASHING, client_of, login, two_servers


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
