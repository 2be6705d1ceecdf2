"""Every agent that a relay decision goes through, with real listeners, in a thread of this process.

Clients stand behind a proxy: they come from whatever address the PROXY header says.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.connmgr import ConnectionManagerClient
from netmail_common.grpc_client import Channel
from netmail_common.roles import Role
from netmail_smtp.app.receiver import serving
from prometheus_client import REGISTRY

from tests.pop_imap.agents import PASSWORD, Agents, running_agents
from tests.support.waiting import eventually

REMOTE = "friend@example.net"
PLACES = ("replica", "call")
"""The SMTP agents: one decides by its replica of the table where it can, one always asks."""


class Outcome(StrEnum):
    """What becomes of a client."""

    RELAYED = "relayed"
    REFUSED = "refused: not known"
    CUT = "cut off before it could say anything"


@dataclass(slots=True)
class Relaying:
    """Agents that serve; `alice` of the cases is user0."""

    agents: Agents
    smtp: dict[str, tuple[int, ...]]
    """By place, the ports of its SMTP listeners: behind a proxy, and not."""
    admin: ConnectionManagerClient

    def pop3_login(self, header: bytes, listener: str = "pop3-proxied", user: str = "user0") -> str:
        """Logs in and out; the reply to PASS, empty if the connection was cut.

        Tries again for a while if the login counts as revoked: a Connection Manager that stood
        still for a moment takes what it reads then for older than the last revocation.
        """
        replies: list[str] = []

        def settled() -> bool:
            replies.append(self._pop3_login(header, listener, user))
            return replies[-1] != "-ERR [AUTH] login was revoked"

        eventually(settled, 10, pause=0.1)
        return replies[-1]

    def _pop3_login(self, header: bytes, listener: str, user: str) -> str:
        with connection_to(self.agents.port(listener), header) as client:
            if not client.line().startswith("+OK"):
                return ""
            client.say(f"USER {user}")
            reply = client.say(f"PASS {PASSWORD}")
            client.say("QUIT")
            return reply

    def relay(
        self, header: bytes, place: str, *, proxied: bool = True, user: str = "user0"
    ) -> Outcome:
        """Sends a message to somebody elsewhere, without AUTH; waits if it asks too often."""
        while True:
            outcome = self._relay(header, place, user, proxied=proxied)
            if outcome is not None:
                return outcome
            time.sleep(0.02)

    def _relay(self, header: bytes, place: str, user: str, *, proxied: bool) -> Outcome | None:
        with connection_to(self.smtp[place][0 if proxied else 1], header) as client:
            greeting = client.line()
            if not greeting or greeting.startswith("554"):
                return Outcome.CUT
            assert greeting.startswith("220"), greeting
            if header and not proxied:
                assert client.line().startswith("500"), "PROXY is no command"
            assert client.say("HELO client.example.net").startswith("250")
            assert client.say(f"MAIL FROM:<{user}@example.org>").startswith("250")
            reply = client.say(f"RCPT TO:<{REMOTE}>")
            if reply.startswith("451 4.7.1 Too many attempts"):
                return None
            if not reply.startswith("250"):
                assert reply.startswith("550 5.7.1"), reply
                return Outcome.REFUSED
            assert client.say("DATA").startswith("354")
            reply = client.say(f"From: {user}@example.org\r\n\r\nHello\r\n.")
            assert reply.startswith("250"), reply
            return Outcome.RELAYED

    def register(self, *items: pb.LoginRegistration) -> list["pb.RegisterOutcome.ValueType"]:
        """What another agent would register."""
        results = self.agents.run(self.admin.register(items))
        return [result.outcome for result in results]

    def revoke(self, **what: Any) -> int:
        """Ends logins; how many."""
        return self.agents.run(self.admin.revoke(**what))

    def forget_logins(self) -> None:
        """Ends every login, and waits until the replica knows."""
        for login in self.logins():
            self.revoke(client_address=login.client_address)
        self.replica_follows()

    def logins(self) -> list[pb.Login]:
        """Those that are live."""

        async def listed() -> list[pb.Login]:
            return [login async for login in self.admin.list_logins()]

        return self.agents.run(listed())

    def replica_follows(self) -> None:
        """Waits until the replica has the logins that grant, and is fresh."""

        def follows() -> bool:
            wanted = sum(login.grants for login in self.logins())
            return _sample("logins") == wanted and (_sample("age_seconds") or 99.0) < 10.0

        eventually(follows)


@contextmanager
def connection_to(port: int, header: bytes = b"") -> Iterator["Client"]:
    """A client that comes through the proxy, if there is a header."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as connection,
        connection.makefile("rb") as replies,
    ):
        if header:
            connection.sendall(header)
        yield Client(connection, replies)


class Client:
    """One connection, spoken to in lines."""

    def __init__(self, connection: socket.socket, replies: BinaryIO) -> None:
        self._connection = connection
        self._replies = replies

    def line(self) -> str:
        """The next line; empty at the end."""
        try:
            return self._replies.readline().decode().rstrip("\r\n")
        except ConnectionResetError:
            return ""

    def say(self, text: str) -> str:
        """The reply to one command; empty if the connection ended."""
        self.send(text)
        return self.line()

    def send(self, text: str) -> None:
        """Sends a command without waiting for its reply."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(text.encode() + b"\r\n")


def _sample(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"netmail_smtp_replica_{name}")


@contextmanager
def relaying(
    folder: Path,
    authority: LocalAuthority,
    certificates: Path,
    *,
    manager: dict[str, Any] | None = None,
) -> Iterator[Relaying]:
    """Starts everything.

    Args:
        manager: settings of the Connection Manager.
    """
    proxied = {"proxy_protocol": True, "proxy_trusted_networks": ["127.0.0.1/32"]}

    def change(data: dict[str, Any]) -> None:
        data["connection_managers"][0].update({"loopback_grants": False, **(manager or {})})
        server = data["messaging_servers"][0]
        server["pop_imap"]["listeners"] = [
            one
            for one in server["pop_imap"]["listeners"]
            if one["name"] in {"pop3", "pop3-proxied", "imap"}
        ]
        server["smtp"] = {
            "listeners": [
                {"name": "proxied", "listen": ["127.0.0.1:0"], **proxied},
                {"name": "direct", "listen": ["127.0.0.1:0"]},
            ]
        }

    with running_agents(folder, authority, certificates, change) as agents:
        stack = agents.run(_new_stack())
        try:
            ports = {
                place: agents.run(_serve_smtp(stack, agents, 0 if place == "call" else 1_000_000))
                for place in reversed(PLACES)
            }
            admin = Channel(
                agents.installation.connection_manager("main").target,
                Identity.from_folder(certificates, Role.ADMIN),
                installation="netmail",
                expected_role=Role.CONNMGR,
            )
            stack.push_async_callback(admin.close)
            yield Relaying(agents, ports, ConnectionManagerClient(admin))
        finally:
            agents.run(stack.aclose())


async def _new_stack() -> AsyncExitStack:
    return AsyncExitStack()


async def _serve_smtp(stack: AsyncExitStack, agents: Agents, logins: int) -> tuple[int, ...]:
    """An SMTP agent of the Messaging Server, with a replica of so many logins."""
    installation = agents.installation
    own = installation.messaging_server("mail1")
    smtp = own.smtp.model_copy(update={"replica_max_logins": logins})
    changed = own.model_copy(update={"smtp": smtp})
    receiver = await stack.enter_async_context(
        serving(installation.model_copy(update={"messaging_servers": [changed]}), "mail1")
    )
    return tuple(handle.ports[0] for handle in receiver.handles)
