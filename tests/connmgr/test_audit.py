"""The audit log: what it says, where it stands, what can be asked of it."""

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.config import ConfigError
from netmail_common.connmgr.model import UserKey
from netmail_common.grpc_errors import error_reason
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.adapters.audit_log import AuditLog
from netmail_connmgr.app.manager import Running, connection_manager
from netmail_connmgr.domain.audit import (
    AuditEntry,
    AuditFormat,
    AuditKind,
    AuditQuestion,
    Repeats,
)

from tests.connmgr.conftest import IdentityFor, check, login
from tests.connmgr.front_ends import grpc_client, settings
from tests.connmgr.one_manager import channel_to

ALICE, BOB = UserKey("alice", "users.demo"), UserKey("bob", "users.demo")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
V4, OTHER = b"\xcb\x00\x71\x01", b"\xcb\x00\x71\x02"


def form(key: bytes | None = None) -> AuditFormat:
    networks = NetworkMap(AddressRules())
    return AuditFormat(lambda: networks, key)


def entry(user: UserKey | None = ALICE, address: bytes = V4, **details: Any) -> AuditEntry:
    return AuditEntry(AuditKind.LOGIN, "login registered", user, address, details=details)


class Wall:
    """A wall clock that stands until it is moved."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_an_entry_is_one_line_of_json_whatever_is_in_it() -> None:
    assert (
        form()
        .line(entry(sender="\udc80@example.org"), NOON)
        .endswith(b'"sender":"?@example.org"}\n')
    )
    odd = entry(UserKey("z\u00f6e\n", ""), reason='"\r\n\u2028', empty="", zero=0)
    line = form().line(odd, NOON + 0.25)
    assert line.endswith(b"\n")
    assert not set(line[:-1]) & set(b"\r\n")
    assert json.loads(line) == {
        "time": "2026-11-25T12:00:00.250Z",
        "kind": "login",
        "event": "login registered",
        "user": "z\u00f6e\n",
        "context": "",
        "address": "203.0.113.1",
        "network": "203.0.113.1/32",
        "reason": '"\r\n\u2028',
        "zero": 0,
    }


def test_a_pseudonym_is_the_same_for_the_same_address_and_key_only() -> None:
    def words(key: bytes, address: str) -> tuple[str, str]:
        octets = ipaddress.ip_address(address).packed
        record = json.loads(form(key).line(entry(address=octets), NOON))
        return record["address"], record["network"]

    one, other = b"k" * 32, b"K" * 32
    first = words(one, "2001:db8::1")
    assert first == words(one, "2001:db8::1")
    neighbour = words(one, "2001:db8::2")
    assert (neighbour[0] != first[0], neighbour[1] == first[1]) == (True, True)
    assert not set(words(other, "2001:db8::1")) & set(first)
    assert words(one, "203.0.113.1")[1] == words(one, "::ffff:203.0.113.1")[1]
    assert b"2001" not in form(one).line(entry(address=bytes(16)), NOON).partition(b'"address"')[2]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        (AuditQuestion(ALICE), True),
        (AuditQuestion(UserKey("alice", "users.other")), False),
        (AuditQuestion(UserKey("lice", "users.demo")), False),
        (AuditQuestion(network="203.0.113.1/32"), True),
        (AuditQuestion(network="203.0.113.1/3"), False),
        (AuditQuestion(ALICE, "203.0.113.1/32"), True),
        (AuditQuestion(BOB, "203.0.113.1/32"), False),
        (AuditQuestion(ALICE, since=NOON), True),
        (AuditQuestion(ALICE, since=NOON + 0.01), False),
    ],
)
def test_a_record_is_found_by_its_user_its_network_and_its_time(
    question: AuditQuestion, found: bool
) -> None:
    line = form().line(entry(sender="203.0.113.1/3"), NOON)
    assert (question.matching(line) is not None) is found


def test_everybody_who_was_logged_in_there_is_found() -> None:
    line = form().line(
        AuditEntry(AuditKind.RELAY, "relaying allowed", ALICE, V4, (ALICE, BOB)), NOON
    )
    assert AuditQuestion(BOB).matching(line) is not None
    assert AuditQuestion(UserKey("carol", "users.demo")).matching(line) is None


@given(
    st.builds(UserKey, st.text(max_size=20), st.text(max_size=20)),
    st.ip_addresses(),
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=20), max_size=3),
    st.sampled_from([None, b"k" * 32]),
)
def test_whatever_is_written_is_found_again(
    user: UserKey,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    details: dict[str, str],
    key: bytes | None,
) -> None:
    ours = {"time", "kind", "event", "user", "context", "users", "address", "network"}
    details = {name: text for name, text in details.items() if name not in ours}
    writer = form(key)
    line = writer.line(
        AuditEntry(AuditKind.LOGIN, "x", user, address.packed, (user, BOB), details), NOON
    )
    assert line.count(b"\n") == 1
    for who in (user, BOB):
        question = AuditQuestion(who, writer.network(address.packed))
        assert question.matching(line) is not None
        assert all(needle in line for needle in question.needles())


@pytest.mark.parametrize("line", [b"", b"\n", b"half a li", b"[]", b"{}", b'{"time":1}', b"\xff"])
def test_a_line_that_is_no_record_is_never_found(line: bytes) -> None:
    assert AuditQuestion(ALICE).matching(line) is None


def test_what_is_repeated_is_written_once_a_minute_with_the_number_of_the_others() -> None:
    repeats = Repeats(window=60.0, most=2)
    assert repeats.admit("a", 0.0) == 0
    assert repeats.admit("a", 1.0) is None
    assert repeats.admit("a", 59.9) is None
    assert repeats.admit("b", 59.9) == 0
    assert repeats.admit("a", 60.0) == 2
    assert repeats.admit("c", 61.0) == 0  # b, the oldest, is forgotten
    assert repeats.admit("b", 62.0) == 0


# The files


async def lines_of(log: AuditLog, question: AuditQuestion, limit: int = 0) -> list[str]:
    return [line async for page in log.read(question, limit) for _, line in page]


async def test_days_have_files_of_their_own_and_old_ones_go(tmp_path: Path) -> None:
    wall = Wall()
    log = AuditLog(tmp_path, "cm 1/a", retention=2 * DAY, wall=wall)
    (tmp_path / "cm 1%2Fa.2020-01-01.jsonl").write_text("not ours: the name is spelled otherwise")
    (tmp_path / "cm%201%2Fa.2020-99-01.jsonl").write_text("not a day")
    written = []
    for day in range(4):
        wall.now = NOON + day * DAY
        written.append(form().line(entry(day=day), wall.now))
        log.write(written[-1])
        await log.flush()
    found = await lines_of(log, AuditQuestion(ALICE))
    assert found == [line.decode().rstrip("\n") for line in written]
    assert len(await lines_of(log, AuditQuestion(ALICE, since=NOON + 2 * DAY))) == 2
    assert await lines_of(log, AuditQuestion(ALICE), 1) == found[-1:]
    assert await lines_of(log, AuditQuestion(BOB)) == []

    runner = asyncio.create_task(log.run())
    async with asyncio.timeout(20):
        while len(list(tmp_path.glob("cm%201*"))) > 4:  # noqa: ASYNC110 - another thread's work
            await asyncio.sleep(0.01)
    runner.cancel()
    await asyncio.gather(runner, return_exceptions=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cm 1%2Fa.2020-01-01.jsonl",
        "cm%201%2Fa.2020-99-01.jsonl",
        "cm%201%2Fa.2026-11-26.jsonl",
        "cm%201%2Fa.2026-11-27.jsonl",
        "cm%201%2Fa.2026-11-28.jsonl",
    ]


async def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cm1.2026-11-25.jsonl"
    path.write_bytes(form().line(entry(), NOON) + b'{"time":"2026-')
    log = AuditLog(tmp_path, "cm1", retention=DAY, wall=Wall())
    log.write(form().line(entry(), NOON))
    assert len(await lines_of(log, AuditQuestion(ALICE))) == 2
    assert path.stat().st_mode & 0o777 == 0o644  # as it was; new ones are 0600


async def test_a_disk_that_cannot_be_written_loses_entries_and_nothing_else(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "audit"
    wall = Wall()
    log = AuditLog(folder, "cm1", retention=DAY, wall=wall)
    (path,) = folder.iterdir()
    path.unlink()
    path.mkdir()
    log.write(form().line(entry(), NOON))
    await log.flush()
    path.rmdir()
    log.write(form().line(entry(BOB), NOON))
    assert len(await lines_of(log, AuditQuestion(BOB))) == 1
    assert await lines_of(log, AuditQuestion(ALICE)) == []


# A Connection Manager


@pytest.fixture
async def running(certificates: Path, tmp_path: Path) -> AsyncIterator[Running]:
    audit = {"directory": str(tmp_path / "audit")}
    async with connection_manager(settings(certificates, audit=audit), "cm1") as found:
        yield found


async def history(
    running: Running,
    identity_for: IdentityFor,
    user: UserKey | None = None,
    address: bytes = b"",
    **more: int,
) -> list[dict[str, Any]]:
    channel = channel_to(running.ports[0], identity_for(Role.ADMIN))
    key = pb.UserKey(name=user.name, context=user.context) if user is not None else None
    request = pb.QueryAuditRequest(user=key, client_address=address, **more)
    try:
        stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
        found = []
        async for page in stub.QueryAudit(request, timeout=20):
            for record in page.records:
                found.append(json.loads(record.json))
                assert (record.time, record.kind) == (found[-1]["time"], found[-1]["kind"])
        return found
    finally:
        await channel.close()


async def test_what_happened_to_a_user_can_be_asked(
    running: Running, identity_for: IdentityFor
) -> None:
    async with (
        grpc_client(running, identity_for, Role.POP_IMAP) as agent,
        grpc_client(running, identity_for, Role.SMTP) as smtp,
        grpc_client(running, identity_for) as admin,
    ):
        await agent.register_one(login("alice", V4))
        await agent.register_one(login("bob", V4))
        await agent.register_one(login("alice", V4, renewal=True))
        for _ in range(3):
            await smtp.check_sender(check("alice@example.org", address=V4))
            await smtp.check_sender(check("carol@example.net", address=V4))
            await smtp.check_sender(check("alice@example.org", address=OTHER))
        await admin.revoke(user=ALICE, reason="test")
        await agent.register_one(login("alice", V4, age_ms=60_000))

    of_alice = await history(running, identity_for, ALICE)
    assert [(one["kind"], one["event"]) for one in of_alice] == [
        ("login", "login registered"),
        ("relay", "relaying allowed"),
        ("denial", "relaying refused"),
        ("revocation", "logins revoked"),
        ("denial", "login refused"),
    ]
    registered, allowed, refused, revoked, late = of_alice
    assert registered["protocol"] == "pop3"
    assert registered["session"] == "session of alice"
    assert allowed["sender"] == "alice@example.org"
    assert sorted(allowed["users"]) == [list(ALICE), list(BOB)]
    assert refused["reason"] == "sender not owned"
    assert (revoked["reason"], revoked["logins"]) == ("test", 1)
    assert late["reason"] == "revoked"

    of_bob = await history(running, identity_for, BOB)
    assert [one["kind"] for one in of_bob] == ["login", "relay", "denial"]
    (stranger,) = await history(running, identity_for, address=OTHER)
    assert (stranger["kind"], stranger["reason"]) == ("denial", "no login")
    both = await history(running, identity_for, ALICE, V4)
    assert len(both) == 4  # the revocation was of the user, wherever he was
    assert await history(running, identity_for, ALICE, limit=2) == of_alice[-2:]
    assert await history(running, identity_for, ALICE, within_seconds=3600) == of_alice


async def test_mail_that_a_replica_let_pass_is_known_by_what_the_agents_report(
    running: Running, identity_for: IdentityFor
) -> None:
    async with (
        grpc_client(running, identity_for, Role.POP_IMAP) as agent,
        grpc_client(running, identity_for, Role.SMTP) as smtp,
    ):
        await agent.register_one(login("alice", V4))
        await agent.register_one(login("bob", V4))
        for recipients, authenticated in ((3, False), (1000, False), (4, True)):
            await smtp.report_event(
                pb.Event(
                    client_address=V4,
                    service=pb.SERVICE_SMTP,
                    messaging_server="mail1",
                    user=pb.UserKey(name=ALICE.name, context=ALICE.context),
                    relay_wanted=pb.RelayWanted(
                        recipients=recipients, messages=1, authenticated=authenticated
                    ),
                )
            )
    _, relayed, exceeded, authenticated_mail = await history(running, identity_for, ALICE)
    assert (relayed["kind"], relayed["recipients"], relayed["way"]) == ("relay", 3, "login")
    assert sorted(relayed["users"]) == [list(ALICE), list(BOB)]
    assert (exceeded["kind"], exceeded["recipients"]) == ("rate", 1000)
    assert (authenticated_mail["way"], authenticated_mail["recipients"]) == ("auth", 4)
    assert "users" not in authenticated_mail


async def test_who_may_not_connect_is_written_down_once_a_minute(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    config = settings(
        certificates,
        audit={"directory": str(tmp_path / "audit")},
        lists={"blocked": ["203.0.113.0/30"]},
    )
    async with (
        connection_manager(config, "cm1") as running,
        grpc_client(running, identity_for, Role.SMTP) as smtp,
    ):
        for address in (V4, OTHER, V4, b"\xcb\x00\x71\x09", V4):
            question = pb.ConnectionCheck(
                client_address=address, service=pb.SERVICE_SMTP, listener="mx"
            )
            await smtp.check_connection(question)
        (denied,) = await history(running, identity_for, address=V4)
        assert (denied["kind"], denied["event"]) == ("denial", "connection denied")
        assert (denied["rule"], denied["service"], denied["listener"]) == ("list", "smtp", "mx")
        assert len(await history(running, identity_for, address=OTHER)) == 1
        assert await history(running, identity_for, address=b"\xcb\x00\x71\x09") == []


async def test_a_long_history_comes_in_messages_of_bounded_size(
    running: Running, identity_for: IdentityFor, tmp_path: Path
) -> None:
    crowd = tuple(UserKey(f"user{number}" * 20, "users.demo") for number in range(100))
    line = form().line(AuditEntry(AuditKind.RELAY, "relaying allowed", ALICE, V4, crowd), NOON)
    (path,) = (tmp_path / "audit").iterdir()
    with path.open("ab") as file:
        file.write(line * 600)
    assert len(line) * 600 > 4 * 1024 * 1024  # what gRPC takes in one message
    for limit in (0, 599):
        found = await history(running, identity_for, ALICE, limit=limit)
        assert len(found) == (limit or 600)


async def test_pseudonyms_hide_addresses_and_answer_questions(
    certificates: Path, tmp_path: Path, identity_for: IdentityFor
) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    audit = {
        "directory": str(tmp_path / "audit"),
        "pseudonymize": True,
        "key_file": str(key),
    }
    async with connection_manager(settings(certificates, audit=audit), "cm1") as running:
        async with grpc_client(running, identity_for, Role.POP_IMAP) as agent:
            await agent.register_one(login("alice", V4))
        (found,) = await history(running, identity_for, address=V4)
        assert found["user"] == "alice"
    (path,) = (tmp_path / "audit").iterdir()
    assert b"203.0.113.1" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


async def test_questions_that_cannot_be_answered_say_why(
    running: Running, certificates: Path, identity_for: IdentityFor
) -> None:
    async def reason(which: Running, **question: Any) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await history(which, identity_for, **question)
        return error_reason(caught.value) or ""

    assert await reason(running) == "NOTHING_TO_FIND"
    assert await reason(running, address=b"abc") == "BAD_ADDRESS"
    assert await reason(running, user=ALICE, limit=100_001) == "LIMIT_TOO_LARGE"
    async with connection_manager(settings(certificates), "cm1") as without:
        assert await reason(without, user=ALICE) == "NO_AUDIT_LOG"


@pytest.mark.parametrize(
    ("audit", "why"),
    [
        ({"directory": "FOLDER/file/audit"}, "audit.directory"),
        ({"directory": "FOLDER/a", "pseudonymize": True}, "needs audit.key_file"),
        ({"pseudonymize": True, "key_file": "FOLDER/file"}, "fewer than 32 octets"),
        ({"pseudonymize": True, "key_file": "FOLDER/missing"}, "No such file"),
    ],
)
async def test_a_log_that_cannot_be_kept_stops_the_start(
    certificates: Path, tmp_path: Path, audit: dict[str, Any], why: str
) -> None:
    (tmp_path / "file").write_bytes(b"short")
    audit = {
        name: value.replace("FOLDER", str(tmp_path)) if isinstance(value, str) else value
        for name, value in audit.items()
    }
    with pytest.raises(ConfigError, match=why):
        async with connection_manager(settings(certificates, audit=audit), "cm1"):
            pass
