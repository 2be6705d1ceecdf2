"""`smtp serve` in this process, with a real Connection Manager and a small NMAP agent over gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc
from netmail.nmap.v1 import directory_pb2, directory_pb2_grpc, queue_pb2, queue_pb2_grpc
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.config import Installation, parse_config
from netmail_common.connmgr import ConnectionManagerClient, UserKey
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health
from netmail_common.mail_address import MailAddress
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.adapters.grpc_service import ConnectionManagerService
from netmail_connmgr.adapters.memory_store import MemoryStore, boot_time
from netmail_connmgr.app.abuse import abuse_protection
from netmail_connmgr.app.connections import connection_rules
from netmail_connmgr.domain.suspicions import SuspicionBook
from netmail_connmgr.domain.table import TableLimits
from netmail_smtp.app.receiver import Receiver, serving

from tests.connmgr.one_manager import channel_to
from tests.support.waiting import until

FROM_ALICE = "From: alice@example.org\r\n\r\nHello\r\n"
PLAIN_ALICE = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="
OPEN = [{"plaintext_auth": True}]

IdentityFor = Callable[[Role], Identity]


@dataclass(slots=True)
class Person:
    """A user of the small NMAP agent."""

    name: str
    password: str
    addresses: tuple[str, ...]
    disabled: bool = False
    full: bool = False


@dataclass(slots=True)
class SmallNmap(directory_pb2_grpc.DirectoryServiceServicer, queue_pb2_grpc.QueueServiceServicer):
    """Knows a few users, keeps what was submitted in a list."""

    people: dict[str, Person] = field(default_factory=dict)
    catch_all: str = ""
    submitted: list[queue_pb2.Submission] = field(default_factory=list)
    resolve_calls: int = 0
    resolve_fails: bool = False
    submit_outcome: "queue_pb2.SubmitOutcome.ValueType" = queue_pb2.SUBMIT_OUTCOME_ACCEPTED
    submit_gate: asyncio.Event | None = None
    submit_calls: int = 0
    streams_broken_off: int = 0

    def add(self, name: str, password: str, *aliases: str) -> Person:
        person = Person(name, password, (f"{name}@example.org", *aliases))
        self.people[name] = person
        return person

    def owner(self, address: str) -> Person | None:
        local, _, domain = address.rpartition("@")
        key = MailAddress(local.partition("+")[0], domain).key()
        for person in self.people.values():
            keys = {MailAddress.from_wire(a).key() for a in person.addresses}
            if not person.disabled and key in keys:
                return person
        return None

    async def Authenticate(self, requests: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        async for request in requests:
            start = request.start
            person = self.people.get(start.username.partition("@")[0])
            if person is None or person.disabled or person.password != start.password:
                yield directory_pb2.AuthenticateResponse(
                    exchange_id=request.exchange_id,
                    outcome=directory_pb2.AUTHENTICATE_OUTCOME_INVALID_CREDENTIALS,
                    user=directory_pb2.User(name=person.name, context="users.demo")
                    if person is not None
                    else None,
                )
                continue
            yield directory_pb2.AuthenticateResponse(
                exchange_id=request.exchange_id,
                outcome=directory_pb2.AUTHENTICATE_OUTCOME_OK,
                user=directory_pb2.User(
                    id=1, name=person.name, context="users.demo", addresses=person.addresses
                ),
                domains=["example.org"],
            )

    async def Resolve(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        self.resolve_calls += 1
        if self.resolve_fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return directory_pb2.ResolveResponse(results=map(self._resolved, request.addresses))

    def _resolved(self, address: str) -> directory_pb2.Resolved:
        if not address.endswith(("@example.org", "@new.example")):
            return directory_pb2.Resolved(outcome=directory_pb2.RESOLVE_OUTCOME_NOT_LOCAL)
        person = self.owner(address)
        if person is None and address == "postmaster@example.org":
            person = self.people["alice"]
        catch_all = person is None and bool(self.catch_all)
        if person is None and catch_all:
            person = self.people[self.catch_all]
        if person is None:
            return directory_pb2.Resolved(outcome=directory_pb2.RESOLVE_OUTCOME_UNKNOWN_USER)
        return directory_pb2.Resolved(
            outcome=directory_pb2.RESOLVE_OUTCOME_MAILBOX_FULL
            if person.full
            else directory_pb2.RESOLVE_OUTCOME_LOCAL,
            user_id=1,
            name=person.name,
            context="users.demo",
            catch_all=catch_all,
        )

    async def Submit(self, requests: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        async for request in requests:
            self.submit_calls += 1
            if self.submit_gate is not None:
                await self.submit_gate.wait()
            if self.submit_outcome == queue_pb2.SUBMIT_OUTCOME_ACCEPTED:
                self.submitted.extend(request.items)
            results = [queue_pb2.SubmitResult(outcome=self.submit_outcome) for _ in request.items]
            yield queue_pb2.SubmitResponse(results=results)

    async def SubmitStream(self, requests: Any, context: Any) -> Any:  # noqa: N802 - gRPC names it
        submission = queue_pb2.Submission()
        parts, ended = [], False
        try:
            async for request in requests:
                match request.WhichOneof("part"):
                    case "envelope":
                        submission.envelope.CopyFrom(request.envelope)
                    case "data":
                        parts.append(request.data)
                    case "end":
                        ended = True
        finally:
            if not ended:
                self.streams_broken_off += 1
        submission.data = b"".join(parts)
        if ended:
            self.submitted.append(submission)
        return queue_pb2.SubmitStreamResponse(
            result=queue_pb2.SubmitResult(outcome=queue_pb2.SUBMIT_OUTCOME_ACCEPTED)
        )


class Client:
    """One SMTP client that speaks in octets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> str:
        """The next reply, its lines joined by line feeds; empty: the connection has ended."""
        lines = []
        async with asyncio.timeout(10):
            while True:
                try:
                    line = (await self.reader.readline()).decode()
                except ConnectionResetError:
                    return ""
                lines.append(line.rstrip("\r\n"))
                if line[3:4] != "-":
                    return "\n".join(lines)

    async def say(self, *lines: str | bytes) -> str:
        """Sends lines in one piece; gives the reply to the last of them."""
        self.send(b"".join(_octets(line) + b"\r\n" for line in lines))
        reply = ""
        for _ in lines:
            reply = await self.reply()
        return reply

    async def say_all(self, *lines: str | bytes) -> list[str]:
        """Sends lines in one piece; gives every reply."""
        self.send(b"".join(_octets(line) + b"\r\n" for line in lines))
        return [await self.reply() for _ in lines]

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def start_tls(self, context: Any) -> None:
        assert (await self.say("STARTTLS")).startswith("220")
        await self.writer.start_tls(context)

    async def message(
        self,
        content: str | bytes = "From: alice@example.org\r\n\r\nHello\r\n",
        sender: str = "alice@example.org",
        *recipients: str,
    ) -> str:
        """Sends one message; gives the reply that decided about it."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{r}>" for r in recipients)):
            reply = await self.say(line)
            if not reply.startswith("2"):
                return reply
        reply = await self.say("DATA")
        if not reply.startswith("354"):
            return reply
        return await self.say(_octets(content) + b".")

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def begin(client: Client, *, recipient: str = "bob@example.org") -> None:
    """A transaction up to the 354."""
    replies = await client.say_all("MAIL FROM:<s@example.net>", f"RCPT TO:<{recipient}>", "DATA")
    assert [reply[:3] for reply in replies] == ["250", "250", "354"]


def _octets(line: str | bytes) -> bytes:
    return line.encode() if isinstance(line, str) else line


@dataclass(slots=True)
class Receiving:
    """A running `smtp serve`."""

    nmap: SmallNmap
    connmgr: ConnectionManagerClient
    nmap_connmgr: ConnectionManagerClient
    connmgr_server: grpc.aio.Server
    receiver: Receiver
    installation: Installation
    clients: list[Client] = field(default_factory=list)

    async def connect(
        self,
        listener: int = 0,
        *,
        ehlo: str | None = "client.example.net",
        address: str = "127.0.0.1",
        greeted: bool = True,
        first: bytes = b"",
        **options: Any,
    ) -> Client:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.receiver.handles[listener].ports[0],
            local_addr=(address, 0),
            limit=1024 * 1024,
            **options,
        )
        client = Client(reader, writer)
        self.clients.append(client)
        if first:
            writer.write(first)
        if greeted:
            assert (await client.reply()).startswith("220")
            if ehlo is not None:
                assert (await client.say(f"EHLO {ehlo}")).startswith("250")
        return client

    async def go_on_with(
        self,
        *,
        server: dict[str, Any] | None = None,
        smtp: dict[str, Any] | None = None,
        manager: dict[str, Any] | None = None,
    ) -> None:
        """Has the agent take a configuration with these sections changed.

        Raises: ConfigError.
        """
        data = self.installation.model_dump(exclude_unset=True)
        (own,), (connmgr,) = data["messaging_servers"], data["connection_managers"]
        own.update(server or {})
        own["smtp"].update(smtp or {})
        connmgr.update(manager or {})
        await self.receiver.use(parse_config(data))

    async def login(
        self,
        name: str,
        address: str,
        *,
        protocol: "connmgr_pb2.Protocol.ValueType" = connmgr_pb2.PROTOCOL_POP3,
        **more: Any,
    ) -> None:
        """A POP3 login, as pop_imap registers it."""
        person = self.nmap.people[name]
        result = await self.connmgr.register_one(
            connmgr_pb2.LoginRegistration(
                user=connmgr_pb2.UserKey(name=name, context="users.demo"),
                addresses=person.addresses,
                client_address=bytes(map(int, address.split("."))),
                protocol=protocol,
                messaging_server="mail1",
                agent="test",
                session_id=f"{name} {address}",
                credential_epoch=1,
                domains=["example.org"],
                **more,
            )
        )
        assert result.outcome == connmgr_pb2.REGISTER_OUTCOME_REGISTERED

    async def revoke(self, name: str) -> None:
        """What nmap does when a password changes."""
        assert await self.nmap_connmgr.revoke(user=UserKey(name, "users.demo")) == 1

    @property
    def last(self) -> queue_pb2.Submission:
        return self.nmap.submitted[-1]


@contextlib.asynccontextmanager
async def receiving(
    identity_for: IdentityFor,
    authority: LocalAuthority,
    folder: Path,
    *,
    listeners: list[dict[str, Any]] | None = None,
    smtp: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    manager: dict[str, Any] | None = None,
    loopback_grants: bool = True,
) -> AsyncIterator[Receiving]:
    """Starts everything on ports of the kernel's choosing; MANAGER: the Connection Manager's."""
    nmap = SmallNmap()  # type: ignore[abstract] # the rest is UNIMPLEMENTED
    nmap.add("alice", "wonderland", "alice.liddell@example.org", "zoë@example.org")
    nmap.add("bob", "builder")
    rules = AddressRules(loopback_grants=loopback_grants)
    store = MemoryStore(TableLimits())
    suspicions = SuspicionBook(boot_time)
    service = ConnectionManagerService(
        store, NetworkMap(rules), max_users_per_network=8, suspicions=suspicions
    )
    authority.issue_server("mail1.example.org", folder / "mail1.pem", folder / "mail1.key")
    async with contextlib.AsyncExitStack() as stack:
        connmgr_bound = await stack.enter_async_context(
            _grpc(
                identity_for,
                Role.CONNMGR,
                lambda s: connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(
                    service, s
                ),
            )
        )
        nmap_bound = await stack.enter_async_context(
            _grpc(identity_for, Role.NMAP, lambda s: _register_nmap(nmap, s))
        )
        stack.callback(service.drain)
        for role in Role:
            authority.issue(role, folder)
        config = parse_config(
            {
                "grpc": {"certificates": str(folder)},
                "connection_managers": [
                    {
                        "name": "main",
                        "listen": [f"127.0.0.1:{connmgr_bound.ports[0]}"],
                        "loopback_grants": loopback_grants,
                        **(manager or {}),
                    }
                ],
                "messaging_servers": [
                    {
                        "name": "mail1",
                        "host_name": "mail1.example.org",
                        "domains": ["example.org"],
                        "contexts": [{"name": "users.demo"}],
                        "connection_manager": "main",
                        "tls": {
                            "certificate": str(folder / "mail1.pem"),
                            "key": str(folder / "mail1.key"),
                        },
                        "nmap": {"listen": [f"127.0.0.1:{nmap_bound.ports[0]}"]},
                        "smtp": {
                            "listeners": [
                                {"name": f"listener{n}", "listen": ["127.0.0.1:0"], **listener}
                                for n, listener in enumerate(listeners or [{}])
                            ],
                            **(smtp or {}),
                        },
                        **(server or {}),
                    }
                ],
            },
            state=folder,
        )
        own = config.connection_manager("main")
        rules = AddressRules.from_config(own)
        service.use(NetworkMap(rules))
        live = await stack.enter_async_context(connection_rules(own, rules, store, service.desk))
        await stack.enter_async_context(
            abuse_protection(config, own, service, live.checker, store, suspicions, None)
        )
        clients = []
        for role in (Role.POP_IMAP, Role.NMAP):
            channel = channel_to(connmgr_bound.ports[0], identity_for(role))
            stack.push_async_callback(channel.close)
            clients.append(ConnectionManagerClient(channel))
        receiver = await stack.enter_async_context(serving(config, "mail1"))
        await until(lambda: receiver.connected)
        running = Receiving(nmap, clients[0], clients[1], connmgr_bound.server, receiver, config)
        try:
            yield running
        finally:
            for client in running.clients:
                await client.close()


def _grpc(identity_for: IdentityFor, role: Role, register: Callable[[Any], None]) -> Any:
    return grpc_server(
        listen=["127.0.0.1:0"],
        identity=identity_for(role),
        role=role,
        installation="netmail",
        register=register,
        health=Health(),
        service_names=[],
        drain_timeout=0.1,
    )


def _register_nmap(nmap: SmallNmap, server: grpc.aio.Server) -> None:
    directory_pb2_grpc.add_DirectoryServiceServicer_to_server(nmap, server)
    queue_pb2_grpc.add_QueueServiceServicer_to_server(nmap, server)
