"""`helm upgrade` with another configuration: pods that run take it, none is started anew."""

import smtplib

import pytest

from tests.cluster.conftest import values_for
from tests.cluster.support import USERS, Outside, Release, Sink
from tests.cluster.support.release import default_values, merged
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NEW_DOMAIN = "new.example"
_WITHIN = 240
"""Seconds; a node looks after a changed ConfigMap once in a minute or two."""


def pods(installed: Release) -> dict[str, int]:
    """How often each pod's container was started anew."""
    return {
        pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in installed.get("pods", "--field-selector=status.phase=Running")["items"]
    }


def is_local(host: Outside, address: str, recipient: str) -> bool:
    """Whether mail from a stranger to it is taken."""
    with host.smtp(address) as client:
        client.mail("stranger@example.net")
        return client.rcpt(recipient)[0] == 250


def may_connect(host: Outside, address: str) -> bool:
    """Whether the SMTP Agent talks to it."""
    try:
        host.smtp(address).close()
    except (smtplib.SMTPException, ConnectionError):
        return False
    return True


def test_a_domain_and_a_blocked_network_are_taken_without_a_new_pod_or_a_lost_connection(
    installed: Release, sink: Sink, hosts: list[Outside]
) -> None:
    smtp = installed.address("smtp")
    blocked, stranger, alice = hosts[1:4]
    values = merged(default_values(), values_for(sink))
    changed = {
        "domains": [NEW_DOMAIN],
        "connectionManager": {"lists": {"blocked": [blocked.address]}},
    }
    before = pods(installed)
    imap = alice.imap(installed.address("pop-imap"), timeout=_WITHIN)
    imap.login("alice", USERS["alice"])
    assert not is_local(stranger, smtp, f"postmaster@{NEW_DOMAIN}")
    assert may_connect(blocked, smtp)
    try:
        installed.install(merged(values, changed))
        eventually(lambda: is_local(stranger, smtp, f"postmaster@{NEW_DOMAIN}"), _WITHIN)
        eventually(lambda: not may_connect(blocked, smtp), _WITHIN)
    finally:
        installed.install(values)
    eventually(lambda: may_connect(blocked, smtp), _WITHIN)
    assert imap.noop()[0] == "OK"
    imap.logout()
    assert pods(installed) == before
