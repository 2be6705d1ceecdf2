"""The whole installation beside Debian's Postfix: it sends to us, we send to it."""

import contextlib
import email
import email.policy
import poplib
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest

from tests.interop.postfix_host import PostfixHost, postfix_host
from tests.support.installation import RunningInstallation, installation
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def next_hop() -> Iterator[PostfixHost]:
    """A Postfix that refuses some, each in its own way."""
    settings = {
        "smtpd_recipient_restrictions": (
            "check_recipient_access inline:{"
            " { later@example.net = 450 4.2.1 mailbox busy, try later },"
            " { nobody@example.net = 550 5.1.1 no such user } }"
        ),
    }
    with postfix_host(settings) as host:
        yield host


@pytest.fixture(scope="module")
def ours(
    next_hop: PostfixHost, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningInstallation]:
    """The demonstration with that Postfix as the remote world, impatient."""

    def change(data: dict[str, Any]) -> None:
        server = data["messaging_servers"][0]
        server["deliver"]["routes"] = [
            {"domain": "example.net", "hosts": [f"127.0.0.1:{next_hop.port}"]}
        ]
        server["smtp"]["workers"] = 1
        server["nmap"]["queue"] = {"first_retry": 1, "max_retry": 1}

    with installation(
        tmp_path_factory.mktemp("state"), change=change, ports={next_hop.port: next_hop.port}
    ) as running:
        yield running


def mailbox(running: RunningInstallation, subject: str) -> list[EmailMessage]:
    """alice's messages whose subject contains SUBJECT."""
    with contextlib.closing(poplib.POP3("127.0.0.1", running.port(2110), timeout=20)) as client:
        client.user("alice")
        client.pass_("wonderland")
        found = []
        for number in range(1, client.stat()[0] + 1):
            octets = b"\r\n".join(client.retr(number)[1]) + b"\r\n"
            message = email.message_from_bytes(octets, policy=email.policy.default)
            if subject in str(message["Subject"]) or subject.encode() in octets:
                found.append(message)
        client.quit()
        return found


def submit(running: RunningInstallation, *recipients: str, subject: str) -> None:
    """alice sends, authenticated."""
    with smtplib.SMTP("127.0.0.1", running.port(2587), timeout=20) as client:
        client.login("alice", "wonderland")
        client.sendmail(
            "alice@example.org",
            recipients,
            f"From: alice@example.org\r\nSubject: {subject}\r\n\r\nhello\r\n",
        )


def test_a_message_reaches_the_next_hop_with_the_users_name(
    ours: RunningInstallation, next_hop: PostfixHost
) -> None:
    submit(ours, "bob@example.net", subject="to-postfix")
    arrived = eventually(lambda: [m for m in next_hop.messages() if b"to-postfix" in m])[0]
    assert b"X-Auth-OK: alice" in arrived


def test_each_recipient_has_its_own_fate_and_the_sender_hears_of_failures(
    ours: RunningInstallation, next_hop: PostfixHost
) -> None:
    people = ("bob@example.net", "later@example.net", "nobody@example.net")
    submit(ours, *people, subject="three-fates")
    eventually(lambda: [m for m in next_hop.messages() if b"three-fates" in m])
    (report,) = eventually(lambda: mailbox(ours, "three-fates"))
    assert report.get_content_type() == "multipart/report"
    failed: Any = list(report.iter_parts())[1].get_payload()
    assert [group["Final-Recipient"] for group in failed[1:]] == ["rfc822; nobody@example.net"]
    assert failed[1]["Status"] == "5.1.1"
    assert "550 5.1.1" in failed[1]["Diagnostic-Code"]
    queue = ours.netmail("queue", "list", "--json").stdout
    assert "later@example.net" in queue
    assert "nobody@example.net" not in queue


def test_postfix_delivers_to_our_users_and_returns_what_we_refuse(
    ours: RunningInstallation,
) -> None:
    settings = {
        "relay_domains": "example.org",
        "transport_maps": f"inline:{{ {{ example.org = smtp:[127.0.0.1]:{ours.port(2525)} }} }}",
        "smtp_tls_security_level": "may",
        "smtp_tls_loglevel": "1",
        "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    }
    with postfix_host(settings) as host:
        for recipient in ("alice@example.org", "nobody@example.org"):
            with smtplib.SMTP("127.0.0.1", host.port, timeout=20) as client:
                client.sendmail(
                    "carol@example.net",
                    [recipient],
                    "From: carol@example.net\r\nSubject: from-postfix\r\n\r\n.dot\r\nend\r\n",
                )
        (message,) = eventually(lambda: mailbox(ours, "from-postfix"))
        assert message.get_content() == ".dot\r\nend\r\n"
        (bounce,) = host.wait_for(1)
        assert b"Status: 5.1.1" in bounce
        assert b"nobody@example.org" in bounce
        assert "Untrusted TLS connection established to 127.0.0.1" in host.log_text()
