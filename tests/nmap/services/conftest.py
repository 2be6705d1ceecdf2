"""MailboxService and QueueService on a real store, over real gRPC with mutual TLS."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from netmail.nmap.v1 import mailbox_pb2_grpc, queue_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.grpc_client import Channel
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health
from netmail_common.roles import Role
from netmail_nmap.adapters.grpc_mailbox import MailboxService
from netmail_nmap.adapters.grpc_queue import QueueService
from netmail_nmap.adapters.sql import Store, Transaction, open_store
from netmail_nmap.domain.delivery import Expansion

MAX_SIZE = 3_000_000


class Resolver:
    """Users of example.org by name; every other domain is remote."""

    def __init__(self, users: dict[str, int]) -> None:
        self.users = users

    async def expand(
        self, addresses: Sequence[str], *, handed_over: bool = False
    ) -> list[Expansion]:
        return [self._expand(address) for address in addresses]

    def _expand(self, address: str) -> Expansion:
        local, _, domain = address.rpartition("@")
        if domain != "example.org":
            return Expansion(remote=(address,))
        return Expansion((self.users[local],)) if local in self.users else Expansion()


@dataclass
class Agent:
    store: Store
    users: dict[str, int]
    mailbox_service: MailboxService
    queue_service: QueueService
    mailboxes: "mailbox_pb2_grpc.MailboxServiceAsyncStub"
    submit: "queue_pb2_grpc.QueueServiceAsyncStub"
    """As the SMTP agent."""
    work: "queue_pb2_grpc.QueueServiceAsyncStub"
    """As `deliver`."""
    operate: "queue_pb2_grpc.QueueServiceAsyncStub"
    """As an operator."""


async def _make_users(store: Store, *names: str) -> dict[str, int]:
    def operation(transaction: Transaction) -> dict[str, int]:
        statement = "INSERT INTO users (context, name, name_key, created_at) VALUES ('c', ?, ?, 0)"
        return {
            name: transaction.driver.execute(statement, (name, name)).lastrowid for name in names
        }

    return await store.core.writer.run(operation)


@pytest.fixture
async def agent(tmp_path: Path, identity_for: Callable[[Role], Identity]) -> AsyncIterator[Agent]:
    async with open_store(f"sqlite:///{tmp_path}/store.db", readers=2) as store:
        users = await _make_users(store, "alice", "bob")
        mailbox_service = MailboxService(store, max_message_size=MAX_SIZE)
        queue_service = QueueService(store, Resolver(users), max_message_size=MAX_SIZE)

        def register(server: grpc.aio.Server) -> None:
            mailbox_pb2_grpc.add_MailboxServiceServicer_to_server(mailbox_service, server)
            queue_pb2_grpc.add_QueueServiceServicer_to_server(queue_service, server)

        async with grpc_server(
            listen=["127.0.0.1:0"],
            identity=identity_for(Role.NMAP),
            role=Role.NMAP,
            installation="netmail",
            register=register,
            health=Health(),
            service_names=(),
            drain_timeout=1,
        ) as bound:
            channels = {
                role: Channel(
                    f"127.0.0.1:{bound.ports[0]}",
                    identity_for(role),
                    installation="netmail",
                    expected_role=Role.NMAP,
                )
                for role in (Role.POP_IMAP, Role.SMTP, Role.DELIVER, Role.ADMIN)
            }
            yield Agent(
                store,
                users,
                mailbox_service,
                queue_service,
                mailbox_pb2_grpc.MailboxServiceStub(channels[Role.POP_IMAP].raw),
                queue_pb2_grpc.QueueServiceStub(channels[Role.SMTP].raw),
                queue_pb2_grpc.QueueServiceStub(channels[Role.DELIVER].raw),
                queue_pb2_grpc.QueueServiceStub(channels[Role.ADMIN].raw),
            )
            for channel in channels.values():
                await channel.close()
