"""WHOSON and the DNS list served by worker processes, as a command."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode

from tests.connmgr.front_ends import ask_udp
from tests.connmgr.one_manager import manager_process
from tests.support.installation import free_port

_TRIES = 20
"""Each from a new socket, so that the kernel spreads them over the workers."""


@contextlib.asynccontextmanager
async def served(folder: Path, certificates: Path, workers: int) -> AsyncIterator[tuple[int, int]]:
    """The ports of WHOSON and of the DNS list."""
    whoson, dns_list = free_port(), free_port()
    manager = {
        "name": "cm1",
        "listen": [f"127.0.0.1:{free_port()}"],
        "loopback_grants": True,
        "front_end_workers": workers,
        "audit": {"directory": str(folder / "audit")},
        "whoson": {"listen": [f"127.0.0.1:{whoson}"], "allowed_sources": ["127.0.0.1/32"]},
        "dns_list": {
            "listen": [f"127.0.0.1:{dns_list}"],
            "allowed_sources": ["127.0.0.1/32"],
            "zone": "logins.example",
            "ttl": 0,
        },
    }
    config = {"grpc": {"certificates": str(certificates)}, "connection_managers": [manager]}
    async with manager_process(config, folder):
        yield whoson, dns_list


async def by_tcp(port: int, line: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{line}\r\n\r\nQUIT\r\n\r\n".encode())
    async with asyncio.timeout(30):
        answers = await reader.read()
    writer.close()
    return answers.partition(b"\r\n")[0]


async def listed(port: int, *, tcp: bool) -> bool:
    query = dns.message.make_query("1.113.0.203.logins.example", "A")
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    response = await ask(query, "127.0.0.1", port=port, timeout=30)
    assert response.rcode() in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}
    return bool(response.answer)


async def test_every_worker_knows_what_one_was_told(tmp_path: Path, certificates: Path) -> None:
    async with served(tmp_path, certificates, 2) as (whoson, dns_list):
        assert await by_tcp(whoson, "LOGIN 203.0.113.1 alice") == b"+LOGIN OK"
        for turn in range(_TRIES):
            assert await ask_udp(whoson, b"QUERY 203.0.113.1\n\n") == b"+alice\r\n\r\n"
            assert await listed(dns_list, tcp=turn % 2 == 0)
        assert await by_tcp(whoson, "LOGOUT 203.0.113.1") == b"+LOGOUT OK"
        for turn in range(_TRIES):
            assert await by_tcp(whoson, "QUERY 203.0.113.1") == b"-not logged in"
            assert not await listed(dns_list, tcp=turn % 2 == 0)

    (path,) = (tmp_path / "audit").iterdir()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["kind"] for record in records] == ["login", "relay", "relay", "revocation"]
    assert {record.get("asked_by") for record in records[1:3]} == {"WHOSON", "DNS list"}


async def test_alone_the_owner_serves_them_itself(tmp_path: Path, certificates: Path) -> None:
    async with served(tmp_path, certificates, 0) as (whoson, dns_list):
        assert await by_tcp(whoson, "LOGIN 203.0.113.1 alice") == b"+LOGIN OK"
        assert await ask_udp(whoson, b"QUERY 203.0.113.1\n\n") == b"+alice\r\n\r\n"
        assert await listed(dns_list, tcp=True)
