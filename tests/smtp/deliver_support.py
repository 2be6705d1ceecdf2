"""A transport wired as the agent wires it, for tests against hosts on real sockets."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from netmail_common.config import DeliverConfig
from netmail_smtp.adapters.deliver_pool import ConnectionPool
from netmail_smtp.adapters.deliver_router import Router
from netmail_smtp.adapters.deliver_session import SessionOpener
from netmail_smtp.adapters.deliver_smtp import (
    OutgoingMessage,
    OutgoingRecipient,
    SmtpTransport,
)
from netmail_smtp.adapters.dns import Resolver
from netmail_smtp.domain.deliver_health import HostHealth
from netmail_smtp.domain.deliver_outcome import (
    Attempt,
    Delivered,
    DeliveryFailure,
    MessageTraits,
    Outcome,
)
from netmail_smtp.domain.deliver_route import RouteTable

OWN_NAME = "mail1.example.org"
TEXT = b"Subject: x\r\n\r\nhello\r\n"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Outbound:
    """The sending side."""

    transport: SmtpTransport
    pool: ConnectionPool
    clock: Clock

    async def send(
        self,
        *recipients: str | OutgoingRecipient,
        data: bytes = TEXT,
        sender: str = "alice@example.org",
        domain: str = "example.net",
        streamed: bool = False,
        **changes: Any,
    ) -> dict[str, Outcome]:
        """Sends one message and gives the outcomes by recipient."""
        people = [OutgoingRecipient(r) if isinstance(r, str) else r for r in recipients]
        attempt = Attempt(tuple(r.address for r in people))

        async def pieces() -> AsyncGenerator[bytes, None]:
            for start in range(0, len(data), 1000):
                await asyncio.sleep(0)
                yield data[start : start + 1000]

        header = data.partition(b"\r\n\r\n")[0]
        message = OutgoingMessage(
            message_id="0123456789abcdef",
            destination=domain,
            sender=sender,
            recipients=people,
            traits=MessageTraits(
                size=len(data),
                eight_bit=not data.isascii(),
                utf8_headers=not header.isascii(),
                utf8_sender=not sender.isascii(),
            ),
            data=None if streamed else data,
            pieces=pieces if streamed else None,
            **changes,
        )
        await self.transport.deliver(message, attempt)
        assert not attempt.undecided
        return attempt.outcomes


def outbound(
    *ports: int,
    config: Mapping[str, Any] | None = None,
    route: Mapping[str, Any] | None = None,
    dns: str = "",
) -> Outbound:
    """A sending side that sends everything to the hosts on PORTS; without any, by MX."""
    data: dict[str, Any] = {
        "connect_timeout": 2,
        "command_timeout": 2,
        "connection_idle": 1,
        "ipv6": False,
        **(config or {}),
    }
    if ports:
        hosts = [f"127.0.0.1:{port}" for port in ports]
        data["routes"] = [{"domain": "*", "hosts": hosts, **(route or {})}]
    settings = DeliverConfig.model_validate(data)
    clock = Clock()
    names = frozenset({OWN_NAME})
    health = HostHealth(first=settings.host_backoff, longest=settings.host_backoff_max, clock=clock)
    opener = SessionOpener(settings, helo_name=OWN_NAME, own_names=names, clock=clock)
    pool = ConnectionPool(
        opener.open,
        health,
        per_target=settings.concurrency_per_destination,
        idle_time=settings.connection_idle,
        messages_per_connection=settings.messages_per_connection,
    )
    router = Router(
        RouteTable(settings.routes),
        Resolver([dns] if dns else [], lifetime=1),
        own_names=names,
        smtp_port=settings.smtp_port,
        ipv6=settings.ipv6,
        shuffle=lambda hosts: hosts.sort(),
    )
    made = Outbound(SmtpTransport(router, pool, health), pool, clock)
    _made.append(made)
    return made


_made: list[Outbound] = []


@pytest.fixture(autouse=True)
async def pools_closed() -> AsyncIterator[None]:
    """Closes what the test has opened; import it into the test's module."""
    yield
    for made in _made:
        await made.pool.close()
    _made.clear()
    await asyncio.sleep(0.001)


def delivered(outcomes: Mapping[str, Outcome]) -> set[str]:
    """Who got it."""
    return {address for address, o in outcomes.items() if isinstance(o, Delivered)}


def failure(outcomes: Mapping[str, Outcome], address: str) -> DeliveryFailure:
    """Why ADDRESS has not got it."""
    outcome = outcomes[address]
    assert isinstance(outcome, DeliveryFailure), outcome
    return outcome


def statuses(outcomes: Mapping[str, Outcome], addresses: Iterable[str]) -> list[str]:
    """Status codes in the order of ADDRESSES."""
    return [outcomes[address].status for address in addresses]
