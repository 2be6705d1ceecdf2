"""WHOSON: the protocol without sockets, and a Connection Manager that speaks it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.config import ConfigError
from netmail_connmgr.app.manager import connection_manager
from netmail_connmgr.protocol.whoson import (
    MAX_REQUEST,
    BadRequest,
    Request,
    RequestReader,
    Sign,
    Verb,
    reply,
)

from tests.connmgr.conftest import IdentityFor
from tests.connmgr.front_ends import ask_udp, grpc_client, settings

LOOPBACK = b"\x7f\x00\x00\x01"


def read_all(*pieces: bytes) -> list[Request | str]:
    """Every request, or why there is none."""
    reader = RequestReader()
    found: list[Request | str] = []
    for piece in pieces:
        reader.feed(piece)
        while not reader.broken:
            try:
                request = reader.next_request()
            except BadRequest as error:
                found.append(str(error))
                continue
            if request is None:
                break
            found.append(request)
    return found


@pytest.mark.parametrize(
    ("octets", "request_"),
    [
        (b"LOGIN 203.0.113.1 alice\r\n\r\n", Request(Verb.LOGIN, b"\xcb\x00\x71\x01", "alice")),
        (b"login 203.0.113.1 alice\n\n", Request(Verb.LOGIN, b"\xcb\x00\x71\x01", "alice")),
        (b"LOGIN ::1 a b \r\n\r\n", Request(Verb.LOGIN, bytes(15) + b"\1", "a b")),
        (b"LOGOUT 203.0.113.1\r\n\r\n", Request(Verb.LOGOUT, b"\xcb\x00\x71\x01")),
        (b"LOGOUT 203.0.113.1 alice\r\n\r\n", Request(Verb.LOGOUT, b"\xcb\x00\x71\x01")),
        (b"QUERY 203.0.113.1\r\n\r\n", Request(Verb.QUERY, b"\xcb\x00\x71\x01")),
        (b"\r\n\r\nQUERY 203.0.113.1\r\n\r\n", Request(Verb.QUERY, b"\xcb\x00\x71\x01")),
        (b"QUIT\r\n\r\n", Request(Verb.QUIT)),
    ],
)
def test_requests(octets: bytes, request_: Request) -> None:
    assert read_all(octets) == [request_]


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"HELO\r\n\r\n", "LOGIN, LOGOUT, QUERY or QUIT"),
        (b" \r\n\r\n", "LOGIN, LOGOUT, QUERY or QUIT"),
        (b"QUERY\r\n\r\n", "an IP address follows"),
        (b"QUERY 203.0.113.01\r\n\r\n", "an IP address follows"),
        (b"QUERY 3405803777\r\n\r\n", "an IP address follows"),
        (b"QUERY 203.0.113.1/32\r\n\r\n", "an IP address follows"),
        (b"LOGIN 203.0.113.1\r\n\r\n", "a user's name follows the address"),
        (b"LOGIN 203.0.113.1  \r\n\r\n", "a user's name follows the address"),
        (b"QUERY 203.0.113.1\r\nLOGIN 203.0.113.1 a\r\n\r\n", "one line, then an empty line"),
        (b"LOGIN 203.0.113.1 \xff\r\n\r\n", "not UTF-8"),
    ],
)
def test_what_is_no_request_says_what_is_missing_and_the_next_one_counts(
    octets: bytes, why: str
) -> None:
    assert read_all(octets + b"QUIT\r\n\r\n") == [why, Request(Verb.QUIT)]


@pytest.mark.parametrize(
    "octets",
    [b"QUERY " + b"1" * MAX_REQUEST, b"A\n" * MAX_REQUEST, b"QUERY" + b" " * MAX_REQUEST + b"\n\n"],
)
def test_a_request_too_long_ends_everything(octets: bytes) -> None:
    reader = RequestReader()
    reader.feed(octets)
    with pytest.raises(BadRequest, match="too long"):
        reader.next_request()
    assert reader.broken
    reader.feed(b"QUIT\r\n\r\n")
    assert reader.next_request() is None


@given(
    st.lists(
        st.sampled_from(
            [
                b"QUERY 203.0.113.1\r\n\r\n",
                b"QUIT\n\n",
                b"LOGIN ::1 a\r\n\r\n",
                b"x\r\n\r\n",
                b"\r\n",
            ]
        )
    ),
    st.data(),
)
def test_the_pieces_in_which_requests_come_change_nothing(
    requests: list[bytes], data: st.DataObject
) -> None:
    octets = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)))))
    pieces = [octets[at:end] for at, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    assert read_all(*pieces) == read_all(octets)


def test_a_reply_is_one_line_and_an_empty_one_whatever_a_name_contains() -> None:
    assert reply(Sign.YES, "al\r\nice\0") == b"+al??ice?\r\n\r\n"
    assert reply(Sign.NO, "zoë") == "-zoë\r\n\r\n".encode()


# With sockets


class Dialogue:
    """A client by TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, line: str) -> str:
        self.writer.write(f"{line}\r\n\r\n".encode())
        return await self.answer()

    async def answer(self) -> str:
        async with asyncio.timeout(20):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode().removesuffix("\r\n\r\n")

    async def ended(self) -> bool:
        async with asyncio.timeout(20):
            return not await self.reader.read()


@contextlib.asynccontextmanager
async def tcp(port: int) -> AsyncIterator[Dialogue]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Dialogue(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def whoson(**more: Any) -> dict[str, Any]:
    return {"listen": ["127.0.0.1:0"], "allowed_sources": ["127.0.0.0/8"], **more}


async def test_a_login_by_tcp_answers_queries_until_it_is_logged_out(certificates: Path) -> None:
    async with (
        connection_manager(settings(certificates, whoson=whoson()), "cm1") as running,
        tcp(*running.front_end_ports["whoson"]) as client,
    ):
        assert await client.ask("QUERY 203.0.113.1") == "-not logged in"
        assert await client.ask("LOGIN 203.0.113.1 alice") == "+LOGIN OK"
        assert await client.ask("QUERY 203.0.113.1") == "+alice"
        assert await client.ask("QUERY ::ffff:203.0.113.1") == "+alice"
        assert await client.ask("QUERY 203.0.113.2") == "-not logged in"
        assert await client.ask("LOGOUT 203.0.113.1") == "+LOGOUT OK"
        assert await client.ask("QUERY 203.0.113.1") == "-not logged in"
        assert await client.ask("LOGIN 203.0.113.1 bob") == "+LOGIN OK"
        assert await client.ask("QUERY 203.0.113.1") == "+bob"
        assert await client.ask("QUIT") == "+QUIT OK"
        assert await client.ended()


async def test_its_logins_are_those_of_the_table(
    certificates: Path, identity_for: IdentityFor
) -> None:
    config = settings(certificates, whoson=whoson(), address_map={"domains": ["example.org"]})
    async with (
        connection_manager(config, "cm1") as running,
        tcp(*running.front_end_ports["whoson"]) as client,
        grpc_client(running, identity_for) as admin,
    ):
        for user in ("alice", "bob@users.demo", "carol@example.net"):
            assert await client.ask(f"LOGIN 203.0.113.1 {user}") == "+LOGIN OK"
        found = {one.user.name: one async for one in admin.list_logins()}
        assert {one.user.context for one in found.values()} == {"users.demo"}
        assert set(found) == {"alice", "bob", "carol@example.net"}
        assert found["alice"].messaging_server == "mail1"
        assert list(found["alice"].addresses) == ["alice@example.org"]
        assert await client.ask("LOGOUT 203.0.113.1") == "+LOGOUT OK"
        assert [one async for one in admin.list_logins()] == []


async def test_a_shared_network_is_noted_and_never_vouches(certificates: Path) -> None:
    config = settings(certificates, whoson=whoson(), shared_networks=["198.51.100.0/24"])
    async with (
        connection_manager(config, "cm1") as running,
        tcp(*running.front_end_ports["whoson"]) as client,
    ):
        answer = await client.ask("LOGIN 198.51.100.7 alice")
        assert answer == "+LOGIN OK, but this network is shared and never vouches"
        assert await client.ask("QUERY 198.51.100.7") == "-not logged in"
        assert await client.ask("LOGIN 203.0.113.1 a\x01b") == "-LOGIN refused: not a user's name"
        long = "x" * 256
        assert await client.ask(f"LOGIN 203.0.113.1 {long}") == "-LOGIN refused: not a user's name"


async def test_nonsense_is_answered_and_too_much_of_it_ends_the_connection(
    certificates: Path,
) -> None:
    async with connection_manager(settings(certificates, whoson=whoson()), "cm1") as running:
        (port,) = running.front_end_ports["whoson"]
        async with tcp(port) as client:
            assert await client.ask("EHLO x") == "*LOGIN, LOGOUT, QUERY or QUIT"
            client.writer.write(b"QUERY 203.0.113.1\n\nQUERY 203.0.113.2\n\n")
            assert await client.answer() == "-not logged in"
            assert await client.answer() == "-not logged in"
            client.writer.write(b"x" * (2 * MAX_REQUEST))
            assert await client.answer() == "*request too long"
            assert await client.ended()
        async with tcp(port) as client:
            client.writer.write(b"QUERY 192.0")
            client.writer.write_eof()
            assert await client.ended()


async def test_by_udp_anybody_may_ask_and_nobody_log_in(certificates: Path) -> None:
    async with (
        connection_manager(settings(certificates, whoson=whoson()), "cm1") as running,
        tcp(*running.front_end_ports["whoson"]) as client,
    ):
        (port,) = running.front_end_ports["whoson"]
        assert (
            await ask_udp(port, b"LOGIN 203.0.113.1 bob\r\n\r\n") == b"*LOGIN by TCP only\r\n\r\n"
        )
        assert await client.ask("LOGIN 203.0.113.1 alice") == "+LOGIN OK"
        assert await ask_udp(port, b"LOGOUT 203.0.113.1\r\n\r\n") == b"*LOGOUT by TCP only\r\n\r\n"
        assert await ask_udp(port, b"QUERY 203.0.113.1\r\n\r\n") == b"+alice\r\n\r\n"
        assert await ask_udp(port, b"QUIT\r\n\r\n") == b"+QUIT OK\r\n\r\n"
        bad = b"*one line, then an empty line\r\n\r\n"
        for datagram in (b"QUERY 203.0.113.1", b"QUERY 203.0.113.1\r\n\r\nQUERY", b"\r\n"):
            assert await ask_udp(port, datagram) == bad


async def test_udp_login_lets_udp_log_in(certificates: Path) -> None:
    config = settings(certificates, whoson=whoson(udp_login=True))
    async with connection_manager(config, "cm1") as running:
        (port,) = running.front_end_ports["whoson"]
        assert await ask_udp(port, b"LOGIN 203.0.113.1 alice\r\n\r\n") == b"+LOGIN OK\r\n\r\n"
        assert await ask_udp(port, b"QUERY 203.0.113.1\r\n\r\n") == b"+alice\r\n\r\n"
        assert await ask_udp(port, b"LOGOUT 203.0.113.1\r\n\r\n") == b"+LOGOUT OK\r\n\r\n"
        assert await ask_udp(port, b"QUERY 203.0.113.1\r\n\r\n") == b"-not logged in\r\n\r\n"


async def test_sources_that_are_not_allowed_hear_nothing(certificates: Path) -> None:
    config = settings(certificates, whoson=whoson(allowed_sources=["127.0.0.2/32"]))
    async with connection_manager(config, "cm1") as running:
        (port,) = running.front_end_ports["whoson"]
        allowed = ("127.0.0.2", 0)
        assert await ask_udp(port, b"QUIT\r\n\r\n", source=allowed) == b"+QUIT OK\r\n\r\n"
        assert await ask_udp(port, b"QUIT\r\n\r\n", patience=0.2) is None
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize("sources", [[], ["100.64.0.0/16"], ["203.0.113.0/24"]])
async def test_there_must_be_sources_and_none_may_overlap_a_shared_network(
    certificates: Path, sources: list[str]
) -> None:
    config = settings(
        certificates,
        whoson=whoson(allowed_sources=sources),
        shared_networks=["203.0.113.128/25"],
    )
    with pytest.raises(ConfigError, match=r"whoson\.allowed_sources"):
        async with connection_manager(config, "cm1"):
            pass


async def test_an_address_that_is_taken_stops_the_start(certificates: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        config = settings(certificates, whoson=whoson(listen=[listen]))
        with pytest.raises(OSError, match="in use"):
            async with connection_manager(config, "cm1"):
                pass
