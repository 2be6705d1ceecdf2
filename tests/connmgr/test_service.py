"""The Connection Manager over real gRPC with mutual TLS."""

import asyncio
import ipaddress
from typing import Any

import grpc
import pytest
import structlog
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.connmgr import ConnectionManagerUnavailable, UserKey
from netmail_common.grpc_errors import error_reason
from netmail_common.networks import AddressRules
from netmail_common.roles import METHOD_ROLES, Role
from netmail_connmgr.domain.table import TableLimits

from tests.connmgr.conftest import ServeFactory, Server, check, login, owned

OTHER = b"\xc0\x00\x02\x02"
LOOPBACK = b"\x7f\x00\x00\x01"


async def register(server: Server, *items: pb.LoginRegistration) -> list[int]:
    response = await server.stub(Role.POP_IMAP).RegisterLogin(pb.RegisterLoginRequest(items=items))
    assert response.instance_id == server.store.instance_id
    assert response.login_lifetime_seconds == 900
    return [result.outcome for result in response.results]


async def decide(server: Server, question: pb.SenderCheck) -> pb.SenderDecision:
    return await server.client(Role.SMTP).check_sender(question)


async def test_a_registered_login_lets_its_address_relay(server: Server) -> None:
    result = await server.client(Role.POP_IMAP).register_one(login())
    assert result.outcome == pb.REGISTER_OUTCOME_REGISTERED
    assert result.remaining_seconds in {899, 900}  # it waited a moment to be sent

    decision = await decide(server, check("alice@example.org"))
    assert decision.decision == pb.DECISION_ALLOWED
    assert decision.reason == pb.REASON_LOGIN
    assert decision.user == pb.UserKey(name="alice", context="users.demo")
    assert decision.users == [pb.UserKey(name="alice", context="users.demo")]
    assert decision.user_count == 1
    assert decision.remaining_seconds in {899, 900}
    assert decision.protocol == pb.PROTOCOL_POP3
    assert decision.session_id == "session of alice"


async def test_an_address_without_a_login_must_authenticate(server: Server) -> None:
    await register(server, login())
    decision = await decide(server, check("alice@example.org", address=OTHER))
    assert decision.decision == pb.DECISION_MUST_AUTHENTICATE
    assert decision.reason == pb.REASON_NO_LOGIN
    assert not decision.HasField("user")


async def test_a_login_that_is_over_says_so(server: Server) -> None:
    await register(server, login())
    server.clock.advance(899.999)
    assert (await decide(server, check())).decision == pb.DECISION_ALLOWED
    server.clock.advance(0.001)
    decision = await decide(server, check())
    assert decision.decision == pb.DECISION_MUST_AUTHENTICATE
    assert decision.reason == pb.REASON_EXPIRED


async def test_a_login_from_a_shared_network_is_kept_and_grants_nothing(server: Server) -> None:
    outcomes = await register(server, login(address=LOOPBACK))
    assert outcomes == [pb.REGISTER_OUTCOME_SHARED_NETWORK]
    decision = await decide(server, check("alice@example.org", address=LOOPBACK))
    assert decision.decision == pb.DECISION_MUST_AUTHENTICATE
    assert decision.reason == pb.REASON_SHARED_NETWORK
    (listed,) = [one async for one in server.client(Role.ADMIN).list_logins()]
    assert not listed.grants


async def test_a_network_that_proves_nothing_never_grants(server: Server) -> None:
    teredo = bytes.fromhex("20010000") + bytes(12)
    await register(server, login(address=teredo))
    decision = await decide(server, check("alice@example.org", address=teredo))
    assert decision.reason == pb.REASON_NEVER_GRANTS


async def test_one_login_counts_for_every_spelling_of_its_network(server: Server) -> None:
    mapped = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    nat64 = bytes.fromhex("0064ff9b") + bytes(8) + b"\xc0\x00\x02\x01"
    await register(server, login(address=mapped))
    for address in (mapped, nat64, b"\xc0\x00\x02\x01"):
        assert (await decide(server, check(address=address))).decision == pb.DECISION_ALLOWED


async def test_a_login_through_a_shared_spelling_does_not_vouch_for_the_other(
    serve: ServeFactory,
) -> None:
    shared = ipaddress.IPv6Network("2002:c000:201::/48")
    address = bytes.fromhex("2002c0000201") + bytes(10)
    async with serve(rules=AddressRules(shared_networks=(shared,))) as server:
        await register(server, login(address=address))
        assert (await decide(server, check())).decision == pb.DECISION_MUST_AUTHENTICATE
        await register(server, login())
        assert (await decide(server, check())).decision == pb.DECISION_ALLOWED
        decision = await decide(server, check(address=address))
        assert decision.decision == pb.DECISION_MUST_AUTHENTICATE


async def test_a_sender_of_another_user_is_denied_with_both_names(server: Server) -> None:
    await register(server, login())
    decision = await decide(
        server,
        check("bob@example.org", owners=(owned("bob@example.org", "bob"),)),
    )
    assert decision.decision == pb.DECISION_DENIED
    assert decision.reason == pb.REASON_SENDER_OF_OTHER_USER
    assert decision.refused_sender == "bob@example.org"
    assert decision.user.name == "alice"


@pytest.mark.parametrize(
    ("binding", "allowed"),
    [
        (pb.SENDER_BINDING_UNSPECIFIED, False),
        (pb.SENDER_BINDING_STRICT, False),
        (pb.SENDER_BINDING_DOMAIN, True),
        (pb.SENDER_BINDING_ANY, True),
    ],
)
async def test_a_binding_that_is_not_said_is_strict(
    server: Server, binding: "pb.SenderBinding.ValueType", allowed: bool
) -> None:
    await register(server, login())
    sender = "sales@example.org"
    decision = await decide(server, check(sender, binding=binding, owners=(owned(sender),)))
    assert (decision.decision == pb.DECISION_ALLOWED) is allowed


async def test_an_owner_that_nobody_was_asked_for_counts_for_nothing(server: Server) -> None:
    await register(server, login())
    sender = "sales@example.org"
    not_asked = pb.SenderOwner(address=sender, owner=pb.UserKey(name="alice", context="users.demo"))
    decision = await decide(server, check(sender, owners=(not_asked,)))
    assert decision.reason == pb.REASON_SENDER_NOT_OWNED


async def test_senders_compare_without_case_and_as_a_labels(server: Server) -> None:
    await register(server, login(addresses=("J\u00f6rg@xn--bcher-kva.example",)))
    for sender in ("JO\u0308RG@b\u00fccher.example", "j\u00f6rg@XN--BCHER-KVA.EXAMPLE"):
        decision = await decide(server, check(sender, binding=pb.SENDER_BINDING_STRICT))
        assert decision.decision == pb.DECISION_ALLOWED
    for sender in ("jorg@xn--bcher-kva.example", "j\u00f6rg@bucher.example", "j\u00f6rg", ""):
        decision = await decide(server, check(sender, binding=pb.SENDER_BINDING_STRICT))
        assert decision.decision == pb.DECISION_DENIED


async def test_too_many_users_make_a_network_strict(serve: ServeFactory) -> None:
    async with serve(max_users=2) as server:
        sender = "sales@example.org"
        question = check(sender, binding=pb.SENDER_BINDING_ANY, owners=(owned(sender),))
        await register(server, login("alice"), login("bob"))
        assert (await decide(server, question)).decision == pb.DECISION_ALLOWED
        await register(server, login("carol"))
        decision = await decide(server, question)
        assert decision.decision == pb.DECISION_DENIED
        assert decision.user_count == 3


BAD_ITEMS = {
    "no name": login(""),
    "control character": login("ali\nce"),
    "next line": login("ali\u0085ce"),
    "line separator": login("ali\u2028ce"),
    "null": login("ali\0ce"),
    "256 octets": login("a" * 256),
    "256 octets in UTF-8": login("\u00e4" * 128),
    "bad context": login(context="users\r\nX-Auth-OK: root"),
    "bad session": login(session="a\nb"),
    "no address": login(address=b""),
    "short address": login(address=b"\x01\x02\x03"),
    "long address": login(address=bytes(17)),
    "no protocol": login(protocol=pb.PROTOCOL_UNSPECIFIED),
}


@pytest.mark.parametrize("item", BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
async def test_an_item_that_is_not_valid_is_refused_beside_good_ones(
    server: Server, item: pb.LoginRegistration
) -> None:
    outcomes = await register(server, login("bob"), item, login("carol"))
    assert outcomes == [
        pb.REGISTER_OUTCOME_REGISTERED,
        pb.REGISTER_OUTCOME_INVALID,
        pb.REGISTER_OUTCOME_REGISTERED,
    ]
    assert await server.store.size() == 2


async def test_names_at_the_limit_are_taken(server: Server) -> None:
    outcomes = await register(server, login("a" * 255), login("\u00e4" * 127), login('a b\\c"d'))
    assert set(outcomes) == {pb.REGISTER_OUTCOME_REGISTERED}


async def test_only_a_legacy_client_may_have_no_user(server: Server) -> None:
    nobody = login("", context="", protocol=pb.PROTOCOL_LEGACY_UDP)
    assert await register(server, nobody) == [pb.REGISTER_OUTCOME_REGISTERED]
    decision = await decide(server, check("x@example.net", binding=pb.SENDER_BINDING_ANY))
    assert decision.decision == pb.DECISION_ALLOWED
    assert decision.user == pb.UserKey()
    decision = await decide(server, check("x@example.net"))
    assert decision.reason == pb.REASON_NO_USER


async def test_a_login_that_is_too_old_is_refused(server: Server) -> None:
    assert await register(server, login(age_ms=900_000)) == [pb.REGISTER_OUTCOME_EXPIRED]
    assert await register(server, login(age_ms=2**63)) == [pb.REGISTER_OUTCOME_EXPIRED]


async def test_a_full_table_says_so(serve: ServeFactory) -> None:
    async with serve(limits=TableLimits(max_logins=1)) as server:
        outcomes = await register(server, login("alice"), login("bob"))
        assert outcomes == [pb.REGISTER_OUTCOME_REGISTERED, pb.REGISTER_OUTCOME_TABLE_FULL]


async def test_revoking_ends_logins_and_refuses_late_registrations(server: Server) -> None:
    await register(server, login(epoch=1))
    server.clock.advance(1)
    nmap = server.client(Role.NMAP)
    user = UserKey("alice", "users.demo")
    assert await nmap.revoke(user=user, credential_epoch=2, reason="password changed") == 1
    assert (await decide(server, check())).decision == pb.DECISION_MUST_AUTHENTICATE
    server.clock.advance(1)
    assert await register(server, login(epoch=1)) == [pb.REGISTER_OUTCOME_REVOKED]
    assert await register(server, login(epoch=2)) == [pb.REGISTER_OUTCOME_REGISTERED]
    assert await nmap.revoke(user=user, credential_epoch=2) == 0


async def test_revoking_by_address_takes_the_whole_network(server: Server) -> None:
    one, neighbour = (bytes.fromhex("20010db8") + bytes(11) + bytes([n]) for n in (1, 2))
    await register(server, login("alice", one), login("bob", neighbour), login("carol"))
    server.clock.advance(1)
    assert await server.client(Role.ADMIN).revoke(client_address=neighbour) == 2


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.RevokeLoginsRequest(), "NOTHING_TO_REVOKE"),
        (pb.RevokeLoginsRequest(user=pb.UserKey()), "NOTHING_TO_REVOKE"),
        (
            pb.RevokeLoginsRequest(client_address=OTHER, credential_epoch=1),
            "EPOCH_WITHOUT_USER",
        ),
        (pb.RevokeLoginsRequest(client_address=b"abc"), "BAD_ADDRESS"),
        (pb.RevokeLoginsRequest(user=pb.UserKey(name="a\nb")), "BAD_USER"),
        (pb.RevokeLoginsRequest(user=pb.UserKey(context="users.demo")), "BAD_USER"),
    ],
)
async def test_a_revocation_of_nothing_or_nonsense_is_an_error(
    server: Server, request_: pb.RevokeLoginsRequest, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub(Role.NMAP).RevokeLogins(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_reason(caught.value) == reason


async def test_a_check_of_a_bad_address_is_an_error(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await decide(server, check(address=b"12345"))
    assert error_reason(caught.value) == "BAD_ADDRESS"


async def test_calls_are_bounded(server: Server) -> None:
    smtp, pop_imap = server.stub(Role.SMTP), server.stub(Role.POP_IMAP)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await smtp.CheckSender(pb.CheckSenderRequest(items=[check()] * 1001))
    assert error_reason(caught.value) == "TOO_MANY_ITEMS"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pop_imap.RegisterLogin(pb.RegisterLoginRequest(items=[login()] * 1001))
    assert error_reason(caught.value) == "TOO_MANY_ITEMS"


async def test_a_message_of_too_many_senders_is_refused_and_fails_nobody_else(
    server: Server,
) -> None:
    await register(server, login())
    flood = check(*["alice@example.org"] * 1001, binding=pb.SENDER_BINDING_ANY)
    request = pb.CheckSenderRequest(items=[check(), flood, check()])
    results = (await server.stub(Role.SMTP).CheckSender(request)).results
    assert [result.decision for result in results] == [
        pb.DECISION_ALLOWED,
        pb.DECISION_DENIED,
        pb.DECISION_ALLOWED,
    ]


async def test_an_age_beyond_reason_can_be_listed_and_watched(server: Server) -> None:
    renewal = login(age_ms=2**64 - 1, renewal=True)
    assert await register(server, renewal) == [pb.REGISTER_OUTCOME_REGISTERED]
    (one,) = [one async for one in server.client(Role.ADMIN).list_logins()]
    assert one.age_ms >= 10**12


async def test_many_items_are_answered_in_their_order(server: Server) -> None:
    client = server.client(Role.POP_IMAP)
    names = [f"user{n}" for n in range(300)]
    await client.register([login(n, bytes([10, 0, *divmod(i, 256)])) for i, n in enumerate(names)])
    smtp = server.client(Role.SMTP)
    questions = [check(address=bytes([10, 0, *divmod(i, 256)])) for i in range(300)]
    decisions = await asyncio.gather(*(smtp.check_sender(question) for question in questions))
    assert [decision.user.name for decision in decisions] == names


async def test_logins_are_listed_a_page_at_a_time_each_once(server: Server) -> None:
    items = [login(f"user{n % 50}", bytes([10, n % 7, 0, n]), session=f"s{n}") for n in range(200)]
    await register(server, *items)
    admin = server.client(Role.ADMIN)
    found = [one async for one in admin.list_logins(page_size=7)]
    assert len(found) == 200
    assert {one.session_id for one in found} == {item.session_id for item in items}
    first = found[0]
    assert first.network == first.client_address
    assert (first.prefix_length, first.grants, first.remaining_seconds) == (32, True, 900)


async def test_a_listing_survives_what_comes_and_goes_meanwhile(server: Server) -> None:
    items = [login(f"user{n}", bytes([10, 0, 0, n]), session=f"s{n}") for n in range(60)]
    await register(server, *items)
    admin = server.client(Role.ADMIN)
    found: list[str] = []
    server.clock.advance(1)
    async for one in admin.list_logins(page_size=5):
        if len(found) % 5 == 0:
            number = len(found)
            await admin.revoke(user=UserKey(f"user{number}", "users.demo"))
            await admin.revoke(user=UserKey(f"user{number + 7}", "users.demo"))
            await register(server, login(f"new{number}", bytes([10, 1, 0, number])))
        found.append(one.session_id)
    assert len(found) == len(set(found))
    stayed = {f"s{n}" for n in range(60)} - {f"s{n + k}" for n in range(0, 70, 5) for k in (0, 7)}
    assert stayed <= set(found)


async def test_logins_are_listed_by_user_and_by_address(server: Server) -> None:
    await register(
        server, login("alice"), login("bob"), login("alice", OTHER), login("alice", LOOPBACK)
    )
    admin = server.client(Role.ADMIN)

    async def listed(**which: object) -> list[tuple[str, bytes]]:
        return [
            (one.user.name, one.client_address)
            async for one in admin.list_logins(page_size=1, **which)  # type: ignore[arg-type]
        ]

    home = b"\xc0\x00\x02\x01"
    alice = UserKey("alice", "users.demo")
    assert await listed(user=alice) == [("alice", home), ("alice", OTHER), ("alice", LOOPBACK)]
    assert await listed(client_address=home) == [("alice", home), ("bob", home)]
    assert await listed(user=alice, client_address=LOOPBACK) == [("alice", LOOPBACK)]
    assert await listed(user=UserKey("alice", "other")) == []


@pytest.mark.parametrize("token", ["x", "1.2", "-1", "9" * 40, "\u0661"])
async def test_a_page_token_that_is_none_is_an_error(server: Server, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub(Role.ADMIN).ListLogins(pb.ListLoginsRequest(page_token=token))
    assert error_reason(caught.value) == "BAD_PAGE_TOKEN"


async def test_each_registration_decision_and_revocation_is_one_log_line(server: Server) -> None:
    with structlog.testing.capture_logs() as lines:
        await register(server, login(), login("b\nd"))
        await decide(server, check("alice@example.org"))
        await decide(server, check("eve@example.net"))
        server.clock.advance(1)
        await server.client(Role.NMAP).revoke(
            user=UserKey("alice", "users.demo"), reason="disabled"
        )
    told = [(line["event"], line["address"], line["reason"]) for line in lines]
    assert told == [
        ("login refused", "192.0.2.1", "invalid: user name with a control character"),
        ("login registered", "192.0.2.1", "registered"),
        ("relaying allowed", "192.0.2.1", "login"),
        ("relaying refused", "192.0.2.1", "sender not owned"),
        ("logins revoked", "", "disabled"),
    ]
    assert all("\n" not in str(value) for line in lines for value in line.values())


CALLS = {
    "RegisterLogin": pb.RegisterLoginRequest(),
    "CheckSender": pb.CheckSenderRequest(),
    "ListLogins": pb.ListLoginsRequest(),
    "RevokeLogins": pb.RevokeLoginsRequest(client_address=OTHER),
    "CheckConnection": pb.CheckConnectionRequest(),
    "ReportEvent": pb.ReportEventRequest(),
    "ForgetFailures": pb.ForgetFailuresRequest(client_address=OTHER),
    "ReportClients": pb.ReportClientsRequest(),
    "AnswerProbe": pb.AnswerProbeRequest(),
    "DescribeAddresses": pb.DescribeAddressesRequest(),
    "QueryAudit": pb.QueryAuditRequest(client_address=OTHER),
}
OWN_ROLES = {
    "RegisterLogin": {Role.POP_IMAP, Role.CONNMGR, Role.ADMIN},
    "CheckSender": {Role.SMTP, Role.CONNMGR, Role.ADMIN},
    "CheckConnection": {Role.SMTP, Role.POP_IMAP, Role.CONNMGR, Role.ADMIN},
    "ReportEvent": {Role.SMTP, Role.POP_IMAP, Role.CONNMGR, Role.ADMIN},
    "ListLogins": {Role.ADMIN},
    "ForgetFailures": {Role.ADMIN},
    "QueryAudit": {Role.ADMIN},
    "ReportClients": {Role.POP_IMAP, Role.SMTP, Role.ADMIN},
    "AnswerProbe": {Role.POP_IMAP, Role.SMTP, Role.ADMIN},
    "DescribeAddresses": {Role.ADMIN},
    "RevokeLogins": {Role.NMAP, Role.CONNMGR, Role.ADMIN},
    "WatchLogins": {Role.POP_IMAP, Role.SMTP, Role.ADMIN},
}


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_may_call_its_own_methods_and_no_other(server: Server, role: Role) -> None:
    stub = server.stub(role)
    for method, request in CALLS.items():
        code = grpc.StatusCode.OK
        call = getattr(stub, method)(request)
        try:
            await (call.read() if method == "QueryAudit" else call)
        except grpc.aio.AioRpcError as error:
            code = error.code()
        denied = role not in OWN_ROLES[method]
        assert (code is grpc.StatusCode.PERMISSION_DENIED) is denied, (method, role)
    assert await watch_status(stub) is (
        grpc.StatusCode.OK
        if role in OWN_ROLES["WatchLogins"]
        else grpc.StatusCode.PERMISSION_DENIED
    )


async def watch_status(stub: Any) -> grpc.StatusCode:
    start = pb.WatchStart(mode=pb.WATCH_MODE_REVOCATIONS)
    call = stub.WatchLogins(iter([pb.WatchLoginsRequest(start=start)]))
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        call.cancel()
    return grpc.StatusCode.OK


def test_the_role_matrix_covers_every_method() -> None:
    methods = {
        method.rpartition("/")[2]
        for method in METHOD_ROLES
        if method.startswith("/netmail.connmgr.")
    }
    assert methods == set(OWN_ROLES)
    assert methods == {
        m.name for m in pb.DESCRIPTOR.services_by_name["ConnectionManagerService"].methods
    }


async def test_a_caller_without_our_certificate_does_not_get_in(server: Server) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListLogins(pb.ListLoginsRequest(), timeout=2)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_answer_is_an_error_and_never_a_yes(serve: ServeFactory) -> None:
    async with serve() as server:
        smtp = server.client(Role.SMTP)
        pop_imap = server.client(Role.POP_IMAP)
        await pop_imap.register_one(login())
        assert (await smtp.check_sender(check())).decision == pb.DECISION_ALLOWED
        server.service.drain()
        channels, server.channels = server.channels, []
    for call in (smtp.check_sender(check()), pop_imap.register_one(login()), pop_imap.revoke()):
        with pytest.raises(ConnectionManagerUnavailable):
            await call
    for channel in channels:
        await channel.close()
