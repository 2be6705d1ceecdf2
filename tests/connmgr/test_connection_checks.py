"""CheckConnection over real gRPC, with a real DNS server behind it."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import grpc
import pytest
import structlog
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import ConfigError, ConnectionManagerConfig
from netmail_common.connmgr import Connected, WatchMode
from netmail_common.grpc_errors import error_reason
from netmail_common.networks import AddressRules
from netmail_common.roles import Role
from netmail_connmgr.adapters.connection_checks import ConnectionChecker
from netmail_connmgr.app.connections import connection_rules
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict, Verdict
from netmail_connmgr.domain.counters import CountersUnavailable
from netmail_connmgr.domain.store import StoreUnavailable

from tests.connmgr.conftest import ServeFactory, Server, login
from tests.support.dns_server import Zone, dns_server

CLIENT = "192.0.2.1"
DNSBL: dict[str, Any] = {"dnsbl": {"zones": [{"zone": "bad.test"}]}}
REVERSE: dict[str, Any] = {"reverse_dns": {"enabled": True}}
LISTED = {("1.2.0.192.bad.test", "A"): ["127.0.0.2"]}
NAMED = {("1.2.0.192.in-addr.arpa", "PTR"): ["a.test."], ("a.test", "A"): ["192.0.2.1"]}


class Checking:
    """A Connection Manager with rules about connections."""

    def __init__(self, server: Server, checker: ConnectionChecker) -> None:
        self.server = server
        self.checker = checker

    async def ask(
        self, address: str = CLIENT, service: "pb.Service.ValueType" = pb.SERVICE_SMTP, **more: Any
    ) -> pb.ConnectionDecision:
        check = pb.ConnectionCheck(
            client_address=ip_address(address).packed, service=service, **more
        )
        return await self.server.client(Role.SMTP).check_connection(check)

    async def explain(self, *checks: pb.ConnectionCheck) -> list[pb.ConnectionDecision]:
        request = pb.CheckConnectionRequest(items=checks, explain=True)
        return list((await self.server.stub(Role.ADMIN).CheckConnection(request)).results)


class CheckingFactory:
    def __init__(self, serve: ServeFactory) -> None:
        self._serve = serve

    @asynccontextmanager
    async def __call__(self, zone: Zone | None = None, **settings: Any) -> AsyncIterator[Checking]:
        async with dns_server(zone or Zone()) as dns:
            config = ConnectionManagerConfig.model_validate(
                {
                    "name": "main",
                    "listen": ["127.0.0.1:0"],
                    "dns_servers": [dns.address],
                    **settings,
                }
            )
            rules = AddressRules.from_config(config)
            async with (
                self._serve(rules=rules) as server,
                connection_rules(config, rules, server.store, server.service.desk) as live,
            ):
                yield Checking(server, live.checker)


@pytest.fixture
def checking(serve: ServeFactory) -> CheckingFactory:
    return CheckingFactory(serve)


async def told_to_check(manager: Checking) -> bool:
    """What the hello of an agent's stream says."""
    stream = manager.server.client(Role.SMTP).watch(WatchMode.REVOCATIONS)
    async with asyncio.timeout(10):
        event = await anext(stream)
    await stream.aclose()
    assert isinstance(event, Connected)
    return event.check_connections


async def test_without_rules_everybody_may_connect_and_nobody_need_ask(
    checking: CheckingFactory,
) -> None:
    async with checking() as manager:
        assert not manager.checker.every_connection
        assert not await told_to_check(manager)
        assert await manager.ask() == pb.ConnectionDecision(verdict=pb.CONNECTION_VERDICT_ALLOWED)


@pytest.mark.parametrize(
    "settings", [DNSBL, REVERSE, {"lists": {"blocked": ["192.0.2.0/24"]}}], ids=str
)
async def test_with_rules_every_connection_is_to_be_asked_about(
    checking: CheckingFactory, settings: dict[str, Any]
) -> None:
    async with checking(**settings) as manager:
        assert manager.checker.every_connection
        assert await told_to_check(manager)


async def test_a_blocked_client_is_denied_for_every_service(checking: CheckingFactory) -> None:
    async with checking(lists={"blocked": ["192.0.2.0-192.0.2.9"]}) as manager:
        for service in pb.Service.values():
            decision = await manager.ask(service=service)
            assert decision.verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT
            assert decision.rule == "list"
        for address in ("::ffff:192.0.2.9", "64:ff9b::192.0.2.9"):
            assert (await manager.ask(address)).rule == "list"
        assert (await manager.ask("192.0.2.10")).verdict == pb.CONNECTION_VERDICT_ALLOWED


async def test_a_login_of_a_blocked_client_is_denied(checking: CheckingFactory) -> None:
    async with checking(lists={"blocked": ["192.0.2.1/32"]}) as manager:
        decision = await manager.ask(user=pb.UserKey(name="alice", context="users.demo"))
        assert decision.verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT


async def test_an_allowed_client_is_asked_nothing(checking: CheckingFactory) -> None:
    zone = Zone(LISTED)
    lists = {"allowed": ["192.0.2.1/32"], "blocked": ["192.0.2.0/24"]}
    async with checking(zone, lists=lists, **DNSBL, **REVERSE) as manager:
        decision = await manager.ask()
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert not decision.require_auth
        assert decision.rule == "list"
    assert zone.questions == []


async def test_a_listed_client_may_not_connect_to_send_mail(checking: CheckingFactory) -> None:
    async with checking(Zone(LISTED), **DNSBL) as manager:
        decision = await manager.ask()
        assert decision.verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT
        assert decision.comment == "192.0.2.1 is listed by bad.test"
        assert decision.rule == "dnsbl"
        for service in (pb.SERVICE_POP3, pb.SERVICE_IMAP, pb.SERVICE_SUBMISSION):
            assert (await manager.ask(service=service)).verdict == pb.CONNECTION_VERDICT_ALLOWED


async def test_a_listed_client_may_log_in(checking: CheckingFactory) -> None:
    async with checking(Zone(LISTED), **DNSBL, **REVERSE) as manager:
        decision = await manager.ask(typed_name="alice")
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert not decision.require_auth


async def test_a_listed_client_with_a_login_may_connect(checking: CheckingFactory) -> None:
    zone = Zone(LISTED)
    async with checking(zone, **DNSBL, **REVERSE) as manager:
        await manager.server.client(Role.POP_IMAP).register_one(login())
        decision = await manager.ask()
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert not decision.require_auth
        assert zone.questions == []
        manager.server.clock.advance(900)
        assert (await manager.ask()).verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT


async def test_a_login_from_elsewhere_does_not_help_a_listed_client(
    checking: CheckingFactory,
) -> None:
    async with checking(Zone(LISTED), **DNSBL) as manager:
        elsewhere = login(address=ip_address("192.0.2.3").packed)
        await manager.server.client(Role.POP_IMAP).register_one(elsewhere)
        assert (await manager.ask()).verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT


@pytest.mark.parametrize(
    ("records", "required"), [(NAMED, False), ({}, True)], ids=["named", "nameless"]
)
async def test_a_client_without_a_reverse_name_must_authenticate(
    checking: CheckingFactory, records: dict[tuple[str, str], list[str]], required: bool
) -> None:
    async with checking(Zone(records), **REVERSE) as manager:
        decision = await manager.ask()
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert decision.require_auth is required
        assert decision.rule == ("reverse_dns" if required else "")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "fe80::1", "100.64.0.1"])
async def test_dns_is_not_asked_about_clients_that_are_not_on_the_internet(
    checking: CheckingFactory, address: str
) -> None:
    zone = Zone()
    async with checking(zone, **DNSBL, **REVERSE) as manager:
        decision = await manager.ask(address)
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert not decision.require_auth
    assert zone.questions == []


async def test_the_client_behind_a_translation_is_looked_up_by_its_ipv4_address(
    checking: CheckingFactory,
) -> None:
    async with checking(Zone(LISTED), **DNSBL) as manager:
        assert (await manager.ask("64:ff9b::192.0.2.1")).rule == "dnsbl"


async def test_dns_that_says_nothing_lets_everybody_in(checking: CheckingFactory) -> None:
    zone = Zone(silent=frozenset({"1.2.0.192.bad.test", "1.2.0.192.in-addr.arpa"}))
    settings = {
        "dnsbl": {"zones": [{"zone": "bad.test"}], "timeout": 0.2},
        "reverse_dns": {"enabled": True, "timeout": 0.2},
    }
    async with checking(zone, **settings) as manager:
        decision = await manager.ask()
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert not decision.require_auth


async def test_a_client_that_waits_for_dns_makes_no_other_wait(checking: CheckingFactory) -> None:
    zone = Zone(NAMED, silent=frozenset({f"{n}.2.0.192.in-addr.arpa" for n in range(2, 12)}))
    async with checking(zone, reverse_dns={"enabled": True, "timeout": 20}) as manager:
        client = manager.server.client(Role.SMTP)

        def check(number: int, **more: Any) -> pb.ConnectionCheck:
            octets = ip_address(f"192.0.2.{number}").packed
            return pb.ConnectionCheck(client_address=octets, **more)

        slow = [
            asyncio.create_task(client.check_connection(check(number))) for number in range(2, 12)
        ]
        while len(zone.questions) < 10:  # noqa: ASYNC110 - the DNS server tells nobody
            await asyncio.sleep(0.01)
        started = time.monotonic()
        assert not (await client.check_connection(check(1))).require_auth
        await client.check_connection(check(2, typed_name="alice"))
        assert time.monotonic() - started < 4
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_a_listed_client_may_be_one_of_ours_while_the_store_is_away(
    checking: CheckingFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with checking(Zone(LISTED), **DNSBL) as manager:

        async def unavailable(places: Sequence[bytes]) -> Any:
            raise StoreUnavailable

        monkeypatch.setattr(manager.server.store, "find", unavailable)
        assert (await manager.ask()).verdict == pb.CONNECTION_VERDICT_DENY_TEMPORARY
        assert (await manager.ask("192.0.2.9")).verdict == pb.CONNECTION_VERDICT_ALLOWED


class Guesses:
    """Judges by failed logins as it is told."""

    def __init__(self, verdict: ConnectionVerdict | None) -> None:
        self.verdict = verdict
        self.asked: list[ConnectionQuestion] = []

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        self.asked.extend(questions)
        if self.verdict is None:
            raise CountersUnavailable
        return [self.verdict] * len(questions)


async def test_failed_logins_speak_last(checking: CheckingFactory) -> None:
    guesses = Guesses(
        ConnectionVerdict(Verdict.DENY_TEMPORARY, "Later", deny_for=61.2, rule="guessing")
    )
    async with checking(Zone(LISTED), **DNSBL) as manager:
        manager.checker.guessing = guesses
        assert (await manager.ask()).rule == "dnsbl"
        decision = await manager.ask("192.0.2.9", typed_name="alice", listener="pop3")
        assert decision.verdict == pb.CONNECTION_VERDICT_DENY_TEMPORARY
        assert decision.comment == "Later"
        assert decision.deny_seconds == 61
        assert guesses.asked[-1].typed_name == "alice"
        assert guesses.asked[-1].listener == "pop3"


async def test_a_guesser_is_slowed_down(checking: CheckingFactory) -> None:
    async with checking() as manager:
        manager.checker.guessing = Guesses(ConnectionVerdict(delay=1.5, rule="guessing"))
        decision = await manager.ask(typed_name="alice")
        assert decision.verdict == pb.CONNECTION_VERDICT_ALLOWED
        assert decision.delay_ms == 1500


async def test_without_counters_nobody_is_denied_for_failed_logins(
    checking: CheckingFactory,
) -> None:
    async with checking() as manager:
        manager.checker.guessing = Guesses(None)
        assert (await manager.ask(typed_name="a")).verdict == pb.CONNECTION_VERDICT_ALLOWED


async def test_a_denied_connection_is_written_down_and_an_allowed_one_is_not(
    checking: CheckingFactory,
) -> None:
    async with checking(lists={"blocked": ["192.0.2.1/32"]}) as manager:
        with structlog.testing.capture_logs() as logs:
            await manager.ask(listener="mx", messaging_server="mail1")
            await manager.ask("192.0.2.2")
        (line,) = [entry for entry in logs if entry["event"].startswith("connection ")]
        assert line["event"] == "connection denied"
        assert line["address"] == CLIENT
        assert (line["rule"], line["listener"], line["server"]) == ("list", "mx", "mail1")


async def test_each_rule_is_asked_and_says_its_word_to_an_administrator(
    checking: CheckingFactory,
) -> None:
    zone = Zone({**LISTED, ("1.2.0.192.in-addr.arpa", "PTR"): ["a.test."]})
    lists = {"blocked": ["192.0.2.0/24"]}
    async with checking(zone, lists=lists, **DNSBL, **REVERSE) as manager:
        octets = ip_address(CLIENT).packed
        check = pb.ConnectionCheck(client_address=octets, service=pb.SERVICE_SMTP)
        # A blocked client's login vouches for nobody.
        await manager.server.client(Role.POP_IMAP).register_one(login())
        with structlog.testing.capture_logs() as logs:
            (decision,) = await manager.explain(check)
        assert logs == []
    assert decision.verdict == pb.CONNECTION_VERDICT_DENY_PERMANENT
    assert decision.rule == "list"
    assert decision.explanation == [
        "lists: blocked",
        "dnsbl bad.test: listed (127.0.0.2): may not connect",
        "reverse DNS: a.test does not resolve back",
        "failed logins: not counted",
    ]


async def test_only_administrators_are_told_why(server: Server) -> None:
    for call in (
        server.stub(Role.SMTP).CheckConnection(pb.CheckConnectionRequest(explain=True)),
        server.stub(Role.SMTP).CheckSender(pb.CheckSenderRequest(explain=True)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error_reason(caught.value) == "EXPLAIN_NOT_ALLOWED"


@pytest.mark.parametrize("length", [0, 3, 5, 17])
async def test_a_bad_address_is_an_error(server: Server, length: int) -> None:
    for explain in (True, False):
        request = pb.CheckConnectionRequest(
            items=[pb.ConnectionCheck(client_address=bytes(length))], explain=explain
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.stub(Role.ADMIN).CheckConnection(request)
        assert error_reason(caught.value) == "BAD_ADDRESS"


@pytest.mark.parametrize(("count", "explain"), [(1001, False), (11, True)])
async def test_too_many_items_are_an_error(server: Server, count: int, explain: bool) -> None:
    item = pb.ConnectionCheck(client_address=ip_address(CLIENT).packed)
    request = pb.CheckConnectionRequest(items=[item] * count, explain=explain)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.stub(Role.ADMIN).CheckConnection(request)
    assert error_reason(caught.value) == "TOO_MANY_ITEMS"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"lists": {"allowed": ["127.0.0.0/8"]}}, "lists.allowed: 127.0.0.0/8 overlaps"),
        ({"lists": {"allowed": ["100.64.0.1-100.64.0.9"]}}, "overlaps the shared network"),
        ({"dns_servers": ["dns.example:53"]}, "dns_servers"),
    ],
)
async def test_what_cannot_be_right_stops_the_start(
    server: Server, settings: dict[str, Any], word: str
) -> None:
    data = {"name": "main", "listen": ["127.0.0.1:0"], **settings}
    config = ConnectionManagerConfig.model_validate(data)
    rules = AddressRules.from_config(config)
    with pytest.raises(ConfigError, match=word):
        async with connection_rules(config, rules, server.store, server.service.desk):
            pass
