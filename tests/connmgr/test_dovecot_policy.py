"""Dovecot's authentication policy: the requests, and a server by HTTP."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netmail_common.certificates import LocalAuthority
from netmail_common.config import ConfigError, Installation
from netmail_common.connmgr.model import (
    Binding,
    Decision,
    LoginProtocol,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters import dovecot_policy
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.app.front_ends import front_ends
from netmail_connmgr.domain.connections import (
    ConnectionQuestion,
    ConnectionVerdict,
    Service,
    Verdict,
)
from netmail_connmgr.domain.front_desk import Enquiry
from netmail_connmgr.domain.store import StoreUnavailable
from netmail_connmgr.domain.table import TableLimits
from netmail_connmgr.protocol.dovecot_policy import (
    MAX_BODY,
    BadPolicyEvent,
    Command,
    PolicyEvent,
    parse_command,
    parse_form,
    parse_json,
    reply,
)

from tests.connmgr.conftest import Clock
from tests.connmgr.front_ends import settings as one_manager
from tests.loops import on_both_loops

ADDRESS = b"\xc0\x00\x02\x01"
KEY = "correct-horse-battery"
ALICE = {
    "device_id": "",
    "login": "alice",
    "protocol": "imap",
    "pwhash": "0f3a",
    "remote": "192.0.2.1",
    "session_id": "6dNjz0sN5MwKAAAB",
    "tls": True,
}
SUCCESS = {**ALICE, "success": True, "policy_reject": False}
FAILURE = {**ALICE, "success": False, "policy_reject": False}


class TestReading:
    def test_what_dovecot_reports(self) -> None:
        assert parse_json(json.dumps(SUCCESS).encode()) == PolicyEvent(
            login="alice",
            client_address=ADDRESS,
            protocol="imap",
            session="6dNjz0sN5MwKAAAB",
            success=True,
        )

    def test_a_form_says_the_same(self) -> None:
        form = b"login=alice&remote=192.0.2.1&protocol=imap&session=s&success=true"
        assert parse_form(form) == PolicyEvent("alice", ADDRESS, "imap", "s", success=True)
        assert parse_form(b"login=a%26b%3D%22&remote=::1&protocol=").login == 'a&b="'

    @pytest.mark.parametrize(
        ("change", "vouches"),
        [
            ({}, True),
            ({"protocol": "pop3"}, True),
            ({"protocol": "IMAP"}, True),
            ({"protocol": "smtp"}, False),
            ({"protocol": "submission"}, False),
            ({"protocol": "sieve"}, False),
            ({"protocol": "doveadm"}, False),
            ({"protocol": ""}, False),
            ({"protocol": "imap "}, False),
            ({"success": False}, False),
            ({"success": "true"}, False),
            ({"success": 1}, False),
            ({"success": None}, False),
            ({"remote": ""}, False),
            ({"remote": "localhost"}, False),
            ({"remote": "192.0.2.01"}, False),
            ({"remote": "0xc0.0.2.1"}, False),
            ({"remote": "192.0.2.1, 203.0.113.9"}, False),
            ({"remote": " 192.0.2.1"}, False),
            ({"remote": "١٩٢.0.2.1"}, False),
            ({"remote": "2001:db8::1"}, True),
            ({"login": ""}, False),
        ],
    )
    def test_only_a_successful_pop3_or_imap_login_with_an_address_vouches(
        self, change: Mapping[str, Any], vouches: bool
    ) -> None:
        assert parse_json(json.dumps({**SUCCESS, **change}).encode()).vouches is vouches

    @pytest.mark.parametrize("missing", ["login", "remote", "protocol", "success"])
    def test_a_report_that_lacks_something_vouches_for_nothing(self, missing: str) -> None:
        event = {name: value for name, value in SUCCESS.items() if name != missing}
        assert not parse_json(json.dumps(event).encode()).vouches

    def test_what_a_policy_refused_was_no_guess(self) -> None:
        assert parse_json(json.dumps(FAILURE).encode()).guessed
        assert not parse_json(json.dumps({**FAILURE, "policy_reject": True}).encode()).guessed
        assert not parse_json(json.dumps({**FAILURE, "remote": ""}).encode()).guessed
        assert not parse_json(json.dumps(SUCCESS).encode()).guessed

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"alice",
            b"[]",
            b"null",
            b'"alice"',
            b"{",
            b'{"login":1}',
            b'{"login":null}',
            b'{"login":["alice"]}',
            b'{"login":"alice","login":"bob"}',
            b'{"login":"\\ud800"}',
            b'{"x":NaN}',
            b'{"x":1e999}x',
            b"\xff\xfe",
            b'{"login":"' + b"a" * 1025 + b'"}',
            b"[" * 10_000,
            b'{"a":' * 5_000,
            b"1" * 10_000,
        ],
    )
    def test_what_is_no_event_is_refused(self, body: bytes) -> None:
        with pytest.raises(BadPolicyEvent):
            parse_json(body)

    @pytest.mark.parametrize(
        "body",
        [b"login", b"login=a&login=b", b"login=%ff", b"\xff=1", b"&".join([b"a=1"] * 101)],
    )
    def test_what_is_no_form_is_refused(self, body: bytes) -> None:
        with pytest.raises(BadPolicyEvent):
            parse_form(body)

    def test_commands(self) -> None:
        assert parse_command("allow") is Command.ALLOW
        assert parse_command("report") is Command.REPORT
        for text in (None, "", "ALLOW", "allow "):
            with pytest.raises(BadPolicyEvent):
                parse_command(text)

    def test_a_refusal_says_nothing_more(self) -> None:
        assert json.loads(reply(-1)) == {"status": -1, "msg": ""}

    @settings(max_examples=50)
    @given(st.dictionaries(st.text(), st.text() | st.booleans() | st.none() | st.integers()))
    def test_any_object_is_an_event_or_refused(self, data: dict[str, Any]) -> None:
        with contextlib.suppress(BadPolicyEvent):
            event = parse_json(json.dumps(data).encode())
            assert event.vouches <= (data.get("success") is True)


class Rule:
    """A rule about connections that says what it is told to, and remembers whom it judged."""

    every_connection = False

    def __init__(self) -> None:
        self.verdict = ConnectionVerdict()
        self.asked: list[ConnectionQuestion] = []

    async def check(self, questions: Sequence[ConnectionQuestion]) -> Sequence[ConnectionVerdict]:
        self.asked.extend(questions)
        return [self.verdict] * len(questions)

    async def explain(self, question: ConnectionQuestion) -> tuple[ConnectionVerdict, list[str]]:
        (verdict,) = await self.check([question])
        return verdict, []


class CountingDesk(LocalDesk):
    """The desk with a rule about connections, and a memory of failed logins."""

    def __init__(self) -> None:
        self.rule = Rule()
        super().__init__(
            MemoryStore(TableLimits(), clock=Clock()),
            NetworkMap(AddressRules(loopback_grants=True)),
            max_users_per_network=8,
            connections=self.rule,
            count_failure=self.failed,
        )
        self.failures: list[ConnectionQuestion] = []

    async def failed(self, question: ConnectionQuestion) -> None:
        self.failures.append(question)

    async def decision(self) -> SenderDecision:
        """What the table says about the client."""
        (answer,) = await self.enquire(
            [Enquiry(ADDRESS, SenderQuestion((), Binding.ANY), "a test")]
        )
        return answer.decision

    async def knows(self) -> bool:
        return (await self.decision()).decision is Decision.ALLOWED


@pytest.fixture
def policy(certificates: Path, tmp_path: Path) -> Any:
    """The installation with these settings of the front end."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "addresses").write_text("sales@example.org alice@users.demo\n")

    def make(**policy: Any) -> Installation:
        known = {"listen": ["127.0.0.1:0"], "api_key_file": str(tmp_path / "key"), **policy}
        return one_manager(
            certificates,
            address_map={"file": str(tmp_path / "addresses"), "domains": ["example.net"]},
            dovecot_policy=known,
        )

    return make


@contextlib.asynccontextmanager
async def serving(installation: Installation) -> AsyncIterator[tuple[CountingDesk, Sequence[int]]]:
    desk = CountingDesk()
    setup = FrontEndSetup(installation, "cm1", desk.networks.rules, desk)
    async with front_ends(setup) as opened:
        yield desk, opened.ports["dovecot_policy"]


Answer = tuple[int, bytes]


async def post(
    url: str,
    event: Mapping[str, Any] | bytes,
    *,
    command: str = "report",
    key: str | None = KEY,
    **more: Any,
) -> Answer:
    """Status and body of the answer."""
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    headers = {"Content-Type": "application/json", **({} if key is None else {"X-API-Key": key})}
    async with (
        aiohttp.ClientSession(connector=more.pop("connector", None)) as session,
        session.post(f"{url}/?command={command}", data=body, headers=headers, **more) as response,
    ):
        return response.status, await response.read()


def local(ports: Sequence[int]) -> str:
    return f"http://127.0.0.1:{ports[0]}"


class TestServer:
    @on_both_loops
    async def test_a_reported_login_is_in_the_table_with_the_users_addresses(
        self, policy: Any
    ) -> None:
        async with serving(policy()) as (desk, ports):
            assert not await desk.knows()
            assert await post(local(ports), SUCCESS) == (200, b'{"status":0,"msg":""}')
            login = (await desk.decision()).login
            assert login is not None
            assert login.user == UserKey("alice", "users.demo")
            assert login.protocol is LoginProtocol.AUTH_POLICY
            assert set(login.profile.addresses) == {"sales@example.org", "alice@example.net"}
            assert login.profile.domains == {"example.org", "example.net"}
            assert login.messaging_server == "mail1"

    @pytest.mark.parametrize(
        "event",
        [
            FAILURE,
            {**SUCCESS, "protocol": "smtp"},
            {**SUCCESS, "remote": ""},
            {**SUCCESS, "login": "a\nb"},
            {**SUCCESS, "login": "x" * 256},
        ],
    )
    @on_both_loops
    async def test_other_reports_register_nobody(
        self, policy: Any, event: Mapping[str, Any]
    ) -> None:
        async with serving(policy()) as (desk, ports):
            assert (await post(local(ports), event))[0] == 200
            assert not await desk.knows()

    @on_both_loops
    async def test_asking_registers_nobody_whatever_it_says(self, policy: Any) -> None:
        async with serving(policy()) as (desk, ports):
            assert (await post(local(ports), SUCCESS, command="allow"))[0] == 200
            assert not await desk.knows()

    @on_both_loops
    async def test_failures_are_counted_and_refusals_of_policy_not(self, policy: Any) -> None:
        async with serving(policy()) as (desk, ports):
            await post(local(ports), FAILURE)
            await post(local(ports), {**FAILURE, "policy_reject": True})
            (failure,) = desk.failures
            assert failure.client_address == ADDRESS
            assert failure.service is Service.IMAP
            assert failure.user == UserKey("alice", "users.demo")

    @pytest.mark.parametrize(
        ("verdict", "status"),
        [
            (ConnectionVerdict(), 0),
            (ConnectionVerdict(delay=1.2), 2),
            (ConnectionVerdict(Verdict.DENY_TEMPORARY, comment="too many", deny_for=60), -1),
            (ConnectionVerdict(Verdict.DENY_PERMANENT), -1),
        ],
    )
    @on_both_loops
    async def test_whether_a_login_may_be_tried(
        self, policy: Any, verdict: ConnectionVerdict, status: int
    ) -> None:
        async with serving(policy()) as (desk, ports):
            desk.rule.verdict = verdict
            code, body = await post(local(ports), ALICE, command="allow")
            assert (code, json.loads(body)) == (200, {"status": status, "msg": ""})
            assert desk.rule.asked[0].user == UserKey("alice", "users.demo")

    @on_both_loops
    async def test_without_an_address_there_is_nothing_to_judge(self, policy: Any) -> None:
        async with serving(policy()) as (desk, ports):
            desk.rule.verdict = ConnectionVerdict(Verdict.DENY_PERMANENT)
            answer = await post(local(ports), {**ALICE, "remote": ""}, command="allow")
            assert answer == (200, b'{"status":0,"msg":""}')

    @pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "x", "ä" * 21])
    @on_both_loops
    async def test_without_the_key_nothing_happens(self, policy: Any, key: str | None) -> None:
        async with serving(policy()) as (desk, ports):
            for command in ("report", "allow"):
                assert await post(local(ports), SUCCESS, command=command, key=key) == (403, b"")
            assert not await desk.knows()
            assert desk.rule.asked == []

    @on_both_loops
    async def test_what_is_malformed_gets_a_bare_status(self, policy: Any) -> None:
        async with serving(policy()) as (desk, ports):
            url = local(ports)
            assert await post(url, b"{") == (400, b"")
            assert await post(url, SUCCESS, command="sell") == (400, b"")
            assert await post(url, b"x" * (MAX_BODY + 1)) == (400, b"")
            async with (
                aiohttp.ClientSession(headers={"X-API-Key": KEY}) as session,
                session.get(f"{url}/?command=report") as response,
            ):
                assert (response.status, await response.read()) == (405, b"")
            assert not await desk.knows()

    @on_both_loops
    async def test_what_is_no_http_learns_nothing(
        self, policy: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(policy()) as (_, ports):
            for octets in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET /\x00 HTTP/9\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
                writer.write(octets)
                async with asyncio.timeout(20):
                    answer = await reader.read()
                status, _, body = answer.partition(b"\r\n\r\n")
                assert status.split(b" ")[1] == b"400"
                assert body == b""
                writer.close()
            assert not [record for record in caplog.records if record.exc_info]

    @on_both_loops
    async def test_a_connection_that_asks_nothing_in_time_is_closed(
        self, policy: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dovecot_policy, "_FIRST_REQUEST", 0.2)
        async with serving(policy()) as (_, ports):
            reader, writer = await asyncio.open_connection("127.0.0.1", ports[0])
            writer.write(b"POST /?command=report HTTP/1.1\r\nHost:")
            async with asyncio.timeout(20):
                assert await reader.read() == b""
            writer.close()

    @on_both_loops
    async def test_when_the_store_is_away_dovecot_decides(
        self, policy: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def lost(*_: object) -> None:
            raise StoreUnavailable

        monkeypatch.setattr(MemoryStore, "register", lost)
        async with serving(policy()) as (_, ports):
            assert await post(local(ports), SUCCESS) == (503, b"")

    @on_both_loops
    async def test_a_script_reports_by_unix_socket_and_form(
        self, policy: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "socket"
        installation = policy(socket=str(path))
        async with serving(installation) as (desk, _):
            form = {"login": "alice", "remote": "192.0.2.1", "protocol": "imap", "success": "true"}
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
                session.post("http://netmail/?command=report", data=form) as response,
            ):
                assert response.status == 200
            assert await desk.knows()

    @on_both_loops
    async def test_beyond_loopback_it_speaks_tls_to_allowed_sources_only(
        self, policy: Any, authority: LocalAuthority, tmp_path: Path
    ) -> None:
        certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
        authority.issue_server("cm.example.org", certificate, key)
        ca = tmp_path / "ca.pem"
        ca.write_bytes(authority.certificate_pem)
        trust = ssl.create_default_context(cafile=str(ca))
        installation = policy(
            listen=["127.0.0.1:0"],
            allowed_sources=["127.0.0.9/32"],
            tls_certificate=str(certificate),
            tls_key=str(key),
        )
        # Every address of a test is a loopback address: the listener is told that this is none.
        manager = installation.connection_managers[0]
        far = manager.dovecot_policy.model_copy(update={"listen": ["0.0.0.0:0"]})
        manager = manager.model_copy(update={"dovecot_policy": far})
        installation = installation.model_copy(update={"connection_managers": [manager]})
        async with serving(installation) as (desk, (port,)):
            url = f"https://127.0.0.1:{port}"
            near = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0))
            assert (await post(url, SUCCESS, ssl=trust, connector=near))[0] == 200
            assert await desk.knows()
            with pytest.raises(aiohttp.ClientError):
                await post(url, SUCCESS, ssl=trust)
            plain = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0))
            with pytest.raises(aiohttp.ClientError):
                await post(f"http://127.0.0.1:{port}", SUCCESS, connector=plain)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"api_key_file": None}, "needs dovecot_policy.api_key_file"),
        ({"api_key_file": "/nonexistent"}, "/nonexistent"),
        ({"allowed_sources": ["100.64.0.0/16"]}, "100.64"),
    ],
)
async def test_what_would_let_strangers_in_stops_the_start(
    policy: Any, change: dict[str, Any], error: str
) -> None:
    with pytest.raises(ConfigError, match=error.replace(".", r"\.")):
        async with serving(policy(**change)):
            pass


async def test_a_short_key_stops_the_start(policy: Any, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret")
    with pytest.raises(ConfigError, match="shorter than 16"):
        async with serving(policy(api_key_file=str(tmp_path / "short"))):
            pass


async def test_an_address_that_is_not_loopback_needs_a_certificate(policy: Any) -> None:
    installation = policy()
    manager = installation.connection_managers[0]
    far = manager.dovecot_policy.model_copy(update={"listen": ["192.0.2.9:0"]})
    manager = manager.model_copy(update={"dovecot_policy": far})
    installation = installation.model_copy(update={"connection_managers": [manager]})
    with pytest.raises(ConfigError, match="needs tls_certificate"):
        async with serving(installation):
            pass
