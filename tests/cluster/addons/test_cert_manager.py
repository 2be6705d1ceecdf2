"""cert-manager makes every certificate; it renews them under load, and no connection is lost."""

import base64
import hashlib
import imaplib
import smtplib
import ssl
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.conftest import values_for
from tests.cluster.support import USERS, Cluster, Outside, Release, Sink, SteadyLoad
from tests.cluster.support.outside import unverified
from tests.cluster.support.release import merged, release
from tests.support.waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(TIMEOUT)]

# As often as cert-manager lets one; a node hands a new Secret to its pods within a minute or two.
EVERY_HALF_MINUTE = {"duration": "1h", "renewBefore": "59m30s"}
_POLL = 3
SERVING = ("connmgr", "nmap", "smtp", "pop-imap", "deliver")


@pytest.fixture(scope="module")
def managed(cluster: Cluster, sink: Sink) -> Iterator[Release]:
    """The default installation, with certificates of a CA of its own by cert-manager."""
    needs(cluster, "cert-manager", "certificates.cert-manager.io")
    certificates = {"mode": "cert-manager", "certManager": EVERY_HALF_MINUTE}
    values = merged(values_for(sink), {"certificates": certificates})
    with release(cluster, NAMESPACE, values) as made:
        yield made


def presented(host: Outside, address: str, port: int) -> str:
    """The digest of the certificate that a listener with implicit TLS shows."""
    with (
        host.connect(address, port) as raw,
        unverified().wrap_socket(raw, server_hostname=address) as wrapped,
    ):
        return hashlib.sha256(wrapped.getpeercert(binary_form=True) or b"").hexdigest()


def kept_connections(managed: Release, host: Outside) -> tuple[imaplib.IMAP4_SSL, smtplib.SMTP]:
    """A mailbox that is open, and a submission client that is logged in."""
    imap = host.imap(managed.address("pop-imap"))
    imap.login("alice", USERS["alice"])
    imap.select("INBOX")
    smtp = host.smtp(managed.address("smtp"), 587, starttls=True)
    smtp.login("bob", USERS["bob"])
    return imap, smtp


def reloads(managed: Release, component: str) -> int:
    """How often the pods of a component took another certificate of their role."""
    return managed.kubectl(
        "logs", "-l", managed.selector(component), "--tail=-1", "--all-containers"
    ).count('"certificate reloaded"')


def test_the_ca_is_the_installations_own_and_signs_the_listeners(
    managed: Release, hosts: Sequence[Outside]
) -> None:
    secret = managed.get("secret", "netmail-tls")["data"]
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=base64.b64decode(secret["ca.crt"]).decode())
    with (
        hosts[0].connect(managed.address("pop-imap"), 993) as raw,
        context.wrap_socket(raw, server_hostname="mail.example.org") as wrapped,
    ):
        assert wrapped.version() in {"TLSv1.2", "TLSv1.3"}


def test_certificates_are_renewed_under_load_without_a_lost_connection(
    managed: Release, sink: Sink, hosts: Sequence[Outside]
) -> None:
    imap, smtp = kept_connections(managed, hosts[0])
    mail = managed.address("pop-imap")
    load = SteadyLoad(managed, sink, hosts, pause=2)
    with load:
        load.wait_for(2, within=300)
        before = {name: reloads(managed, name) for name in SERVING}
        shown = {presented(hosts[0], mail, 993)}

        def renewed() -> bool:
            time.sleep(_POLL)
            shown.add(presented(hosts[0], mail, 993))
            return len(shown) >= 3 and all(
                reloads(managed, name) > before[name] for name in SERVING
            )

        eventually(renewed, 600)
        load.wait_for(2, within=300)
        assert imap.noop()[0] == "OK"
        assert smtp.noop()[0] == 250
    after = {name: reloads(managed, name) - before[name] for name in SERVING}
    finding = load.check(within=300)
    print(
        f"\ncert-manager: {finding.acknowledged} recipients, none missing; listeners showed "
        f"{len(shown)} certificates; reloads by agent {after}; "
        f"{round(load.ended - load.began)} s; troubles {load.troubles()}"
    )
    assert not any(load.troubles().values())
    imap.logout()
    smtp.quit()


def test_uninstalling_leaves_no_key_behind(managed: Release) -> None:
    before = {one["metadata"]["name"] for one in managed.get("secrets")["items"]}
    assert {"netmail-cert-manager-ca", "netmail-tls", "netmail-grpc-nmap"} <= before
    managed.uninstall()
    left = {one["metadata"]["name"] for one in managed.get("secrets")["items"]}
    assert left == set()
