"""The Connection Manager knows where clients came from, and answers who asks from outside."""

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.config import parse_config
from netmail_common.connmgr import ConnectionManagerClient, WatchMode
from netmail_common.connmgr.clients_seen import ClientsSeen, probe_token
from netmail_common.connmgr.gate import Door, Gate, Visitor
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager
from netmail_connmgr.domain.clients import ClientBook, Seen
from netmail_connmgr.domain.probe import ProbeTokens

from tests.connmgr.conftest import IdentityFor
from tests.connmgr.one_manager import channel_to, manager_config
from tests.support.waiting import until

A, B = b"\xc0\x00\x02\x01", b"\x7f\x00\x00\x01"
IMAP = ("mail1", "imap")


def test_clients_are_counted_for_an_hour() -> None:
    book = ClientBook()
    book.add(IMAP, Seen({A: 2}), 0)
    book.add(IMAP, Seen({A: 1, B: 1}, others=3), 1800)
    assert dict(book.last_hour(1801)) == {IMAP: Seen({A: 3, B: 1}, 3)}
    assert dict(book.last_hour(3700)) == {IMAP: Seen({A: 1, B: 1}, 3)}
    assert dict(book.last_hour(9000)) == {IMAP: Seen({})}


def test_many_clients_and_listeners_need_bounded_space() -> None:
    book = ClientBook()
    for n in range(3000):
        book.add(IMAP, Seen({n.to_bytes(4, "big"): 1}), 0)
        book.add(("mail1", f"listener {n}"), Seen({A: 1}), 0)
    seen = dict(book.last_hour(1))
    assert len(seen) == 256
    assert len(seen[IMAP].connections) + seen[IMAP].others == 3000
    assert len(seen[IMAP].connections) == 2000
    here = ClientsSeen()
    for n in range(3000):
        here.add("imap", ip_address(n))
    report = here.take("mail1")
    assert report is not None
    assert (len(report.listeners[0].clients), report.listeners[0].others) == (1000, 2000)
    assert here.take("mail1") is None


def test_a_token_proves_itself_for_a_while() -> None:
    tokens, others = ProbeTokens(b"key"), ProbeTokens(b"another")
    token = tokens.issue(1000)
    assert tokens.knows(token, 1899)
    assert not tokens.knows(token, 1900)
    assert not others.knows(token, 1000)
    assert probe_token(f"netmail-doctor {token}") == token
    for wrong in ("", "x", token[:-1], token + "A", "ä" * 35, token.swapcase()):
        assert not tokens.knows(wrong, 1000), wrong
    for text in (token, f"netmail-doctor {token} ", "netmail-doctor", "netmail-doctor a b"):
        assert probe_token(text) in {None, token}


async def test_agents_tell_where_clients_came_from_and_answer_who_asks(
    certificates: Path, identity_for: IdentityFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_common.connmgr.gate._REPORT_EVERY", 0.0)
    config = parse_config(manager_config(certificates, shared_networks=["198.51.100.0/24"]))
    async with connection_manager(config, "cm1") as running:
        channel = channel_to(running.ports[0], identity_for(Role.POP_IMAP))
        admin = channel_to(running.ports[0], identity_for(Role.ADMIN))
        stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(admin.raw)
        client = ConnectionManagerClient(channel)
        networks = NetworkMap(AddressRules())
        gate = Gate(client, networks, messaging_server="mail1", agent="test")

        async def follow() -> None:
            async for event in client.watch(WatchMode.REVOCATIONS, heartbeat=0.05):
                gate.take(event)

        following = asyncio.create_task(follow())
        outside = Visitor(ip_address("192.0.2.1"), Door.IMAP, "imap")
        shared = Visitor(ip_address("198.51.100.9"), Door.IMAP, "imap")
        for visitor in (outside, outside, shared):
            gate.seen(visitor)

        async def described() -> pb.DescribeAddressesResponse:
            return await stub.DescribeAddresses(pb.DescribeAddressesRequest())

        async def reported() -> bool:
            return bool((await described()).listeners)

        await until(reported)
        answer = await described()
        (listener,) = answer.listeners
        assert (listener.messaging_server, listener.listener) == IMAP
        assert [
            (one.client_address, one.connections, one.grants, one.standing)
            for one in listener.clients
        ] == [
            (A, 2, True, "grants"),
            (b"\xc6\x33\x64\x09", 1, False, "configured as shared"),
        ]
        question = f"netmail-doctor {answer.probe_token}"
        assert await gate.probe(outside, question) == "192.0.2.1 grants"
        said = await gate.probe(shared, question)
        assert said == "198.51.100.9 never grants, configured as shared"
        assert await gate.probe(outside, "netmail-doctor " + "A" * 35) is None
        assert await gate.probe(outside, "hello") is None
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await gate.close()
        await channel.close()
        await admin.close()
