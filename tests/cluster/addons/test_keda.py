"""KEDA brings more pods by what Prometheus knows: for a queue that ages, and for connections."""

import imaplib
import smtplib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial

import pytest

from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.addons.monitoring import MONITORED, Prometheus, watching
from tests.cluster.conftest import values_for
from tests.cluster.support import USERS, Cluster, Outside, Release, Sink
from tests.cluster.support.load import REMOTE
from tests.cluster.support.patience import patience
from tests.cluster.support.release import DOMAIN, merged, release
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(TIMEOUT)]

MOST = 3
_SECONDS_A_POD = 10
"""That the oldest item of the queue has been due."""
_CONNECTIONS_A_POD = 5
_MESSAGES = 60
_CUT = (OSError, imaplib.IMAP4.error, smtplib.SMTPException)
Client = imaplib.IMAP4 | smtplib.SMTP
_PATIENCE = 10.0
"""Seconds for an answer."""
_UP, _DOWN = 300, 420
"""Seconds at most, on a quiet machine; most clusters wait 300 before they scale down."""


def by_keda(threshold: int) -> dict[str, object]:
    """Values of one agent."""
    return {"mode": "keda", "maxReplicas": MOST, "threshold": str(threshold)}


@pytest.fixture(scope="module")
def scaled(cluster: Cluster, sink: Sink) -> Iterator[Release]:
    """The default installation, with deliver, pop-imap and smtp under KEDA."""
    needs(cluster, "prometheus", "prometheuses.monitoring.coreos.com")
    needs(cluster, "keda", "scaledobjects.keda.sh")
    values = merged(
        values_for(sink),
        MONITORED,
        {
            "messagingServer": {"deliver": {"concurrency_per_destination": 1}},
            "pop-imap": {"autoscaling": by_keda(_CONNECTIONS_A_POD)},
            "smtp": {
                "serve": {"autoscaling": by_keda(_CONNECTIONS_A_POD)},
                "deliver": {"autoscaling": by_keda(_SECONDS_A_POD)},
            },
        },
    )
    with release(cluster, f"{NAMESPACE}-keda", values) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(scaled: Release) -> Prometheus:
    """Knows the agents."""
    return watching(scaled)


def ready(scaled: Release, component: str) -> int:
    """Pods of a component that serve."""
    return sum(pod.ready and not pod.ending for pod in scaled.pods(component))


def seconds_until(true: Callable[[], bool], within: float) -> float:
    """How long it takes. Raises: AssertionError."""
    began = time.monotonic()

    def look() -> bool:
        time.sleep(1)
        return true()

    eventually(look, within * patience())
    return time.monotonic() - began


def test_every_scaled_object_is_ready(scaled: Release, prometheus: Prometheus) -> None:
    def conditions() -> dict[str, str]:
        return {
            one["metadata"]["name"]: condition["status"]
            for one in scaled.get("scaledobjects")["items"]
            for condition in one.get("status", {}).get("conditions", [])
            if condition["type"] == "Ready"
        }

    names = ("netmail-deliver", "netmail-pop-imap", "netmail-smtp")
    eventually(lambda: conditions() == dict.fromkeys(names, "True"), 120)
    assert [ready(scaled, one) for one in ("deliver", "pop-imap", "smtp")] == [1, 1, 1]


def test_a_queue_that_ages_brings_more_deliver_pods_and_they_go_again(
    scaled: Release, prometheus: Prometheus, sink: Sink, hosts: Sequence[Outside]
) -> None:
    before = len(sink.messages)
    sink.pause = 3.0
    try:
        client = hosts[0].smtp(scaled.address("smtp"), 587, starttls=True)
        client.login("alice", USERS["alice"])
        for number in range(_MESSAGES):
            client.sendmail(
                f"alice@{DOMAIN}", [REMOTE[0]],
                f"From: alice@{DOMAIN}\r\nTo: {REMOTE[0]}\r\nSubject: keda {number};\r\n\r\nx\r\n",
            )  # fmt: skip
        client.quit()
        up = seconds_until(lambda: ready(scaled, "deliver") == MOST, _UP)
        oldest = prometheus.value(
            "max(max_over_time(netmail_nmap_queue_oldest_due_seconds"
            f'{{namespace="{scaled.namespace}"}}[5m]))'
        )
        arrived = len(sink.messages) - before
    finally:
        sink.pause = 0.0
    eventually(lambda: len(sink.messages) - before >= _MESSAGES, 300 * patience())
    down = seconds_until(lambda: len(scaled.pods("deliver")) == 1, _DOWN)
    texts = [data for _, data in sink.messages[before:]]
    counts = [sum(f"keda {n};".encode() in one for one in texts) for n in range(_MESSAGES)]
    print(
        f"\ndeliver 1 -> {MOST} in {up:.0f} s (oldest item {oldest:.0f} s, {arrived} of {_MESSAGES}"
        f" arrived by then), 1 again {down:.0f} s after the queue was empty; missing"
        f" {counts.count(0)}, twice {sum(count > 1 for count in counts)};"
        f" patience {patience():.1f}"
    )
    assert counts.count(0) == 0


@pytest.mark.parametrize("component", ["pop-imap", "smtp"])
def test_connections_bring_more_pods_and_they_go_again(
    component: str, scaled: Release, prometheus: Prometheus, hosts: Sequence[Outside]
) -> None:
    address = scaled.address(component)
    connect = _imap if component == "pop-imap" else _smtp
    number = _CONNECTIONS_A_POD * (MOST - 1) + 2
    with ExitStack() as stack:
        held = [
            stack.enter_context(closing(Held(connect, hosts[one % len(hosts)], address)))
            for one in range(number)
        ]

        def are_there() -> bool:
            for one in held:
                one.keep()
            return ready(scaled, component) == MOST

        up = seconds_until(are_there, _UP)
    down = seconds_until(lambda: len(scaled.pods(component)) == 1, _DOWN)
    print(
        f"\n{component} 1 -> {MOST} in {up:.0f} s, 1 again in {down:.0f} s; of {number} connections"
        f" {sum(one.again for one in held)} had to be made again; patience {patience():.1f}"
    )


class Held:
    """A connection that is made again when it is cut.

    A load balancer that spreads flows over nodes by their hash cuts some when a pod comes up on a
    node that had none.
    """

    def __init__(
        self, connect: Callable[[Outside, str], Client], host: Outside, address: str
    ) -> None:
        self._connect = partial(connect, host, address)
        self._client = self._connect()
        self.again = 0

    def keep(self) -> None:
        """Sees to it that it is there."""
        try:
            self._client.noop()
        except _CUT:
            self.close()
            self._client = self._connect()
            self.again += 1

    def close(self) -> None:
        """Ends it without a word: whoever is cut off waits long for an answer to one."""
        if isinstance(self._client, smtplib.SMTP):
            self._client.close()
        else:
            with suppress(OSError):
                self._client.shutdown()


def _imap(host: Outside, address: str) -> Client:
    client = host.imap(address, timeout=_PATIENCE)
    client.login("alice", USERS["alice"])
    return client


def _smtp(host: Outside, address: str) -> Client:
    return host.smtp(address, timeout=_PATIENCE)
