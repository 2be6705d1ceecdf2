"""Serves a DNS list of the addresses that may relay, by UDP and TCP over the front desk."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import dns.message
from netmail_common.connmgr.model import Binding, Decision, SenderQuestion

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.udp_and_tcp import Service, known_hosts, serve
from netmail_connmgr.domain.front_desk import Answer, Enquiry, FrontDesk, FrontDeskUnavailable
from netmail_connmgr.protocol.dns_list import (
    Done,
    ListZone,
    Lookup,
    StreamReader,
    to_datagram,
    to_stream,
)

__all__ = ["NAME", "DnsList", "prepare"]

NAME = "dns_list"
_IDLE = 10.0
"""Seconds for the next query to be complete (RFC 7766 6.2.3)."""
_WRITE = 10.0
_READ = 16_384
_ANY_LOGIN = SenderQuestion(binding=Binding.ANY)


def prepare(setup: FrontEndSetup) -> AbstractAsyncContextManager[Sequence[int]]:
    """Reads the configuration; what it gives serves while it is entered.

    Raises: ConfigError.
    """
    config = setup.config.dns_list
    dns_list = DnsList(setup.desk, ListZone(config.zone, ttl=config.ttl, txt=config.txt))
    service = Service(
        NAME,
        known_hosts(setup, config.allowed_sources, NAME),
        dns_list.datagram,
        dns_list.stream,
    )
    return serve(service, config.listen, reuse_port=setup.reuse_port)


class DnsList:
    """Answers queries; belongs to one event loop."""

    def __init__(self, desk: FrontDesk, zone: ListZone) -> None:
        self._desk = desk
        self._zone = zone

    async def datagram(self, data: bytes) -> bytes | None:
        """Answers a query by UDP; None: not at all."""
        found = await self._answer(data)
        if found is None:
            return None
        payload, response = found
        return to_datagram(response, payload)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection, query after query, until it ends or falls silent."""
        messages = StreamReader()
        while True:
            async with asyncio.timeout(_IDLE):
                while (data := messages.next_message()) is None:
                    piece = await reader.read(_READ)
                    if not piece:
                        return
                    messages.feed(piece)
            found = await self._answer(data)
            if found is None:
                return
            writer.write(to_stream(found[1]))
            async with asyncio.timeout(_WRITE):
                await writer.drain()

    async def _answer(self, wire: bytes) -> tuple[int, dns.message.Message] | None:
        """The response, and how long a datagram its asker takes."""
        query = self._zone.read(wire)
        if query is None:
            _count("malformed")
            return None
        if isinstance(query, Done):
            _count("other")
            return query.payload, query.response
        return query.payload, await self._look_up(query)

    async def _look_up(self, lookup: Lookup) -> dns.message.Message:
        enquiry = Enquiry(lookup.address, _ANY_LOGIN, "DNS list")
        try:
            (answer,) = await self._desk.enquire([enquiry])
        except FrontDeskUnavailable:
            _count("unavailable")
            return self._zone.unknown(lookup)
        known = answer.decision.decision is Decision.ALLOWED
        _count("yes" if known else "no")
        return self._zone.answer(lookup, _name(answer) if known else None)


def _name(answer: Answer) -> str:
    login = answer.decision.login
    return str(login.user) if login is not None else ""


def _count(outcome: str) -> None:
    metrics.FRONT_END_REQUESTS.labels(NAME, outcome).inc()
