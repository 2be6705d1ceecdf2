"""Whatever protocol asks: the lists of addresses come before logins."""

import asyncio
from pathlib import Path

import dns.message
import dns.rcode
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.conftest import IdentityFor, check, login
from tests.connmgr.front_ends import ask_udp, grpc_client, settings

SOURCES = {"allowed_sources": ["127.0.0.1/32"], "listen": ["127.0.0.1:0"]}
ALLOWED, BLOCKED, STRANGER = (bytes([203, 0, 113, last]) for last in (1, 2, 3))


async def by_dns(port: int, address: bytes) -> bool:
    name = ".".join(str(octet) for octet in reversed(address)) + ".logins.example"
    answer = await ask_udp(port, dns.message.make_query(name, "A").to_wire())
    assert answer is not None
    return dns.message.from_wire(answer).rcode() == dns.rcode.NOERROR


async def by_whoson(port: int, address: bytes) -> bool:
    text = ".".join(map(str, address))
    answer = await ask_udp(port, f"QUERY {text}\r\n\r\n".encode())
    assert answer is not None
    return answer.startswith(b"+")


async def by_postfix(port: int, address: bytes) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = ".".join(map(str, address))
    request = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": text,
        "sender": "somebody@example.net",
        "recipient": "friend@example.com",
        "instance": f"1.{text}",
    }
    lines = "".join(f"{key}={value}\n" for key, value in request.items())
    writer.write(f"{lines}\n".encode())
    try:
        async with asyncio.timeout(20):
            answer = await reader.readuntil(b"\n\n")
    finally:
        writer.close()
    return answer == b"action=OK\n\n"


async def test_every_front_end_knows_who_is_always_allowed_and_who_is_blocked(
    certificates: Path, identity_for: IdentityFor
) -> None:
    config = settings(
        certificates,
        lists={"allowed": ["203.0.113.1/32"], "blocked": ["203.0.113.2/32"]},
        whoson=SOURCES,
        dns_list={"zone": "logins.example", **SOURCES},
        postfix_policy={"sender_binding": "any", **SOURCES},
    )
    async with (
        connection_manager(config, "cm1") as running,
        grpc_client(running, identity_for, Role.ADMIN) as client,
    ):
        for address in (BLOCKED, STRANGER):
            await client.register_one(login(address=address))
        ports = running.front_end_ports
        for ask, (port,) in [
            (by_dns, ports["dns_list"]),
            (by_whoson, ports["whoson"]),
            (by_postfix, ports["postfix_policy"]),
        ]:
            known = [await ask(port, one) for one in (ALLOWED, BLOCKED, STRANGER)]
            assert known == [True, False, True], ask
        decision = await client.check_sender(check("x@example.net", address=ALLOWED))
        assert decision.reason == pb.REASON_LISTED
        decision = await client.check_sender(check("alice@example.org", address=BLOCKED))
        assert decision.reason == pb.REASON_BLOCKED
