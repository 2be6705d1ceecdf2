"""Changed credentials reach the Connection Manager and the open sessions, sooner or later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc
from netmail.nmap.v1 import directory_pb2 as pb
from netmail.nmap.v1 import directory_pb2_grpc, mailbox_pb2, mailbox_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import Installation, parse_config
from netmail_common.grpc_client import Channel
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager
from netmail_nmap.adapters.revocations import managers_that_know_us
from netmail_nmap.app import Running, nmap_agent

from tests.nmap.agents import CHEAP
from tests.support.installation import free_port

ALICE = pb.UserRef(name="alice", context="users.demo")


def server(name: str, manager: str | None, *, standalone: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "host_name": f"{name}.example.org",
        "domains": [f"{name}.example.org"],
        "standalone": standalone,
        "connection_manager": manager,
        "ube_relaying": {"smtp_after_pop": manager is not None},
        "contexts": [
            {"name": "users.demo", "initial_users": [{"name": "alice", "password": "wonderland"}]}
            if name == "mail1"
            else {"name": f"{name}.demo"}
        ],
        "nmap": {"listen": [f"127.0.0.1:{free_port()}"], "argon2": CHEAP},
    }


def installation_of(state: Path, certificates: Path, *servers: dict[str, Any]) -> Installation:
    managers = {s["connection_manager"] for s in servers} - {None}
    return parse_config(
        {
            "grpc": {"certificates": str(certificates)},
            "connection_managers": [
                {"name": name, "listen": [f"127.0.0.1:{free_port()}"]} for name in sorted(managers)
            ],
            "messaging_servers": list(servers),
        },
        state=state,
    )


@pytest.fixture
def installation(tmp_path: Path, certificates: Path) -> Installation:
    return installation_of(tmp_path, certificates, server("mail1", "manager"))


@pytest.fixture
async def nmap(installation: Installation) -> AsyncIterator[Running]:
    async with nmap_agent(installation, "mail1") as running:
        yield running


@pytest.fixture
async def channel(
    installation: Installation, identity_for: Callable[[Role], Identity]
) -> AsyncIterator[Callable[[Role, Role], Channel]]:
    """Channels by the caller's role and the called one's."""
    made: list[Channel] = []

    def open_channel(role: Role, called: Role) -> Channel:
        target = (
            installation.messaging_server("mail1").nmap.target
            if called is Role.NMAP
            else installation.connection_manager("manager").target
        )
        made.append(
            Channel(target, identity_for(role), installation="netmail", expected_role=called)
        )
        return made[-1]

    yield open_channel
    for one in made:
        await one.close()


async def register(stub: Any, epoch: int) -> int:
    """Registers a login of alice; gives the outcome."""
    response = await stub.RegisterLogin(
        connmgr_pb2.RegisterLoginRequest(
            items=[
                connmgr_pb2.LoginRegistration(
                    user=connmgr_pb2.UserKey(name="alice", context="users.demo"),
                    addresses=["alice@mail1.example.org"],
                    client_address=ip_address("192.0.2.1").packed,
                    protocol=connmgr_pb2.PROTOCOL_IMAP,
                    messaging_server="mail1",
                    session_id=f"session-{epoch}",
                    credential_epoch=epoch,
                )
            ]
        ),
        wait_for_ready=True,
    )
    return int(response.results[0].outcome)


async def until_acknowledged(nmap: Running) -> None:
    async with asyncio.timeout(20):
        while await nmap.directory.store.pending_revocations(1):  # noqa: ASYNC110 - others write
            await asyncio.sleep(0.02)


async def test_a_changed_password_revokes_logins_and_refuses_late_ones(
    installation: Installation,
    nmap: Running,
    channel: Callable[[Role, Role], Channel],
) -> None:
    users = directory_pb2_grpc.DirectoryServiceStub(channel(Role.ADMIN, Role.NMAP).raw)
    async with connection_manager(installation, "manager"):
        logins = connmgr_pb2_grpc.ConnectionManagerServiceStub(
            channel(Role.ADMIN, Role.CONNMGR).raw
        )
        before = (await users.GetUser(pb.GetUserRequest(user=ALICE))).user.credential_epoch
        assert await register(logins, before) == connmgr_pb2.REGISTER_OUTCOME_REGISTERED
        await users.SetPassword(pb.SetPasswordRequest(user=ALICE, password="looking-glass"))
        await until_acknowledged(nmap)
        assert not (await logins.ListLogins(connmgr_pb2.ListLoginsRequest())).logins
        assert await register(logins, before) == connmgr_pb2.REGISTER_OUTCOME_REVOKED
        after = (await users.GetUser(pb.GetUserRequest(user=ALICE))).user.credential_epoch
        assert await register(logins, after) == connmgr_pb2.REGISTER_OUTCOME_REGISTERED


async def test_a_revocation_waits_for_a_connection_manager_that_is_away_and_for_our_restart(
    installation: Installation, channel: Callable[[Role, Role], Channel]
) -> None:
    users = directory_pb2_grpc.DirectoryServiceStub(channel(Role.ADMIN, Role.NMAP).raw)
    async with nmap_agent(installation, "mail1") as first:
        before = (await users.GetUser(pb.GetUserRequest(user=ALICE))).user.credential_epoch
        await users.SetUserDisabled(pb.SetUserDisabledRequest(user=ALICE, disabled=True))
        assert len(await first.directory.store.pending_revocations(10)) == 1
    async with (
        nmap_agent(installation, "mail1") as second,
        connection_manager(installation, "manager"),
    ):
        await until_acknowledged(second)
        logins = connmgr_pb2_grpc.ConnectionManagerServiceStub(
            channel(Role.ADMIN, Role.CONNMGR).raw
        )
        assert await register(logins, before) == connmgr_pb2.REGISTER_OUTCOME_REVOKED


@pytest.mark.parametrize("change", ["password", "disabled", "removed"])
async def test_open_sessions_hear_that_they_must_end(
    nmap: Running, channel: Callable[[Role, Role], Channel], change: str
) -> None:
    users = directory_pb2_grpc.DirectoryServiceStub(channel(Role.ADMIN, Role.NMAP).raw)
    mailboxes = mailbox_pb2_grpc.MailboxServiceStub(channel(Role.POP_IMAP, Role.NMAP).raw)
    alice = (await users.GetUser(pb.GetUserRequest(user=ALICE))).user.id
    watch: Any = mailboxes.WatchMailboxes()  # type: ignore[call-arg] # optional
    await watch.write(mailbox_pb2.WatchMailboxesRequest(add_user_ids=[alice]))
    # A mailbox that is watched too is told at once: then the user is watched as well.
    inbox = (
        await mailboxes.ListMailboxes(mailbox_pb2.ListMailboxesRequest(user_id=alice, name="INBOX"))
    ).mailboxes[0]
    await watch.write(mailbox_pb2.WatchMailboxesRequest(add_mailbox_ids=[inbox.id]))
    assert (await watch.read()).changes[0].mailbox_id == inbox.id
    if change == "password":
        await users.SetPassword(pb.SetPasswordRequest(user=ALICE, password="other"))
    elif change == "disabled":
        await users.SetUserDisabled(pb.SetUserDisabledRequest(user=ALICE, disabled=True))
    else:
        await users.DeleteUser(pb.DeleteUserRequest(user=ALICE))
    ended: list[int] = []
    async with asyncio.timeout(10):
        while not ended:
            ended = list((await watch.read()).ended_user_ids)
    assert ended == [alice]
    watch.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watch.code()


def test_every_connection_manager_that_may_have_logins_is_told(
    tmp_path: Path, certificates: Path
) -> None:
    installation = installation_of(
        tmp_path,
        certificates,
        server("mail1", "one"),
        server("mail2", "two"),
        server("mail3", "three", standalone=True),
        server("mail4", None),
        server("mail5", "one"),
    )
    assert managers_that_know_us(installation, "mail1") == ["one", "two"]
    assert managers_that_know_us(installation, "mail3") == ["one", "two", "three"]
