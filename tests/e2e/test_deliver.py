"""The sending side against real NMAP agents: queue, leases, retries, notifications, hand-over."""

import asyncio
import contextlib
import email
import email.policy
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
from netmail.nmap.v1 import queue_pb2
from netmail_common.certificates import Identity
from netmail_common.config import Installation, parse_config
from netmail_common.nmap import NmapChannels, QueueClient, QueueClients
from netmail_common.roles import Role
from netmail_nmap.app import nmap_agent
from netmail_smtp.app.deliver import build

from tests.support.installation import free_port
from tests.support.scripted_smtp import Script, ScriptedHost, scripted_host

BOB, CAROL = "bob@example.net", "carol@example.net"
ALICE, DAVE = "alice@example.org", "dave@branch.example.org"
DATA = b"From: alice@example.org\r\nSubject: hello\r\n\r\ntext\r\n"
_ids = itertools.count(1)


def installation_for(
    state: Path,
    certificates: Path,
    ports: list[int],
    deliver: Mapping[str, Any],
    queue: Mapping[str, Any],
) -> Installation:
    """mail1 with alice, mail2 with dave, everything else by a route to PORTS."""
    hosts = [f"127.0.0.1:{port}" for port in ports]
    servers: list[dict[str, Any]] = [
        {
            "name": name,
            "host_name": f"{name}.example.org",
            "domains": [domain],
            "contexts": [
                {"name": f"{name}.users", "initial_users": [{"name": user, "password": "x"}]}
            ],
            "ube_relaying": {"smtp_after_pop": False},
            "nmap": {
                "listen": [f"127.0.0.1:{free_port()}"],
                "argon2": {"time_cost": 1, "memory_kib": 8},
                "queue": {"first_retry": 1, "max_retry": 1, "jitter": 0, **queue},
            },
            "deliver": {
                "routes": [{"domain": "*", "hosts": hosts}],
                "host_backoff": 0,
                "command_timeout": 5,
                **deliver,
            },
        }
        for name, domain, user in [
            ("mail1", "example.org", "alice"),
            ("mail2", "branch.example.org", "dave"),
        ]
    ]
    data = {"messaging_servers": servers, "grpc": {"certificates": str(certificates)}}
    return parse_config(data, state=state)


@dataclass(slots=True)
class Site:
    """mail1's queue, its deliver agent, and a look at both NMAP agents."""

    installation: Installation
    channels: dict[Role, NmapChannels]
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None

    async def submit(
        self, *recipients: str | queue_pb2.Recipient, sender: str = ALICE, data: bytes = DATA,
        **more: Any,
    ) -> str:  # fmt: skip
        """Queues a message and gives its id."""
        message_id = f"test-message-{next(_ids):08}"
        people = [queue_pb2.Recipient(address=r) if isinstance(r, str) else r for r in recipients]
        envelope = queue_pb2.Envelope(
            message_id=message_id,
            sender=sender,
            recipients=people,
            messaging_server="mail1",
            **more,
        )
        client = QueueClient(self.channels[Role.SMTP])
        if len(data) > 500_000:

            async def chunks() -> AsyncIterator[bytes]:
                for start in range(0, len(data), 100_000):
                    yield data[start : start + 100_000]

            await client.submit_stream(envelope, chunks())
        else:
            await client.submit(envelope, data)
        return message_id

    async def queue(self) -> list[queue_pb2.QueueMessage]:
        """What is queued at mail1."""
        stub = QueueClients(self.channels[Role.ADMIN]).for_server("mail1")
        response = await stub.ListQueue(
            queue_pb2.ListQueueRequest(filter=queue_pb2.QueueFilter(all=True), page_size=1000)
        )
        return list(response.messages)

    async def start(self) -> None:
        """Starts the deliver agent of mail1."""
        own = self.installation.messaging_server("mail1")
        sender = build(self.installation, own, self.channels[Role.DELIVER])

        async def run() -> None:
            await sender.deliverer.run(self.draining)
            await sender.pool.close()

        self.worker = asyncio.create_task(run())

    async def stop(self) -> None:
        """Drains it."""
        self.draining.set()
        if self.worker is not None:
            await self.worker

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for CONDITION."""

        async def holds() -> bool:
            return condition()

        await self.until_true(holds)

    async def until_empty(self) -> None:
        """Waits until nothing is queued."""

        async def empty() -> bool:
            return not await self.queue()

        await self.until_true(empty)

    async def until_status(self) -> queue_pb2.QueueRecipient:
        """Waits until an outcome of the first recipient in the queue is known."""

        async def known() -> bool:
            queue = await self.queue()
            return bool(queue) and bool(queue[0].recipients[0].last_status)

        await self.until_true(known)
        return (await self.queue())[0].recipients[0]

    async def until_true(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Waits at most 20 seconds."""
        async with asyncio.timeout(20):
            while not await condition():
                assert self.worker is None or not self.worker.done()
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def site(
    certificates: Path,
    state: Path,
    *hosts: ScriptedHost,
    deliver: Mapping[str, Any] | None = None,
    queue: Mapping[str, Any] | None = None,
    started: bool = True,
    second: bool = True,
) -> AsyncIterator[Site]:
    """Runs both NMAP agents (mail2 only if SECOND) and the deliver agent (if STARTED)."""
    installation = installation_for(
        state, certificates, [host.port for host in hosts] or [1], deliver or {}, queue or {}
    )
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(nmap_agent(installation, "mail1"))
        if second:
            await stack.enter_async_context(nmap_agent(installation, "mail2"))
        channels = {
            role: NmapChannels(installation, "mail1", Identity.from_folder(certificates, role))
            for role in (Role.SMTP, Role.DELIVER, Role.ADMIN)
        }
        for channel in channels.values():
            stack.push_async_callback(channel.close)
        made = Site(installation, channels)
        stack.push_async_callback(made.stop)
        if started:
            await made.start()
        yield made


def notification(host: ScriptedHost) -> Any:
    """The last message that the host took, as a DSN."""
    message = host.messages[-1]
    assert message.sender == ""
    return email.message_from_bytes(message.data, policy=email.policy.default)


async def test_a_queued_message_is_delivered_and_leaves_the_queue(
    certificates: Path, tmp_path: Path
) -> None:
    async with scripted_host() as host, site(certificates, tmp_path, host) as here:
        await here.submit(BOB, CAROL)
        await here.until_empty()
        (message,) = host.messages
        assert message.sender == ALICE
        assert sorted(message.recipients) == [BOB, CAROL]
        assert message.data == DATA


async def test_each_attempt_is_one_log_line_without_any_message_text(
    certificates: Path, tmp_path: Path
) -> None:
    script = Script(replies={f"RCPT TO:<{BOB}>": "550 5.1.1 no such user"})
    async with scripted_host(script) as host, site(certificates, tmp_path, host) as here:
        with structlog.testing.capture_logs() as lines:
            message_id = await here.submit(BOB, CAROL, sender="")
            await here.until_empty()
        told = [line for line in lines if line["event"].startswith("delivery ")]
        assert {line["event"] for line in told} == {"delivery failed", "delivery delivered"}
        failed = next(line for line in told if line["event"] == "delivery failed")
        assert failed["message_id"] == message_id
        assert failed["domain"] == "example.net"
        assert failed["host"] == f"127.0.0.1[127.0.0.1]:{host.port}"
        assert failed["tls"] == "none"
        assert failed["status"] == "5.1.1"
        assert failed["why"] == "smtp; 550 5.1.1 no such user"
        assert "text" not in str(told)


async def test_large_messages_are_streamed(certificates: Path, tmp_path: Path) -> None:
    data = DATA + b".line of a long message\r\n" * 100_000
    async with scripted_host() as host, site(certificates, tmp_path, host) as here:
        await here.submit(BOB, data=data, body_8bit=True)
        await here.until_empty()
        assert host.messages[0].data == data


async def test_where_a_word_stands_for_the_name_only_the_word_leaves(
    certificates: Path, tmp_path: Path
) -> None:
    stamp = b"Received: from a by b; now\r\nX-Auth-OK: alice\r\nX-Auth-Hash: ~word\r\n"
    long = DATA + b".line of a long message\r\n" * 100_000
    async with scripted_host() as host, site(certificates, tmp_path, host) as here:
        for number, data in enumerate((DATA, long), 1):
            await here.submit(BOB, data=stamp + data)
            await here.until_empty()
            left = b"Received: from a by b; now\r\nX-Auth-OK: ~word\r\n" + data
            assert host.messages[number - 1].data == left


async def test_many_messages_go_over_few_connections(certificates: Path, tmp_path: Path) -> None:
    async with (
        scripted_host() as host,
        site(certificates, tmp_path, host, deliver={"concurrency_per_destination": 3}) as here,
    ):
        await asyncio.gather(*(here.submit(BOB) for _ in range(200)))
        await here.until_empty()
        assert len(host.messages) == 200
        assert host.connections <= 3


async def test_a_deferred_recipient_is_tried_again(certificates: Path, tmp_path: Path) -> None:
    script = Script(replies={f"RCPT TO:<{BOB}>": ["450 4.2.1 greylisted", "250 ok"]})
    async with scripted_host(script) as host, site(certificates, tmp_path, host) as here:
        await here.submit(BOB, CAROL)
        await here.until(lambda: len(host.messages) == 1)
        assert host.messages[0].recipients == [CAROL]
        waiting = await here.until_status()
        assert waiting.address == BOB
        assert waiting.last_status == "4.2.1"
        assert waiting.last_diagnostic == "smtp; 450 4.2.1 greylisted"
        await here.until_empty()
        assert [message.recipients for message in host.messages] == [[CAROL], [BOB]]


async def test_a_failure_comes_back_to_its_sender(certificates: Path, tmp_path: Path) -> None:
    script = Script(replies={f"RCPT TO:<{BOB}>": "550 5.1.1 no such user"})
    async with scripted_host(script) as host, site(certificates, tmp_path, host) as here:
        await here.submit(BOB, sender="outside@example.com", envelope_id="QQ1")
        await here.until_empty()
        report = notification(host)
        assert host.messages[-1].recipients == ["outside@example.com"]
        assert report.get_content_type() == "multipart/report"
        per_message, per_recipient = list(report.iter_parts())[1].get_payload()
        assert per_message["Original-Envelope-Id"] == "QQ1"
        assert per_recipient["Final-Recipient"] == "rfc822; bob@example.net"
        assert per_recipient["Action"] == "failed"
        assert per_recipient["Status"] == "5.1.1"
        assert per_recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
        assert per_recipient["Remote-MTA"] == "dns; 127.0.0.1"


async def test_a_sender_is_warned_of_a_delay_once_and_gets_the_message_back_in_the_end(
    certificates: Path, tmp_path: Path
) -> None:
    script = Script(replies={f"RCPT TO:<{BOB}>": "450 4.2.1 come again"})
    queue = {"delay_warning": 1, "lifetime": 4}
    async with (
        scripted_host(script) as host,
        site(certificates, tmp_path, host, queue=queue) as here,
    ):
        await here.submit(BOB, sender="outside@example.com")
        await here.until(lambda: len(host.messages) == 1)
        warning = list(notification(host).iter_parts())[1].get_payload()[1]
        assert (warning["Action"], warning["Status"]) == ("delayed", "4.2.1")
        await here.until_empty()
        assert [message.recipients for message in host.messages] == [["outside@example.com"]] * 2
        failure = list(notification(host).iter_parts())[1].get_payload()[1]
        assert (failure["Action"], failure["Status"]) == ("failed", "4.4.7")


async def test_the_null_sender_gets_nothing_back(certificates: Path, tmp_path: Path) -> None:
    script = Script(replies={"RCPT": "550 5.1.1 no such user"})
    async with scripted_host(script) as host, site(certificates, tmp_path, host) as here:
        await here.submit(BOB, sender="")
        await here.until_empty()
        assert host.messages == []


async def test_success_is_reported_where_the_host_does_not_do_it(
    certificates: Path, tmp_path: Path
) -> None:
    asked = queue_pb2.Recipient(address=BOB, notify_success=True, notify_given=True)
    script = Script(ehlo=["PIPELINING"])
    async with scripted_host(script) as host, site(certificates, tmp_path, host) as here:
        await here.submit(asked, sender="outside@example.com")
        await here.until(lambda: len(host.messages) == 2)
        assert list(notification(host).iter_parts())[1].get_payload()[1]["Action"] == "relayed"


async def test_a_connection_lost_after_the_final_dot_is_tried_again(
    certificates: Path, tmp_path: Path
) -> None:
    script = Script(replies={"FINAL": ["", "250 ok"]})
    async with scripted_host(script) as host, site(certificates, tmp_path, host) as here:
        await here.submit(BOB)
        await here.until_empty()
        assert len(host.messages) == 2, "at least once"


async def test_mail_for_another_messaging_server_is_handed_over(
    certificates: Path, tmp_path: Path
) -> None:
    async with scripted_host() as host, site(certificates, tmp_path, host) as here:
        await here.submit(DAVE, ALICE, BOB)
        await here.until_empty()
        assert [message.recipients for message in host.messages] == [[BOB]]


async def test_what_the_other_server_refuses_comes_back(certificates: Path, tmp_path: Path) -> None:
    async with scripted_host() as host, site(certificates, tmp_path, host) as here:
        await here.submit("nobody@branch.example.org", sender="outside@example.com")
        await here.until(lambda: len(host.messages) == 1)
        recipient = list(notification(host).iter_parts())[1].get_payload()[1]
        assert recipient["Final-Recipient"] == "rfc822; nobody@branch.example.org"
        assert recipient["Status"] == "5.1.1"


async def test_mail_waits_while_the_other_server_is_away(
    certificates: Path, tmp_path: Path
) -> None:
    async with (
        scripted_host() as host,
        site(certificates, tmp_path, host, second=False) as here,
    ):
        await here.submit(DAVE)
        assert (await here.until_status()).last_status == "4.4.1"
        async with nmap_agent(here.installation, "mail2"):
            await here.until_empty()


async def test_a_drain_finishes_what_is_under_way_and_gives_back_the_rest(
    certificates: Path, tmp_path: Path
) -> None:
    begun = asyncio.Event()
    script = Script(on_message=lambda _message: begun.set())
    async with (
        scripted_host(script) as host,
        site(
            certificates, tmp_path, host,
            deliver={"concurrency_per_destination": 1}, queue={"first_retry": 3600,
                                                               "max_retry": 3600},
        ) as here,
    ):  # fmt: skip
        await asyncio.gather(*(here.submit(BOB) for _ in range(50)))
        await begun.wait()
        async with asyncio.timeout(10):
            await here.stop()
        done = len(host.messages)
        queue = await here.queue()
        assert done + len(queue) == 50, "nothing lost, nothing twice"
        assert {r.attempts for message in queue for r in message.recipients} <= {0}
        assert {r.state for m in queue for r in m.recipients} == {queue_pb2.QUEUE_STATE_READY}


async def test_what_waits_for_a_slow_host_is_left_to_other_workers(
    certificates: Path, tmp_path: Path
) -> None:
    async with (
        scripted_host(Script(hang="FINAL")) as host,
        site(
            certificates,
            tmp_path,
            host,
            deliver={"drain_timeout": 1, "concurrency_per_destination": 2},
        ) as here,
    ):
        await asyncio.gather(*(here.submit(BOB) for _ in range(20)))
        await here.until(lambda: len(host.messages) == 2)
        states = Counter(r.state for m in await here.queue() for r in m.recipients)
        assert 2 <= states[queue_pb2.QUEUE_STATE_LEASED] <= 4
        assert states[queue_pb2.QUEUE_STATE_READY] >= 16


async def test_a_drain_cuts_off_what_takes_too_long(certificates: Path, tmp_path: Path) -> None:
    async with (
        scripted_host(Script(hang="FINAL")) as host,
        site(
            certificates, tmp_path, host, deliver={"drain_timeout": 1, "command_timeout": 300}
        ) as here,
    ):
        await here.submit(BOB)
        await here.until(lambda: len(host.messages) == 1)
        async with asyncio.timeout(10):
            await here.stop()
        (message,) = await here.queue()
        assert message.recipients[0].last_status.startswith("4.")


async def test_the_queue_is_worked_off_after_the_nmap_agent_was_away(
    certificates: Path, tmp_path: Path
) -> None:
    async with scripted_host() as host:
        installation = installation_for(tmp_path, certificates, [host.port], {}, {})
        roles = (Role.SMTP, Role.DELIVER, Role.ADMIN)
        channels = {
            role: NmapChannels(installation, "mail1", Identity.from_folder(certificates, role))
            for role in roles
        }
        here = Site(installation, channels)
        await here.start()
        await asyncio.sleep(0.3)
        async with nmap_agent(installation, "mail1"):
            await here.submit(BOB)
            await here.until(lambda: len(host.messages) == 1)
            await here.until_empty()
            await here.stop()
        for channel in channels.values():
            await channel.close()


async def test_a_delivery_is_cut_short_before_its_lease_ends(
    certificates: Path, tmp_path: Path
) -> None:
    async with (
        scripted_host(Script(hang="FINAL")) as host,
        site(certificates, tmp_path, host, started=False) as here,
    ):
        own = here.installation.messaging_server("mail1")
        sender = build(here.installation, own, here.channels[Role.DELIVER])
        deliverer, pool = sender.deliverer, sender.pool
        deliverer._queue._lease_seconds = 2
        deliverer._limits = replace(deliverer._limits, lease_margin=1, drain=1)
        here.worker = asyncio.create_task(deliverer.run(here.draining))
        await here.submit(BOB)
        status = await here.until_status()
        assert status.last_status == "4.4.2"
        assert "after the message was sent" in status.last_diagnostic
        assert len(host.messages) == 1
        await here.stop()
        await pool.close()
