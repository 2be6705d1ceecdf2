"""What our sending client makes of a real Postfix and a real Exim."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from netmail_common.certificates import LocalAuthority
from netmail_smtp.domain.deliver_outcome import Delivered

from tests.interop.exim_host import EximHost, exim_host
from tests.interop.postfix_host import PostfixHost, postfix_host
from tests.smtp.deliver_support import (
    delivered,
    failure,
    outbound,
    pools_closed,  # noqa: F401 - closes what tests open
)

BOB, CAROL = "bob@example.net", "carol@example.net"
BODY = b"".join(b"%d .\r\n.%d\r\n..\r\n" % (n, n) for n in range(2000))
MESSAGE = b"From: alice@example.org\r\nSubject: hello\r\n\r\n" + BODY


@pytest.fixture(scope="module")
def certificate(
    authority: LocalAuthority, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("mx")
    certificate, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    authority.issue_server("localhost", certificate, key)
    ca.write_bytes(authority.certificate_pem)
    return certificate, key, ca


@pytest.fixture(scope="module")
def postfix(certificate: tuple[Path, Path, Path]) -> Iterator[PostfixHost]:
    settings = {
        "smtpd_recipient_restrictions": (
            "check_recipient_access inline:{"
            " { later@example.net = 450 4.2.1 mailbox busy, try later },"
            " { nobody@example.net = 550 5.1.1 no such user } }"
        ),
        "smtpd_data_restrictions": (
            "check_sender_access inline:{"
            " { data4@example.org = 451 4.7.1 not this data },"
            " { data5@example.org = 554 5.7.1 never this data } }"
        ),
        "smtpd_end_of_data_restrictions": (
            "check_sender_access inline:{"
            " { end4@example.org = 451 4.7.1 not this message },"
            " { end5@example.org = 554 5.7.1 never this message } }"
        ),
        "smtpd_sender_restrictions": (
            "check_sender_access inline:{ { mail5@example.org = 553 5.1.8 not you } }"
        ),
        "smtpd_recipient_limit": "5",
        "message_size_limit": "200000",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_received_header": "yes",
        "smtpd_tls_chain_files": f"{certificate[1]}, {certificate[0]}",
    }
    with postfix_host(settings) as host:
        yield host


@pytest.fixture(scope="module")
def exim(certificate: tuple[Path, Path, Path]) -> Iterator[EximHost]:
    with exim_host(tls=certificate[:2]) as host:
        yield host


def content(message: bytes) -> bytes:
    """The body, with the line ends it had on the wire."""
    return message.partition(b"\n\n")[2].replace(b"\n", b"\r\n")


async def test_postfix_takes_a_message_over_tls(postfix: PostfixHost) -> None:
    before = len(postfix.messages())
    outcomes = await outbound(postfix.port).send(BOB, data=MESSAGE)
    outcome = outcomes[BOB]
    assert isinstance(outcome, Delivered)
    assert outcome.diagnostic.startswith("smtp; 250 2.0.0 Ok: ")
    assert outcome.dsn_passed_on
    arrived = postfix.wait_for(before + 1)[-1]
    assert content(arrived) == BODY
    assert b"using TLSv1.3" in arrived


async def test_postfix_is_verified_where_tls_is_required(
    postfix: PostfixHost, certificate: tuple[Path, Path, Path]
) -> None:
    hosts = {"hosts": [f"localhost:{postfix.port}"], "tls": "required"}
    good = outbound(postfix.port, route={**hosts, "ca_file": certificate[2]})
    assert delivered(await good.send(BOB)) == {BOB}
    assert failure(await outbound(postfix.port, route=hosts).send(BOB), BOB).status == "4.7.5"


@pytest.mark.parametrize(
    ("sender", "recipient", "retryable", "status"),
    [
        ("alice@example.org", "later@example.net", True, "4.2.1"),
        ("alice@example.org", "nobody@example.net", False, "5.1.1"),
        ("mail5@example.org", BOB, False, "5.1.8"),
        ("data4@example.org", BOB, True, "4.7.1"),
        ("data5@example.org", BOB, False, "5.7.1"),
        ("end4@example.org", BOB, True, "4.7.1"),
        ("end5@example.org", BOB, False, "5.7.1"),
    ],
)
async def test_what_postfix_refuses_is_told_apart(
    postfix: PostfixHost, sender: str, recipient: str, retryable: bool, status: str
) -> None:
    out = outbound(postfix.port)
    outcome = failure(await out.send(recipient, sender=sender), recipient)
    assert (outcome.retryable, outcome.status) == (retryable, status)
    assert outcome.diagnostic.startswith("smtp; ")
    assert delivered(await out.send(CAROL)) == {CAROL}, "the connection is still good"


async def test_one_message_has_three_fates(postfix: PostfixHost) -> None:
    people = ["later@example.net", "nobody@example.net", BOB]
    outcomes = await outbound(postfix.port).send(*people)
    assert delivered(outcomes) == {BOB}
    assert failure(outcomes, people[0]).retryable
    assert not failure(outcomes, people[1]).retryable


async def test_more_recipients_than_postfix_takes_at_once(postfix: PostfixHost) -> None:
    people = [f"user{n}@example.net" for n in range(12)]
    assert delivered(await outbound(postfix.port).send(*people)) == set(people)


async def test_postfixes_size_limit_is_known_before_the_message_is_sent(
    postfix: PostfixHost,
) -> None:
    outcome = failure(await outbound(postfix.port).send(BOB, data=b"x" * 300_000), BOB)
    assert (outcome.status, outcome.retryable) == ("5.3.4", False)
    assert outcome.diagnostic.startswith("x-netmail;")


async def test_postfix_gets_internationalised_mail(postfix: PostfixHost) -> None:
    before = len(postfix.messages())
    data = "Subject: grüße\r\n\r\nhällo\r\n".encode()
    outcomes = await outbound(postfix.port).send("bøb@example.net", data=data)
    assert delivered(outcomes) == {"bøb@example.net"}
    assert "hällo".encode() in postfix.wait_for(before + 1)[-1]


async def test_a_hundred_messages_go_over_few_connections(postfix: PostfixHost) -> None:
    before = postfix.log_text().count("]: connect from")
    out = outbound(postfix.port, config={"concurrency_per_destination": 4})
    outcomes = await asyncio.gather(*(out.send(BOB) for _ in range(100)))
    assert all(delivered(o) == {BOB} for o in outcomes)
    # The probe that waited for Postfix to start may be logged late.
    assert postfix.log_text().count("]: connect from") - before <= 4 + 1


async def test_greylisting_defers_and_the_next_attempt_succeeds() -> None:
    seen: dict[str, float] = {}

    async def policy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Postfix's policy protocol: who is new is told to come again after half a second."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                text = (await reader.readuntil(b"\n\n")).decode()
                asked = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
                first = seen.setdefault(asked["recipient"], time.monotonic())
                new = time.monotonic() - first < 0.5
                action = b"450 4.2.0 greylisted" if new else b"dunno"
                writer.write(b"action=" + action + b"\n\n")
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(policy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = {"smtpd_recipient_restrictions": f"check_policy_service inet:127.0.0.1:{port}"}
    async with server:
        context = postfix_host(settings)
        host = await asyncio.to_thread(context.__enter__)
        try:
            out = outbound(host.port)
            first = failure(await out.send(BOB), BOB)
            assert (first.retryable, first.status) == (True, "4.2.0")
            await asyncio.sleep(0.6)
            assert delivered(await out.send(BOB)) == {BOB}
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


@contextlib.asynccontextmanager
async def cut_after_final_dot(port: int) -> AsyncIterator[int]:
    """A proxy that lets the message through and cuts the connection before the reply to it."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_host = await asyncio.open_connection("127.0.0.1", port)

        async def forward() -> None:
            while data := await reader.read(65536):
                to_host.write(data)
                await to_host.drain()

        async def back() -> None:
            while data := await upstream.read(65536):
                if b"queued as" in data:
                    break
                writer.write(data)
                await writer.drain()
            writer.transport.abort()

        tasks = [asyncio.create_task(forward()), asyncio.create_task(back())]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*tasks)
        to_host.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("streamed", [True, False], ids=["DATA", "BDAT"])
async def test_a_connection_cut_after_the_final_dot_means_another_attempt(
    postfix: PostfixHost, streamed: bool
) -> None:
    before = len(postfix.messages())
    async with cut_after_final_dot(postfix.port) as port:
        out = outbound(port, route={"tls": "none"})
        outcome = failure(await out.send(BOB, streamed=streamed), BOB)
    assert (outcome.retryable, outcome.status) == (True, "4.4.2")
    assert delivered(await outbound(postfix.port).send(BOB)) == {BOB}
    assert len(postfix.wait_for(before + 2)) == before + 2, "at least once: here twice"


async def test_exim_takes_a_chunked_message_over_tls(exim: EximHost) -> None:
    before = len(exim.arrived())
    outcomes = await outbound(exim.port).send(BOB, data=MESSAGE)
    assert delivered(outcomes) == {BOB}
    arrived = exim.wait_for(before + 1)[-1]
    assert content(arrived) == BODY
    assert b"tls TLS_" in arrived
    assert "K " in next(line for line in exim.log_text().splitlines() if " <= alice" in line)


@pytest.mark.parametrize(
    ("sender", "recipient", "retryable", "status"),
    [
        ("alice@example.org", "later@example.net", True, "4.2.1"),
        ("alice@example.org", "nobody@example.net", False, "5.1.1"),
        ("spammer@example.org", BOB, False, "5.7.1"),
    ],
)
async def test_what_exim_refuses_is_told_apart(
    exim: EximHost, sender: str, recipient: str, retryable: bool, status: str
) -> None:
    out = outbound(exim.port)
    outcome = failure(await out.send(recipient, sender=sender), recipient)
    assert (outcome.retryable, outcome.status) == (retryable, status)
    assert delivered(await out.send(CAROL)) == {CAROL}
