"""A login on one pod of the POP/IMAP agent is good on every pod of the SMTP agent at once."""

import smtplib
import statistics
import time
from collections.abc import Iterator

import pytest

from tests.cluster.support import Cluster, Outside, Release
from tests.cluster.support.patience import patience
from tests.cluster.support.release import DOMAIN, USERS
from tests.cluster.support.stages import REMOTE

pytestmark = pytest.mark.timeout(600)

LOGINS = 100
_LIMIT = 0.050
"""Seconds, p99."""
_NETWORK = "203.0.113.128/25"


@pytest.fixture
def newcomers(cluster: Cluster) -> Iterator[list[Outside]]:
    """Clients with addresses that nobody has logged in from."""
    host = cluster.outside("203.0.113.128")
    addresses = [f"203.0.113.{number}" for number in range(129, 129 + LOGINS)]
    cluster.do("exec", "ip", "route", "replace", _NETWORK, "dev", "br0")
    try:
        for address in addresses:
            host.run("ip", "address", "replace", f"{address}/32", "dev", "eth0")
        yield [Outside(address, host.place) for address in addresses]
    finally:
        cluster.do("exec", "ip", "route", "delete", _NETWORK, "dev", "br0")


@pytest.fixture
def several(installed: Release) -> Iterator[Release]:
    """Two pods of each agent that clients talk to."""
    for component in ("smtp", "pop-imap"):
        installed.scale(component, 2)
    try:
        yield installed
    finally:
        for component in ("smtp", "pop-imap"):
            installed.kubectl("scale", installed.workload(component), "--replicas=1")


def waiting_for(client: smtplib.SMTP, since: float) -> float:
    """Seconds from a moment until the client may relay."""
    while True:
        code, text = client.rcpt(REMOTE)
        if code == 250:
            return time.perf_counter() - since
        assert code in {451, 550}, text


@pytest.mark.long  # a matter of milliseconds, which a machine with other work does not have
def test_a_login_on_one_pod_is_good_on_every_smtp_pod_within_50_ms(
    several: Release, newcomers: list[Outside]
) -> None:
    mail = several.ready_pods("pop-imap")
    mtas = several.ready_pods("smtp")
    assert len(mail) == len(mtas) == 2
    took: list[float] = []
    for number, host in enumerate(newcomers):
        clients = [host.smtp(pod.address, 2525) for pod in mtas]
        try:
            for client in clients:
                assert client.mail(f"alice@{DOMAIN}")[0] == 250
            pop3 = host.pop3(mail[number % 2].address, 2995)
            pop3.user("alice")
            pop3.pass_(USERS["alice"])
            since = time.perf_counter()
            took += [waiting_for(client, since) for client in clients]
            pop3.quit()
        finally:
            for client in clients:
                client.close()
    p50, p99 = (statistics.quantiles(took, n=100)[at] for at in (49, 98))
    print(
        f"\nfrom +OK to 250, {len(took)} times on {len(mtas)} pods, in ms:"
        f" p50 {p50 * 1000:.1f}, p99 {p99 * 1000:.1f}; patience {patience():.1f}"
    )
    assert p99 < _LIMIT * patience()


def test_a_revoked_login_is_good_on_no_pod(several: Release, hosts: list[Outside]) -> None:
    host = hosts[0]
    with host.imap(several.ready_pods("pop-imap")[0].address, 2993) as client:
        client.login("alice", USERS["alice"])
    for pod in several.ready_pods("smtp"):
        with host.smtp(pod.address, 2525) as smtp:
            smtp.mail(f"alice@{DOMAIN}")
            assert smtp.rcpt(REMOTE)[0] == 250
    several.netmail("login", "revoke", "--address", host.address)
    for pod in several.ready_pods("smtp"):
        with host.smtp(pod.address, 2525) as smtp:
            smtp.mail(f"alice@{DOMAIN}")
            assert smtp.rcpt(REMOTE)[0] == 550
