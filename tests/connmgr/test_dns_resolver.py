"""Questions to DNS: whatever comes back, there is an answer, none, or nobody could say."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import dns.flags
import dns.message
import dns.name
import dns.rrset
import pytest
from netmail_connmgr.adapters.dns_resolver import DnsUnknown, Resolver, nameservers

from tests.support.dns_server import Zone, dns_server

NAME = dns.name.from_text("a.test.")


class Forger(asyncio.DatagramProtocol):
    """Answers each question by what a function makes of it."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override] # it is one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(self._answer(data), addr)


@asynccontextmanager
async def forging(answer: Callable[[bytes], bytes]) -> AsyncIterator[Resolver]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Forger(answer), local_addr=("127.0.0.1", 0)
    )
    try:
        yield Resolver(nameservers([f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"]))
    finally:
        transport.close()


def answered(query: bytes, *texts: str, name: str = "a.test.", kind: str = "A") -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    response.answer.append(dns.rrset.from_text(name, 300, "IN", kind, *texts))
    return response.to_wire()


def with_other_id(query: bytes) -> bytes:
    response = answered(query, "192.0.2.1")
    return bytes([response[0] ^ 0xFF, *response[1:]])


def with_other_question(query: bytes) -> bytes:
    response = dns.message.make_response(dns.message.make_query("b.test.", "A"))
    response.id = dns.message.from_wire(query).id
    response.answer.append(dns.rrset.from_text("b.test.", 300, "IN", "A", "192.0.2.1"))
    return response.to_wire()


def with_endless_alias(query: bytes) -> bytes:
    return answered(query, "a.test.", kind="CNAME")


@pytest.mark.parametrize(
    "answer",
    [
        lambda query: b"",
        lambda query: b"\x00",
        lambda query: query[:2] + b"\xff" * 40,
        lambda query: query[:2] + b"\x81\x80" + b"\x00\x01\x00\x01" + b"\x00" * 4 + b"\xc0\x0c" * 8,
        lambda query: answered(query, "192.0.2.1")[:-3],
        lambda query: query,
        with_other_id,
        with_other_question,
        with_endless_alias,
    ],
    ids=["empty", "short", "noise", "loops", "cut", "echo", "other id", "other question", "alias"],
)
async def test_what_is_no_answer_is_no_answer(answer: Callable[[bytes], bytes]) -> None:
    async with forging(answer) as resolver:
        with suppress(DnsUnknown):
            assert await resolver.ask(NAME, "A", 0.2) == []


async def test_records_of_another_name_are_none_of_this_ones() -> None:
    async with forging(lambda query: answered(query, "192.0.2.1", name="b.test.")) as resolver:
        assert await resolver.ask(NAME, "A", 5.0) == []


async def test_an_alias_is_followed() -> None:
    def answer(query: bytes) -> bytes:
        response = dns.message.make_response(dns.message.from_wire(query))
        response.answer.append(dns.rrset.from_text("a.test.", 300, "IN", "CNAME", "b.test."))
        response.answer.append(dns.rrset.from_text("b.test.", 300, "IN", "A", "192.0.2.1"))
        return response.to_wire()

    async with forging(answer) as resolver:
        assert [one.to_text() for one in await resolver.ask(NAME, "A", 5.0)] == ["192.0.2.1"]


async def test_a_lost_datagram_is_sent_again() -> None:
    questions = []

    def answer(query: bytes) -> bytes:
        questions.append(query)
        return answered(query, "192.0.2.1") if len(questions) > 1 else b""

    async with forging(answer) as resolver:
        assert await resolver.ask(NAME, "A", 10.0)
    assert len(questions) == 2


async def test_questions_wait_for_their_turn_and_not_for_ever() -> None:
    async with dns_server(Zone(silent=frozenset({"a.test"}))) as server:
        resolver = Resolver(nameservers([server.address]), at_once=1)
        started = time.monotonic()
        results = await asyncio.gather(
            *(resolver.ask(NAME, "A", 0.3) for _ in range(20)), return_exceptions=True
        )
        assert time.monotonic() - started < 5
        assert all(isinstance(result, DnsUnknown) for result in results)
        assert len(server.questions) < 20
