"""A relay decision in words, over real gRPC."""

import ipaddress
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
import structlog
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.networks import AddressRules
from netmail_common.roles import Role

from tests.connmgr.conftest import ServeFactory, Server, check, login, owned

NOBODYS = "may not be used: it belongs to nobody who is logged in from there"


async def explain(server: Server, item: pb.SenderCheck) -> pb.SenderDecision:
    request = pb.CheckSenderRequest(items=[item], explain=True)
    (decision,) = (await server.stub(Role.ADMIN).CheckSender(request)).results
    return decision


async def register(server: Server, *logins: pb.LoginRegistration) -> None:
    request = pb.RegisterLoginRequest(items=logins)
    await server.stub(Role.POP_IMAP).RegisterLogin(request)


def lines(decision: pb.SenderDecision) -> Sequence[str]:
    return list(decision.explanation)


async def test_a_stranger_has_no_login(server: Server) -> None:
    decision = await explain(server, check("alice@example.org"))
    assert decision.decision == pb.DECISION_MUST_AUTHENTICATE
    assert lines(decision) == [
        "address: 192.0.2.1 is kept as 192.0.2.1/32",
        "network: logins from there grant relaying",
        "logins: none",
        "result: must authenticate: no login",
    ]


async def test_the_owner_of_the_sender_is_named(server: Server) -> None:
    await register(server, login())
    server.clock.advance(100)
    await register(server, login("bob"))
    decision = await explain(server, check("alice@example.org"))
    assert decision.decision == pb.DECISION_ALLOWED
    assert lines(decision) == [
        "address: 192.0.2.1 is kept as 192.0.2.1/32",
        "network: logins from there grant relaying",
        "logins: 2",
        "login: bob.users.demo by pop3 at mail1, 0 s ago, counts for 900 s more",
        "login: alice.users.demo by pop3 at mail1, 100 s ago, counts for 800 s more",
        "sender binding: domain",
        "sender alice@example.org: belongs to alice.users.demo, who is logged in",
        "result: allowed: login, in the name of alice.users.demo",
    ]


@pytest.mark.parametrize(
    ("sender", "binding", "owners", "said"),
    [
        (
            "bob@example.org",
            pb.SENDER_BINDING_DOMAIN,
            (owned("bob@example.org", "bob"),),
            "belongs to bob.users.demo, who is not logged in from there",
        ),
        (
            "sales@example.org",
            pb.SENDER_BINDING_STRICT,
            (owned("sales@example.org"),),
            NOBODYS,
        ),
        (
            "sales@example.org",
            pb.SENDER_BINDING_DOMAIN,
            (),
            f"{NOBODYS}; the directory was not asked whose it is",
        ),
        (
            "sales@example.org",
            pb.SENDER_BINDING_DOMAIN,
            (owned("sales@example.org"),),
            "may be used: the binding is wide enough",
        ),
        (
            "anybody@example.net",
            pb.SENDER_BINDING_ANY,
            (),
            "may be used: the binding is wide enough",
        ),
        ("nothing", pb.SENDER_BINDING_DOMAIN, (), "may not be used: it is no address"),
    ],
)
async def test_each_sender_is_told_whose_it_is(
    server: Server,
    sender: str,
    binding: "pb.SenderBinding.ValueType",
    owners: tuple[pb.SenderOwner, ...],
    said: str,
) -> None:
    await register(server, login())
    decision = await explain(server, check(sender, binding=binding, owners=owners))
    assert lines(decision)[-2] == f"sender {sender}: {said}"
    plain = await server.client(Role.SMTP).check_sender(
        check(sender, binding=binding, owners=owners)
    )
    del decision.explanation[:]
    assert decision == plain


async def test_a_login_that_is_over_is_told(server: Server) -> None:
    await register(server, login())
    server.clock.advance(900)
    decision = await explain(server, check())
    assert "logins: none, one has expired" in lines(decision)
    assert lines(decision)[-1] == "result: must authenticate: expired"


async def test_a_shared_network_is_told_with_its_logins(serve: ServeFactory) -> None:
    shared = (ipaddress.ip_network("192.0.2.0/24"),)
    async with serve(rules=AddressRules(shared_networks=shared)) as server:
        await register(server, login())
        assert lines(await explain(server, check("alice@example.org")))[1:] == [
            "network: logins from there grant nothing: configured as shared",
            "logins: 1, which vouch for nobody",
            "login: alice.users.demo by pop3 at mail1, 0 s ago, counts for 900 s more",
            "result: must authenticate: shared network",
        ]


async def test_a_crowd_makes_the_binding_strict(serve: ServeFactory) -> None:
    async with serve(max_users=2) as server:
        await register(server, *(login(f"user{number}") for number in range(12)))
        told = lines(await explain(server, check("x@example.org", binding=pb.SENDER_BINDING_ANY)))
    assert "logins: 12" in told
    assert "login: 2 more" in told
    assert "sender binding: strict, since 12 users are more than 2" in told


@pytest.mark.parametrize(
    ("rules", "network", "result"),
    [
        (
            AddressRules(allowed_networks=(ipaddress.ip_network("192.0.2.0/24"),)),
            "network: in the list of those that always may; no login is needed",
            "result: allowed: always allowed",
        ),
        (
            AddressRules(blocked_networks=(ipaddress.ip_network("192.0.2.0/24"),)),
            "network: logins from there grant nothing: blocked",
            "result: must authenticate: blocked",
        ),
    ],
)
async def test_the_lists_are_told(
    serve: ServeFactory, rules: AddressRules, network: str, result: str
) -> None:
    async with serve(rules=rules) as server:
        await register(server, login())
        told = lines(await explain(server, check("alice@example.org")))
    assert told[1] == network
    assert told[-1] == result


async def test_a_translated_address_is_told_with_its_network(server: Server) -> None:
    item = check(address=ip_address("64:ff9b::192.0.2.1").packed)
    assert lines(await explain(server, item))[0] == (
        "address: 64:ff9b::c000:201 is kept as 192.0.2.1/32"
    )


async def test_a_strangers_text_stays_in_its_line(server: Server) -> None:
    await register(server, login())
    decision = await explain(server, check("a\r\nresult: allowed"))
    assert all(line.isprintable() for line in lines(decision))


async def test_an_explanation_is_no_decision_for_the_log(server: Server) -> None:
    with structlog.testing.capture_logs() as logs:
        await explain(server, check("alice@example.org"))
    assert logs == []


async def test_nothing_is_explained_unasked(server: Server) -> None:
    decision = await server.client(Role.SMTP).check_sender(check("alice@example.org"))
    assert not decision.explanation
