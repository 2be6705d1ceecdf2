"""Hosts that fail, and connections that are kept."""

import asyncio
import socket

import pytest

from tests.smtp.deliver_support import (
    OWN_NAME,
    delivered,
    failure,
    outbound,
    pools_closed,  # noqa: F401 - closes what tests open
)
from tests.support.scripted_smtp import FULL_EHLO, Script, scripted_host

BOB = "bob@example.net"


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


async def test_one_connection_carries_many_messages() -> None:
    async with scripted_host() as host:
        out = outbound(host.port)
        for _ in range(5):
            assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 1
        assert "RSET" not in host.verbs()


async def test_a_connection_is_closed_after_its_share_of_messages() -> None:
    async with scripted_host() as host:
        out = outbound(host.port, config={"messages_per_connection": 2})
        for _ in range(5):
            await out.send(BOB)
        await out.pool.close()
        assert host.connections == 3
        assert host.verbs().count("QUIT") == 3


async def test_a_hosts_own_limit_of_messages_is_kept() -> None:
    async with scripted_host(Script(ehlo=[*FULL_EHLO, "LIMITS MAILMAX=1"])) as host:
        out = outbound(host.port)
        await out.send(BOB)
        await out.send(BOB)
        assert host.connections == 2


async def test_an_unused_connection_is_closed_after_its_time() -> None:
    async with scripted_host() as host:
        out = outbound(host.port, config={"connection_idle": 1})
        await out.send(BOB)
        for _ in range(100):
            if "QUIT" in host.verbs():
                break
            await asyncio.sleep(0.02)
        assert host.verbs()[-1] == "QUIT"
        assert not out.pool._places


async def test_a_kept_connection_that_the_host_closed_is_replaced_unnoticed() -> None:
    async with scripted_host(Script(replies={"MAIL": ["250 ok", "", "250 ok"]})) as host:
        out = outbound(host.port)
        assert delivered(await out.send(BOB)) == {BOB}
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 2


async def test_a_421_on_a_kept_connection_is_no_refusal() -> None:
    script = Script(replies={"MAIL": ["250 ok", "421 4.7.0 too many messages", "250 ok"]})
    async with scripted_host(script) as host:
        out = outbound(host.port)
        assert delivered(await out.send(BOB)) == {BOB}
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 2


async def test_an_address_that_cannot_be_written_fails_alone() -> None:
    async with scripted_host() as host:
        outcomes = await outbound(host.port).send("b\r\nRCPT TO:<x@y>@example.net", BOB)
        assert delivered(outcomes) == {BOB}
        assert {o.status for o in outcomes.values()} == {"2.0.0", "5.1.3"}
        assert host.messages[0].recipients == [BOB]


async def test_no_more_connections_than_allowed_are_open_to_one_host() -> None:
    async with scripted_host() as host:
        out = outbound(host.port, config={"concurrency_per_destination": 3})
        await asyncio.gather(*(out.send(BOB) for _ in range(20)))
        assert len(host.messages) == 20
        assert host.connections <= 3


async def test_the_next_host_is_tried_when_one_is_dead() -> None:
    async with scripted_host() as host:
        assert delivered(await outbound(closed_port(), host.port).send(BOB)) == {BOB}


@pytest.mark.parametrize(
    "script",
    [
        Script(greeting="421 4.3.2 busy"),
        Script(greeting="554 5.3.2 no"),
        Script(greeting=""),
        Script(greeting="SSH-2.0-OpenSSH"),
        Script(replies={"EHLO": "421 4.7.0 no"}),
        Script(replies={"MAIL": "451 4.3.0 not now"}),
        Script(replies={"MAIL": "421 4.3.2 bye"}),
        Script(replies={"MAIL": ""}),
        Script(replies={"RCPT": ""}),
        Script(replies={"DATA": ""}),
    ],
    ids=lambda s: f"{s.greeting[:4]} {s.replies}",
)
async def test_the_next_host_is_tried_when_one_takes_nothing(script: Script) -> None:
    async with scripted_host(script) as bad, scripted_host() as good:
        assert delivered(await outbound(bad.port, good.port).send(BOB)) == {BOB}
        assert bad.messages == []


async def test_a_deferral_is_not_carried_to_the_next_host() -> None:
    script = Script(replies={"RCPT": "450 4.2.1 greylisted"})
    async with scripted_host(script) as first, scripted_host() as second:
        outcome = failure(await outbound(first.port, second.port).send(BOB), BOB)
        assert (outcome.retryable, outcome.status) == (True, "4.2.1")
        assert second.connections == 0


async def test_a_connection_lost_after_the_final_dot_defers_and_tries_nobody_else() -> None:
    async with scripted_host(Script(replies={"FINAL": ""})) as host, scripted_host() as second:
        outcome = failure(await outbound(host.port, second.port).send(BOB), BOB)
        assert (outcome.retryable, outcome.status) == (True, "4.4.2")
        assert "after the message was sent" in outcome.diagnostic
        assert second.connections == 0


async def test_the_same_with_chunking() -> None:
    script = Script(ehlo=[*FULL_EHLO, "CHUNKING"], replies={"FINAL": ""})
    async with scripted_host(script) as host, scripted_host() as second:
        assert failure(await outbound(host.port, second.port).send(BOB), BOB).status == "4.4.2"
        assert second.connections == 0


async def test_a_host_that_does_not_answer_the_final_dot_leaves_the_message_deferred() -> None:
    async with scripted_host(Script(hang="FINAL")) as host:
        outcome = failure(await outbound(host.port, config={"command_timeout": 1}).send(BOB), BOB)
        assert (outcome.retryable, outcome.status) == (True, "4.4.2")


async def test_a_dead_host_costs_one_attempt_and_then_nothing_for_a_while() -> None:
    async with scripted_host(Script(greeting="421 4.3.2 busy")) as host:
        out = outbound(host.port, config={"host_backoff": 60})
        outcomes = await asyncio.gather(*(out.send(BOB) for _ in range(30)))
        assert {failure(o, BOB).diagnostic for o in outcomes} == {"smtp; 421 4.3.2 busy"}
        assert host.connections == 1
        out.clock.now += 61
        host.script.greeting = "220 back"
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 2


async def test_back_off_grows_while_the_host_stays_dead() -> None:
    async with scripted_host(Script(greeting="421 4.3.2 busy")) as host:
        out = outbound(host.port, config={"host_backoff": 60, "host_backoff_max": 120})
        await out.send(BOB)
        for wait, connections in [(61, 2), (61, 2), (61, 3), (121, 4)]:
            out.clock.now += wait
            await out.send(BOB)
            assert host.connections == connections


async def test_one_dead_host_does_not_hold_up_another_destination() -> None:
    async with scripted_host(Script(hang="EHLO")) as dead, scripted_host() as good:
        config = {
            "routes": [
                {"domain": "dead.test", "hosts": [f"127.0.0.1:{dead.port}"]},
                {"domain": "good.test", "hosts": [f"127.0.0.1:{good.port}"]},
            ]
        }
        out = outbound(config=config)
        stuck = [asyncio.create_task(out.send(BOB, domain="dead.test")) for _ in range(50)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):
            assert delivered(await out.send(BOB, domain="good.test")) == {BOB}
        assert not any(task.done() for task in stuck)
        async with asyncio.timeout(4):
            outcomes = await asyncio.gather(*stuck)
        assert all(failure(o, BOB).retryable for o in outcomes)
        assert dead.connections == 1


async def test_a_permanent_refusal_counts_only_when_no_host_may_come_back() -> None:
    async with scripted_host(Script(greeting="554 5.3.2 we take no mail")) as never:
        assert not failure(await outbound(never.port).send(BOB), BOB).retryable
        assert failure(await outbound(closed_port(), never.port).send(BOB), BOB).retryable


async def test_mail_that_would_come_back_to_us_is_returned() -> None:
    async with scripted_host(Script(name=OWN_NAME)) as ourselves:
        outcome = failure(await outbound(ourselves.port).send(BOB), BOB)
        assert (outcome.retryable, outcome.status) == (False, "5.4.6")


async def test_a_host_that_sends_without_end_is_cut_off() -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 hi\r\n")
            while True:
                writer.write(b"250-" + b"x" * 1000 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        outcome = failure(await outbound(server.sockets[0].getsockname()[1]).send(BOB), BOB)
        assert (outcome.retryable, outcome.diagnostic) == (
            True,
            "x-netmail; a reply has too many lines",
        )


async def test_cutting_a_delivery_short_keeps_what_is_decided() -> None:
    script = Script(replies={f"RCPT TO:<{BOB}>": "550 5.1.1 no"}, hang="FINAL")
    async with scripted_host(script) as host:
        out = outbound(host.port)
        sent = asyncio.Event()
        script.on_message = lambda _message: sent.set()
        task = asyncio.create_task(out.send(BOB, "carol@example.net"))
        await sent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not out.pool._places, "the broken connection is not kept"
