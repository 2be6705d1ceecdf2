"""POP3 sessions that a script cannot play: SCRAM, large messages, slow clients, drain."""

import asyncio
import base64
import ctypes
import poplib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from random import Random

import pytest
from netmail.nmap.v1 import directory_pb2, directory_pb2_grpc, mailbox_pb2
from netmail_common.certificates import Identity
from netmail_common.connmgr import ConnectionManagerClient, UserKey
from netmail_common.grpc_client import Channel
from netmail_common.roles import Role
from scramp import ScramClient

from tests.pop_imap.agents import PASSWORD, Agents
from tests.support.waiting import eventually

_BPF_RETURN = 0x06
"""BPF_RET | BPF_K of linux/filter.h."""
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
"""Of asm-generic/socket.h."""

NewUser = Callable[[], str]
AdminChannel = Callable[[Role], AbstractAsyncContextManager[Channel]]


@pytest.fixture
def admin_channel(agents: Agents, identity_for: Callable[[Role], Identity]) -> AdminChannel:
    """Connects an operator to the Connection Manager or the NMAP agent."""

    @asynccontextmanager
    async def connect(role: Role) -> AsyncIterator[Channel]:
        if role is Role.CONNMGR:
            target = agents.installation.connection_manager("main").target
        else:
            target = agents.installation.messaging_server("mail1").nmap.target
        channel = Channel(
            target, identity_for(Role.ADMIN), installation="netmail", expected_role=role
        )
        try:
            yield channel
        finally:
            await channel.close()

    return connect


@contextmanager
def logged_in(port: int, user: str) -> Iterator[poplib.POP3]:
    client = poplib.POP3("127.0.0.1", port, timeout=20)
    try:
        client.user(user)
        client.pass_(PASSWORD)
        yield client
    finally:
        client.close()


def command(connection: socket.socket, line: bytes) -> bytes:
    connection.sendall(line + b"\r\n")
    return connection.recv(4096)


def closes(connection: socket.socket) -> bool:
    """Reads until the server has closed."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    return True


def hear_nothing(connection: socket.socket) -> None:
    """From now on our kernel drops whatever comes, unacknowledged, as if the host were away."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(drop))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


@contextmanager
def watched(agents: Agents, user: str, *, gone_after: int) -> Iterator[tuple[int, poplib.POP3]]:
    """A client that has logged in to an agent of so little patience, and the agent's port."""
    with agents.another(limits={"gone_after": gone_after}) as agent:
        port = agent.ports["pop3"][0]
        with logged_in(port, user) as client:
            yield port, client


def is_free(port: int, user: str) -> bool:
    """Whether the user's mailbox is not locked."""
    try:
        with logged_in(port, user):
            return True
    except poplib.error_proto as error:
        if "IN-USE" not in str(error):
            raise
        return False


def large_message(octets: int) -> bytes:
    lines = (b".%07d " % number + b"x" * 60 + b"\r\n" for number in range(octets // 71))
    return b"Subject: large\r\n\r\n" + b"".join(lines)


def test_scram_logs_in_and_the_server_proves_itself(agents: Agents, new_user: NewUser) -> None:
    scram = ScramClient(["SCRAM-SHA-256"], new_user(), PASSWORD)
    with socket.create_connection(("127.0.0.1", agents.port("pop3-strict")), 20) as connection:
        connection.recv(4096)
        first = base64.b64encode(scram.get_client_first().encode())
        challenge = command(connection, b"AUTH SCRAM-SHA-256 " + first)
        scram.set_server_first(base64.b64decode(challenge[2:]).decode())
        proof = command(connection, base64.b64encode(scram.get_client_final().encode()))
        scram.set_server_final(base64.b64decode(proof[2:]).decode())
        assert command(connection, b"").startswith(b"+OK 0 messages")


def test_a_large_message_arrives_whole(agents: Agents, new_user: NewUser) -> None:
    user, message = new_user(), large_message(3_000_000)
    agents.deliver(user, message)
    with logged_in(agents.port("pop3"), user) as client:
        assert client.stat() == (1, len(message))
        _, lines, _ = client.retr(1)
        assert b"\r\n".join(lines) + b"\r\n" == message
        _, top, _ = client.top(1, 1000)
        assert top == lines[:1002]
        client.quit()


def test_the_flag_seen_is_set_at_quit(agents: Agents, new_user: NewUser) -> None:
    user = new_user()
    agents.deliver(user, b"Subject: x\r\n\r\nx\r\n")
    for _ in range(2):
        with logged_in(agents.port("pop3"), user) as client:
            client.retr(1)
            client.quit()

    async def unseen() -> int:
        request = mailbox_pb2.ListMailboxesRequest(
            user_id=(await agents.nmap.directory.find_login(user)).id,  # type: ignore[union-attr]
            name="INBOX",
            with_status=True,
        )
        answer = await agents.mailboxes.for_server("mail1").ListMailboxes(request)
        return answer.mailboxes[0].status.unseen

    assert agents.run(unseen()) == 0


def test_after_quit_the_mailbox_is_free_at_once(agents: Agents, new_user: NewUser) -> None:
    user = new_user()
    for _ in range(20):
        with logged_in(agents.port("pop3"), user) as client:
            client.quit()


def test_a_unique_id_stays_the_same_over_sessions_and_removals(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    for number in range(3):
        agents.deliver(user, b"Subject: %d\r\n\r\nx\r\n" % number)
    with logged_in(agents.port("pop3"), user) as client:
        before = [line.split()[1] for line in client.uidl()[1]]
        client.dele(1)
        client.quit()
    with logged_in(agents.port("pop3"), user) as client:
        after = [line.split()[1] for line in client.uidl()[1]]
        client.quit()
    assert after == before[1:]
    assert len(set(before)) == 3
    assert all(1 <= len(unique_id) <= 70 for unique_id in before)


def test_a_copy_within_the_mailbox_has_a_unique_id_of_its_own(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    agents.deliver(user, b"Subject: x\r\n\r\nx\r\n")

    async def copy() -> None:
        stub = agents.mailboxes.for_server("mail1")
        found = await agents.nmap.directory.find_login(user)
        assert found is not None
        listed = await stub.ListMailboxes(
            mailbox_pb2.ListMailboxesRequest(user_id=found.id, name="INBOX")
        )
        await stub.CopyMessages(
            mailbox_pb2.CopyMessagesRequest(
                user_id=found.id, mailbox_id=listed.mailboxes[0].id, uids=[1], to_name="INBOX"
            )
        )

    agents.run(copy())
    with logged_in(agents.port("pop3"), user) as client:
        unique_ids = [line.split()[1] for line in client.uidl()[1]]
        client.quit()
    assert len(set(unique_ids)) == len(unique_ids) == 2


def test_a_message_that_imap_expunged_meanwhile_is_no_message(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    agents.deliver(user, b"Subject: x\r\n\r\nx\r\n")

    async def expunge() -> None:
        stub = agents.mailboxes.for_server("mail1")
        found = await agents.nmap.directory.find_login(user)
        assert found is not None
        listed = await stub.ListMailboxes(
            mailbox_pb2.ListMailboxesRequest(user_id=found.id, name="INBOX")
        )
        await stub.ExpungeMessages(
            mailbox_pb2.ExpungeMessagesRequest(
                user_id=found.id, mailbox_id=listed.mailboxes[0].id, uids=[1]
            )
        )

    with logged_in(agents.port("pop3"), user) as client:
        agents.run(expunge())
        with pytest.raises(poplib.error_proto, match="no such message"):
            client.retr(1)
        assert client.stat()[0] == 1
        client.quit()


def test_a_client_that_reads_nothing_is_cut(agents: Agents, new_user: NewUser) -> None:
    user = new_user()
    agents.deliver(user, large_message(20_000_000))
    with (
        agents.another(limits={"write_timeout": 1}) as impatient,
        logged_in(impatient.ports["pop3"][0], user) as client,
    ):
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.sendall(b"RETR 1\r\n")
        deadline = time.monotonic() + 15
        while len(impatient.sessions):
            assert time.monotonic() < deadline, "still connected"
            time.sleep(0.05)


def test_a_mailbox_whose_client_is_off_the_network_is_soon_free_again(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    with watched(agents, user, gone_after=1) as (port, client):
        hear_nothing(client.sock)
        client.sock.sendall(b"NOOP\r\n")
        assert not is_free(port, user)
        eventually(lambda: is_free(port, user), 20, pause=0.2)


def test_a_client_that_is_heard_of_now_and_then_keeps_its_mailbox(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    with watched(agents, user, gone_after=2) as (port, client):
        for _ in range(8):
            hear_nothing(client.sock)
            client.sock.sendall(b"NOOP\r\n")
            time.sleep(0.4)
            client.sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            assert client.sock.recv(100).startswith(b"+OK")
        assert not is_free(port, user)


def test_a_client_that_is_there_and_does_not_read_keeps_its_mailbox(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    message = large_message(20_000_000)
    agents.deliver(user, message)
    with watched(agents, user, gone_after=1) as (port, client):
        client.sock.sendall(b"RETR 1\r\n")
        time.sleep(4)
        assert not is_free(port, user)
        octets = 0
        while octets < len(message):
            octets += len(client.sock.recv(1 << 20))


def test_a_client_that_does_not_log_in_is_cut(agents: Agents) -> None:
    with (
        agents.another(limits={"login_timeout": 1}) as impatient,
        socket.create_connection(("127.0.0.1", impatient.ports["pop3"][0]), 20) as connection,
    ):
        begin = time.monotonic()
        connection.sendall(b"CAPA\r\n")
        assert closes(connection)
        assert 0.5 < time.monotonic() - begin < 5


def test_a_drain_ends_sessions_after_the_command_under_way_and_refuses_new_ones(
    agents: Agents, new_user: NewUser
) -> None:
    user = new_user()
    agents.deliver(user, large_message(5_000_000))
    with agents.another(drain_timeout=10) as agent:
        port = agent.ports["pop3"][0]
        with logged_in(port, user) as client:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            client.sock.sendall(b"RETR 1\r\n")
            answer = client.sock.recv(100)
            draining = threading.Thread(target=lambda: agents.run(agent.drain()))
            draining.start()
            while piece := client.sock.recv(65_536):
                answer += piece
            draining.join(20)
            assert answer.count(b"\r\n") == large_message(5_000_000).count(b"\r\n") + 2
            assert answer.endswith(b"\r\n.\r\n")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5)


def test_a_revocation_closes_the_session(
    agents: Agents, new_user: NewUser, admin_channel: AdminChannel
) -> None:
    user = new_user()

    async def revoke() -> None:
        async with admin_channel(Role.CONNMGR) as channel:
            client = ConnectionManagerClient(channel)
            await client.revoke(user=UserKey(user, "users.demo"), reason="test")

    with logged_in(agents.port("pop3"), user) as client:
        client.noop()
        agents.run(revoke())
        client.sock.settimeout(10)
        assert client.sock.recv(100) == b""


def test_a_revocation_cuts_a_session_that_leaves_its_answer_unread(
    agents: Agents,
    new_user: NewUser,
    admin_channel: AdminChannel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("netmail_pop_imap.adapters.connection._LINGER", 0.3)
    user = new_user()
    agents.deliver(user, large_message(20_000_000))

    async def revoke() -> None:
        async with admin_channel(Role.CONNMGR) as channel:
            client = ConnectionManagerClient(channel)
            await client.revoke(user=UserKey(user, "users.demo"), reason="test")

    with (
        agents.another(limits={"write_timeout": 60}) as agent,
        logged_in(agent.ports["pop3"][0], user) as client,
    ):
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.sendall(b"RETR 1\r\n")
        client.sock.recv(100)
        agents.run(revoke())
        deadline = time.monotonic() + 20
        while len(agent.sessions):
            assert time.monotonic() < deadline, "still connected"
            time.sleep(0.05)


def test_without_a_connection_manager_a_new_password_ends_the_session_too(
    agents: Agents, new_user: NewUser, admin_channel: AdminChannel
) -> None:
    user = new_user()

    async def change() -> None:
        async with admin_channel(Role.NMAP) as channel:
            stub = directory_pb2_grpc.DirectoryServiceStub(channel.raw)
            await stub.SetPassword(
                directory_pb2.SetPasswordRequest(
                    user=directory_pb2.UserRef(name=user, context="users.demo"),
                    password="another one",
                )
            )

    with (
        agents.another(server={"connection_manager": None}) as agent,
        logged_in(agent.ports["pop3"][0], user) as client,
    ):
        client.noop()
        agents.run(change())
        client.sock.settimeout(10)
        assert client.sock.recv(100) == b""


def test_failed_logins_are_answered_later_and_later(agents: Agents, new_user: NewUser) -> None:
    pauses = []
    with socket.create_connection(("127.0.0.1", agents.port("pop3")), 20) as connection:
        connection.recv(4096)
        user = new_user().encode()
        for _ in range(2):
            command(connection, b"USER " + user)
            begin = time.monotonic()
            assert command(connection, b"PASS wrong").startswith(b"-ERR [AUTH]")
            pauses.append(time.monotonic() - begin)
    assert pauses[0] >= 0.05
    assert pauses[1] >= 0.1


def test_many_sessions_at_once_share_one_stream(agents: Agents, new_user: NewUser) -> None:
    users = [new_user() for _ in range(20)]
    for user in users:
        agents.deliver(user, f"Subject: {user}\r\n\r\nx\r\n".encode())

    async def session(user: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", agents.port("pop3"))
        writer.write(f"USER {user}\r\nPASS {PASSWORD}\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n".encode())
        text = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        return text

    async def all_of_them() -> list[bytes]:
        return await asyncio.gather(*map(session, users))

    for user, text in zip(users, asyncio.run(all_of_them()), strict=True):
        assert f"Subject: {user}\r\n\r\nx\r\n.\r\n".encode() in text
        assert text.endswith(b"+OK bye\r\n")


def test_random_octets_never_end_without_an_answer(agents: Agents) -> None:
    random = Random(7)
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", agents.port("pop3")), 20) as connection:
            connection.recv(4096)
            connection.sendall(random.randbytes(random.randrange(2000)) + b"\r\nQUIT\r\n")
            answer = b""
            while not answer.endswith((b"bye\r\n", b"too many errors\r\n", b"too long\r\n")):
                piece = connection.recv(4096)
                assert piece, answer
                answer += piece
