"""Postfix policy delegation: the answers, and a server by TCP and Unix socket."""

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import ConfigError, Installation
from netmail_common.connmgr.model import Binding, LoginProtocol, UserKey
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.app.front_ends import front_ends
from netmail_connmgr.domain.door import Candidate
from netmail_connmgr.domain.front_desk import RelayedMail
from netmail_connmgr.domain.policy_answers import OVER_RATE, PolicyAnswers, PolicySettings
from netmail_connmgr.domain.store import StoreUnavailable
from netmail_connmgr.domain.table import Found, TableLimits

from tests.connmgr.conftest import Clock
from tests.connmgr.front_ends import settings
from tests.connmgr.policy_requests import ADDRESS, MAP, one, request
from tests.loops import on_both_loops


@pytest.fixture
def desk() -> LocalDesk:
    return LocalDesk(
        MemoryStore(TableLimits(), clock=Clock()),
        NetworkMap(AddressRules()),
        max_users_per_network=8,
    )


async def log_in(desk: LocalDesk, name: str = "alice", address: bytes = ADDRESS) -> None:
    user = UserKey(name, "")
    await desk.register(
        [
            Candidate(
                user,
                address,
                LoginProtocol.AUTH_POLICY,
                addresses=MAP.addresses_of(user),
                domains=MAP.domains_of(user),
                session_id="a session",
            )
        ]
    )


async def ask(desk: LocalDesk, answers: PolicyAnswers, **attributes: str) -> str:
    asked = one(request(**attributes))
    action = answers.at_once(asked)
    if action is None:
        enquiry = answers.enquiry(asked, MAP)
        assert enquiry is not None
        (found,) = await desk.enquire([enquiry])
        action = answers.action(asked, found.decision)
    return action


def answering(settings: PolicySettings) -> PolicyAnswers:
    """Names of Postfix's SASL are users of no context."""
    return PolicyAnswers(settings, lambda name: UserKey(name, ""))


class TestAnswers:
    """The answers over a real table."""

    STRICT = PolicySettings(Binding.STRICT, unknown="REJECT log in first")

    async def test_a_known_sender_may_relay_and_a_stranger_not(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        assert await ask(desk, answers) == "REJECT log in first"
        await log_in(desk)
        assert await ask(desk, answers) == "OK"
        assert await ask(desk, answers, client_address="192.0.2.2") == "REJECT log in first"

    async def test_the_sender_must_be_the_users(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        await log_in(desk)
        assert await ask(desk, answers, sender="bob@example.org") == "REJECT log in first"
        await log_in(desk, "bob")
        assert await ask(desk, answers, sender="bob@example.org") == "OK"
        for sender in ("carol@example.org", "alice", "alice@", '"alice"@example.org', "\x7f@x"):
            assert await ask(desk, answers, sender=sender) == "REJECT log in first"

    async def test_the_null_sender_is_a_known_clients_too(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        assert await ask(desk, answers, sender="") == "REJECT log in first"
        await log_in(desk)
        assert await ask(desk, answers, sender="") == "OK"

    async def test_any_binds_nobody(self, desk: LocalDesk) -> None:
        answers = answering(PolicySettings(Binding.ANY))
        assert await ask(desk, answers, sender="x@elsewhere.example") == "DUNNO"
        await log_in(desk)
        assert await ask(desk, answers, sender="x@elsewhere.example") == "OK"

    async def test_data_gets_the_users_name(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        assert await ask(desk, answers, protocol_state="DATA") == "DUNNO"
        await log_in(desk)
        for state in ("DATA", "BDAT"):
            assert await ask(desk, answers, protocol_state=state) == "PREPEND X-Auth-OK: alice"
        await log_in(desk, "bob")
        named = await ask(desk, answers, protocol_state="DATA", sender="bob@example.org")
        assert named == "PREPEND X-Auth-OK: bob"

    async def test_the_secret_word_stands_before_the_name(self, desk: LocalDesk) -> None:
        answers = answering(PolicySettings(Binding.STRICT, trace_word="w" * 16))
        await log_in(desk)
        named = await ask(desk, answers, protocol_state="DATA")
        assert named == "PREPEND X-Auth-OK: wwwwwwwwwwwwwwww alice"

    async def test_who_was_let_in_is_named_though_he_is_logged_out_by_then(
        self, desk: LocalDesk
    ) -> None:
        answers = answering(self.STRICT)
        await log_in(desk)
        assert await ask(desk, answers) == "OK"
        await desk.log_out(UserKey("alice", ""), ADDRESS)
        assert await ask(desk, answers) == "REJECT log in first"
        assert await ask(desk, answers, protocol_state="DATA") == "PREPEND X-Auth-OK: alice"
        other = await ask(desk, answers, protocol_state="DATA", instance="1.2.3.4")
        assert other == "DUNNO"

    async def test_who_authenticated_to_postfix_is_named_by_that(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        assert await ask(desk, answers, sasl_username="carol") == "DUNNO"
        await log_in(desk)
        named = await ask(desk, answers, sasl_username="carol", protocol_state="DATA")
        assert named == "PREPEND X-Auth-OK: carol"

    async def test_names_beyond_ascii_are_encoded_words(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        named = await ask(desk, answers, sasl_username="jürgen", protocol_state="DATA")
        assert named == "PREPEND X-Auth-OK: =?utf-8?q?j=C3=BCrgen?="

    async def test_a_name_that_could_break_the_answer_is_left_out(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        for name in ("a\rX: y", "a\x00", "a\x1b[1m", "x" * 5000):
            assert await ask(desk, answers, sasl_username=name, protocol_state="DATA") == "DUNNO"

    @pytest.mark.parametrize(
        "state", ["CONNECT", "EHLO", "MAIL", "END-OF-MESSAGE", "VRFY", "", "X"]
    )
    async def test_other_states_get_nothing(self, desk: LocalDesk, state: str) -> None:
        await log_in(desk)
        assert await ask(desk, answering(self.STRICT), protocol_state=state) == "DUNNO"

    async def test_a_client_without_an_address_is_a_stranger(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        assert await ask(desk, answers, client_address="unknown") == "REJECT log in first"
        assert await ask(desk, answers, client_address="", protocol_state="DATA") == "DUNNO"


class TestCounting:
    """What counts for whose rates."""

    STRICT = PolicySettings(Binding.STRICT)

    async def mail(
        self, desk: LocalDesk, answers: PolicyAnswers, *, over: bool = False, **attributes: Any
    ) -> tuple[RelayedMail | None, str]:
        """What is to be counted, and the action when that is within the rates or not."""
        asked = one(request(**attributes))
        enquiry = answers.enquiry(asked, MAP)
        decision = (await desk.enquire([enquiry]))[0].decision if enquiry is not None else None
        mail = answers.mail(asked, decision)
        return mail, answers.action(asked, decision, within_rate=not over)

    async def test_recipients_of_a_known_sender_count_one_by_one(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        await log_in(desk)
        first, action = await self.mail(desk, answers)
        assert action == "OK"
        assert first == RelayedMail(
            ADDRESS, UserKey("alice", ""), False, 1, 1, "a session", "Postfix relay"
        )
        second, _ = await self.mail(desk, answers, recipient="mallory@example.net")
        assert second == first._replace(messages=0)
        other, _ = await self.mail(desk, answers, instance="another")
        assert other == first

    async def test_a_refused_recipient_is_no_message_yet(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        await log_in(desk)
        mail, action = await self.mail(desk, answers, over=True)
        assert action == OVER_RATE
        again, action = await self.mail(desk, answers)
        assert action == "OK"
        assert again == mail

    async def test_who_is_not_known_by_a_login_has_no_rate(self, desk: LocalDesk) -> None:
        answers = answering(PolicySettings(Binding.ANY))
        assert await self.mail(desk, answers) == (None, "DUNNO")
        desk.networks = NetworkMap(AddressRules(allowed_networks=(ip_network("192.0.2.0/24"),)))
        assert await self.mail(desk, answers) == (None, "OK")
        desk.networks = NetworkMap(AddressRules())
        nobody = Candidate(UserKey("", ""), ADDRESS, LoginProtocol.LEGACY_UDP)
        await desk.register([nobody])
        assert await self.mail(desk, answers) == (None, "OK")

    async def test_the_trace_counts_nothing(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        await log_in(desk)
        mail, action = await self.mail(desk, answers, protocol_state="DATA")
        assert (mail, action) == (None, "PREPEND X-Auth-OK: alice")

    async def test_mail_after_smtp_auth_counts_once_it_is_there(self, desk: LocalDesk) -> None:
        answers = answering(self.STRICT)
        end: dict[str, Any] = {"protocol_state": "END-OF-MESSAGE", "recipient_count": "7"}
        asked = one(request(**end, sasl_username="bob"))
        assert answers.at_once(asked) is None
        mail, action = await self.mail(desk, answers, **end, sasl_username="bob")
        assert mail == RelayedMail(ADDRESS, UserKey("bob", ""), True, 7, 1, "", "Postfix mail")
        assert action == "DUNNO"
        _, action = await self.mail(desk, answers, over=True, **end, sasl_username="bob")
        assert action == OVER_RATE

    @pytest.mark.parametrize(
        "attributes", [{}, {"sasl_username": "bob", "client_address": "unknown"}]
    )
    async def test_other_messages_are_nobodys_business(self, attributes: dict[str, str]) -> None:
        asked = one(request(protocol_state="END-OF-MESSAGE", recipient_count="7", **attributes))
        assert answering(self.STRICT).at_once(asked) == "DUNNO"

    @pytest.mark.parametrize(
        ("text", "number"), [("7", 7), ("", 0), ("-1", 0), ("1e9", 0), ("9" * 8, 0), ("\u0663", 0)]
    )
    def test_a_number_of_recipients_is_a_number(self, text: str, number: int) -> None:
        assert one(request(recipient_count=text)).recipients == number


class LostStore(MemoryStore):
    """A store behind a cable that can be cut."""

    cut = False

    async def find(self, places: Sequence[bytes]) -> Sequence[Found]:
        if self.cut:
            raise StoreUnavailable
        return await super().find(places)


@contextlib.asynccontextmanager
async def serving(
    installation: Installation, store: MemoryStore | None = None
) -> AsyncIterator[tuple[LocalDesk, Sequence[int]]]:
    """The front end over a table of its own, and its ports."""
    rules = AddressRules(loopback_grants=True)
    desk = LocalDesk(
        store or MemoryStore(TableLimits(), clock=Clock()),
        NetworkMap(rules),
        max_users_per_network=8,
    )
    setup = FrontEndSetup(installation, "cm1", rules, desk)
    async with front_ends(setup) as opened:
        yield desk, opened.ports["postfix_policy"]


@pytest.fixture
def policy(certificates: Path, tmp_path: Path) -> Any:
    """The installation with these settings of the front end."""
    addresses = tmp_path / "addresses"
    addresses.write_text("alice@example.org alice\n")

    def make(**policy: Any) -> Installation:
        known = {"listen": ["127.0.0.1:0"], "allowed_sources": ["127.0.0.0/8"], **policy}
        return settings(certificates, address_map={"file": str(addresses)}, postfix_policy=known)

    return make


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octets: bytes) -> bytes:
    writer.write(octets)
    async with asyncio.timeout(20):
        return await reader.readuntil(b"\n\n")


async def connect(
    port: int,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection ends; a reset is an end."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
        return b""


class TestServer:
    @on_both_loops
    async def test_it_answers_on_kept_connections(self, policy: Any) -> None:
        async with serving(policy()) as (desk, (port,)):
            reader, writer = await connect(port)
            assert await talk(reader, writer, request()) == b"action=DUNNO\n\n"
            await log_in(desk)
            assert await talk(reader, writer, request()) == b"action=OK\n\n"
            data = request(protocol_state="DATA")
            assert await talk(reader, writer, data) == b"action=PREPEND X-Auth-OK: alice\n\n"
            writer.close()

    @on_both_loops
    async def test_pipelined_requests_are_answered_in_order(self, policy: Any) -> None:
        async with serving(policy()) as (desk, (port,)):
            await log_in(desk)
            reader, writer = await connect(port)
            kinds = [request(), request(protocol_state="VRFY"), request(sender="x@y.example")]
            writer.write(b"".join(kinds * 500))
            for _ in range(500):
                for expected in (b"OK", b"DUNNO", b"DUNNO"):
                    assert await talk(reader, writer, b"") == b"action=" + expected + b"\n\n"
            writer.close()

    @on_both_loops
    async def test_a_client_that_never_reads_makes_nothing_grow(self, policy: Any) -> None:
        async with serving(policy()) as (_, (port,)):
            greedy = await self._greedy(port)
            reader, writer = await connect(port)
            assert await talk(reader, writer, request()) == b"action=DUNNO\n\n"
            greedy.transport.abort()
            writer.close()

    @on_both_loops
    async def test_a_client_that_never_reads_is_hung_up_on_in_the_end(self, policy: Any) -> None:
        async with serving(policy()) as (_, (port,)):
            greedy = await self._greedy(port)

        async def go_on() -> None:
            with contextlib.suppress(ConnectionError):
                while not greedy.is_closing():
                    greedy.write(b"\n")
                    await greedy.drain()

        await asyncio.wait_for(go_on(), 10)
        greedy.transport.abort()

    async def _greedy(self, port: int) -> asyncio.StreamWriter:
        """A client that has asked until nothing more was taken from it."""
        _, writer = await connect(port)
        block = request(protocol_state="VRFY") * 100
        with contextlib.suppress(TimeoutError):
            while True:
                writer.write(block)
                async with asyncio.timeout(0.5):
                    await writer.drain()
        return writer

    @on_both_loops
    async def test_garbage_ends_the_connection_after_the_answers_that_are_due(
        self, policy: Any
    ) -> None:
        async with serving(policy()) as (_, (port,)):
            reader, writer = await connect(port)
            writer.write(request() + b"GET / HTTP/1.0\n\n" + request())
            assert await rest_of(reader) == b"action=DUNNO\n\n"
            writer.close()

    @on_both_loops
    async def test_a_cut_store_lets_nobody_relay_and_holds_up_no_header(self, policy: Any) -> None:
        store = LostStore(TableLimits(), clock=Clock())
        async with serving(policy(), store) as (desk, (port,)):
            await log_in(desk)
            store.cut = True
            reader, writer = await connect(port)
            assert (await talk(reader, writer, request())).startswith(b"action=DEFER_IF_PERMIT 4.7")
            data = request(protocol_state="DATA")
            assert await talk(reader, writer, data) == b"action=DUNNO\n\n"
            store.cut = False
            assert await talk(reader, writer, request()) == b"action=OK\n\n"
            writer.close()

    @on_both_loops
    async def test_other_sources_get_silence(self, policy: Any) -> None:
        installation = policy(listen=["127.0.0.1:0"], allowed_sources=["127.0.0.9/32"])
        async with serving(installation) as (_, (port,)):
            reader, writer = await connect(port)
            writer.write(request())
            assert await rest_of(reader) == b""
            writer.close()
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=("127.0.0.9", 0)
            )
            assert await talk(reader, writer, request()) == b"action=DUNNO\n\n"
            writer.close()

    @on_both_loops
    async def test_connections_beyond_the_limit_are_hung_up_on(self, policy: Any) -> None:
        async with serving(policy(max_connections=1)) as (_, (port,)):
            reader, writer = await connect(port)
            assert await talk(reader, writer, request()) == b"action=DUNNO\n\n"
            late, other = await connect(port)
            assert await rest_of(late) == b""
            other.close()
            writer.close()
            async with asyncio.timeout(20):
                while True:  # until the server has seen the first one's end
                    reader, writer = await connect(port)
                    writer.write(request())
                    if await reader.read(1):
                        break
                    writer.close()
            writer.close()

    @on_both_loops
    async def test_a_silent_connection_is_closed(self, policy: Any) -> None:
        async with serving(policy(idle_timeout=1)) as (_, (port,)):
            reader, writer = await connect(port)
            assert await rest_of(reader) == b""
            writer.close()

    @on_both_loops
    async def test_a_unix_socket_is_its_owners_and_groups_and_replaces_a_dead_one(
        self, policy: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "policy"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        async with serving(policy(listen=[], allowed_sources=[], socket=str(path))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            reader, writer = await asyncio.open_unix_connection(str(path))
            assert await talk(reader, writer, request()) == b"action=DUNNO\n\n"
            writer.close()
        assert not path.exists()

    @on_both_loops
    async def test_a_file_in_the_place_of_the_socket_stays(
        self, policy: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "policy"
        path.write_text("precious")
        with pytest.raises(OSError, match="cannot listen on"):
            async with serving(policy(listen=[], socket=str(path))):
                pass
        assert path.read_text() == "precious"


@pytest.mark.parametrize("word", [None, "short", "two words of sixteen", "ümlauts-are-no-word"])
async def test_a_bad_word_stops_the_start(policy: Any, tmp_path: Path, word: str | None) -> None:
    path = tmp_path / "word"
    if word is not None:
        path.write_text(word)
    with pytest.raises(ConfigError, match="trace_word_file"):
        async with serving(policy(trace_word_file=str(path))):
            pass


async def test_sources_may_be_no_shared_network(policy: Any) -> None:
    with pytest.raises(ConfigError, match=r"100\.64\.0\.0/10"):
        async with serving(policy(allowed_sources=["100.64.1.0/24"])):
            pass
