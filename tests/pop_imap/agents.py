"""The agents behind a POP3 or IMAP session, real ones, in a thread of this process."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import uvloop
from netmail.nmap.v1 import mailbox_pb2
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.config import Installation, PopImapConfig, parse_config
from netmail_common.nmap import MailboxClients, NmapChannels
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager
from netmail_nmap.app import Running, nmap_agent
from netmail_pop_imap.app import PopImapAgent

from tests.support.installation import free_port

T = TypeVar("T")

PASSWORD = "wonderland"
USERS = 100
"""user0@example.org, user1@example.org, ...: each test takes one of its own."""


@dataclass
class Agents:
    """A Connection Manager, an NMAP agent and a POP/IMAP agent that serve."""

    loop: asyncio.AbstractEventLoop
    installation: Installation
    pop_imap: PopImapAgent
    nmap: Running
    mailboxes: MailboxClients

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine among the agents and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    @contextmanager
    def another(
        self, *, server: Mapping[str, Any] | None = None, **pop_imap: Any
    ) -> Iterator[PopImapAgent]:
        """A second POP/IMAP agent of the same Messaging Server with other settings."""
        mail1 = self.installation.messaging_server("mail1")
        data = {**mail1.pop_imap.model_dump(), **pop_imap}
        changed = mail1.model_copy(
            update={"pop_imap": PopImapConfig.model_validate(data), **(server or {})}
        )
        agent = PopImapAgent(
            self.installation.model_copy(update={"messaging_servers": [changed]}), "mail1"
        )
        self.run(agent.__aenter__())
        try:
            yield agent
        finally:
            self.run(agent.sessions.drain(1.0, _Now()))
            self.run(agent.__aexit__())

    def port(self, listener: str) -> int:
        """Of a listener, on 127.0.0.1."""
        return self.pop_imap.ports[listener][0]

    def user_id(self, name: str) -> int:
        """Of a user, as Authenticate gives it."""

        user = self.run(self.nmap.directory.find_login(name))
        assert user is not None
        return user.id

    def deliver(self, user: str, message: bytes, mailbox: str = "INBOX") -> None:
        """Puts a message into a mailbox."""
        start = mailbox_pb2.AppendStart(
            user_id=self.user_id(user), mailbox=mailbox, size=len(message)
        )

        async def append() -> None:
            pieces = [message[at : at + 262_144] for at in range(0, len(message), 262_144)]
            await self.mailboxes.for_server("mail1").AppendMessage(
                iter(
                    [
                        mailbox_pb2.AppendMessageRequest(start=start),
                        *(mailbox_pb2.AppendMessageRequest(data=piece) for piece in pieces),
                        mailbox_pb2.AppendMessageRequest(end=mailbox_pb2.AppendEnd()),
                    ]
                ),
                wait_for_ready=True,
            )

        self.run(append())


def configuration(state: Path, certificates: Path, tls: Mapping[str, str]) -> dict[str, Any]:
    """One Messaging Server with listeners of every kind, on ports of the kernel's choosing."""
    nmap, manager = free_port(), free_port()

    def listener(name: str, protocol: str, **options: Any) -> dict[str, Any]:
        return {"name": name, "protocol": protocol, "listen": ["127.0.0.1:0"], **options}

    return {
        "state_dir": str(state),
        "grpc": {"certificates": str(certificates)},
        "connection_managers": [
            {
                "name": "main",
                "listen": [f"127.0.0.1:{manager}"],
                "loopback_grants": True,
                # Most tests come from there, and fail as often as they like.
                "guessing": {"exempt_networks": ["127.0.0.1"], "max_delay": 0},
            }
        ],
        "messaging_servers": [
            {
                "name": "mail1",
                "host_name": "mail1.example.org",
                "domains": ["example.org"],
                "connection_manager": "main",
                "tls": dict(tls),
                "contexts": [
                    {
                        "name": "users.demo",
                        "initial_users": [
                            {"name": f"user{number}", "password": PASSWORD}
                            for number in range(USERS)
                        ],
                    }
                ],
                "nmap": {
                    "listen": [f"127.0.0.1:{nmap}"],
                    "argon2": {"time_cost": 1, "memory_kib": 8},
                },
                "pop_imap": {
                    "limits": {"errors": 5},
                    "listeners": [
                        listener("pop3", "pop3", plaintext_auth=True),
                        listener("pop3-strict", "pop3"),
                        listener("pop3s", "pop3", tls="implicit"),
                        listener("pop3-impatient", "pop3", plaintext_auth=True, idle_timeout=1),
                        listener(
                            "pop3-proxied",
                            "pop3",
                            plaintext_auth=True,
                            proxy_protocol=True,
                            proxy_trusted_networks=["127.0.0.0/8"],
                        ),
                        listener(
                            "pop3-few", "pop3", plaintext_auth=True, max_connections_per_address=1
                        ),
                        listener("imap", "imap", plaintext_auth=True),
                        listener("imap-strict", "imap"),
                        listener("imaps", "imap", tls="implicit"),
                        listener("imap-impatient", "imap", plaintext_auth=True, idle_timeout=1),
                    ],
                },
            }
        ],
    }


@contextmanager
def running_agents(
    folder: Path, authority: LocalAuthority, certificates: Path, change: Callable[[Any], None]
) -> Iterator[Agents]:
    """Starts the agents; `change` edits the configuration data."""
    pair = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}
    authority.issue_server("mail1.example.org", Path(pair["certificate"]), Path(pair["key"]))
    data = configuration(folder / "state", certificates, pair)
    (folder / "state").mkdir()
    change(data)
    installation = parse_config(data, state=folder / "state")
    ready: list[Agents] = []
    started, stop = threading.Event(), asyncio.Event()
    failure: list[BaseException] = []

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(connection_manager(installation, "main"))
            nmap = await stack.enter_async_context(nmap_agent(installation, "mail1"))
            agent = await stack.enter_async_context(
                PopImapAgent(installation, "mail1", failure_delay=0.05)
            )
            stack.push_async_callback(agent.sessions.drain, 1.0, _Now())
            identity = Identity.from_folder(certificates, Role.POP_IMAP)
            channels = NmapChannels(installation, "mail1", identity)
            stack.push_async_callback(channels.close)
            loop = asyncio.get_running_loop()
            ready.append(Agents(loop, installation, agent, nmap, MailboxClients(channels)))
            started.set()
            await stop.wait()

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(60)
    try:
        if failure:
            raise failure[0]
        yield ready[0]
    finally:
        if ready:
            ready[0].loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    if failure:
        raise failure[0]


class _Now(Random):
    """No spread: a test's sessions end at once."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)
