"""What the six stages promise beside the demonstration: IPv6, absent agents, disabled users."""

import contextlib
import imaplib
import json
import os
import poplib
import re
import signal
import smtplib
import socket
from collections.abc import Iterator

import pytest

from tests.support.installation import RunningInstallation
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

SUBJECTS = iter(range(1000))


@contextlib.contextmanager
def smtp(running: RunningInstallation, source: str, port: int = 2525) -> Iterator[smtplib.SMTP]:
    host = "::1" if ":" in source else "127.0.0.1"
    with smtplib.SMTP(host, running.port(port), source_address=(source, 0), timeout=30) as client:
        client.ehlo("client.example.com")
        yield client


def reply_to_rcpt(client: smtplib.SMTP, sender: str, recipient: str) -> str:
    client.rset()
    code, text = client.mail(sender)
    assert code == 250, text
    code, text = client.rcpt(recipient)
    return f"{code} {text.decode()}"


def pop3(
    running: RunningInstallation, source: str, user: str, password: str, port: int = 2110
) -> "contextlib.closing[poplib.POP3]":
    host = "::1" if ":" in source else "127.0.0.1"

    class FromSource(poplib.POP3):
        def _create_socket(self, timeout: float | None) -> socket.socket:
            where = (host, running.port(port))
            return socket.create_connection(where, timeout, source_address=(source, 0))

    client = FromSource(host, running.port(port), timeout=30)
    try:
        client.user(user)
        client.pass_(password)
    except poplib.error_proto:
        client.close()
        raise
    return contextlib.closing(client)


def message(sender: str, recipient: str) -> tuple[str, bytes]:
    subject = f"number {next(SUBJECTS)} of {os.getpid()}"
    return (
        subject,
        f"From: {sender}\r\nTo: {recipient}\r\nSubject: {subject}\r\n\r\nHi\r\n".encode(),
    )


def in_sink(running: RunningInstallation, subject: str) -> str:
    found: list[str] = []

    def look() -> bool:
        for path in (running.state / "demo-sink").glob("*.eml"):
            text = path.read_text(errors="replace")
            if f"Subject: {subject}\n" in text:
                found.append(text)
                return True
        return False

    eventually(look)
    return found[0]


def in_mailbox(
    running: RunningInstallation, user: str, password: str, words: str, port: int = 2110
) -> str:
    found: list[str] = []

    def look() -> bool:
        with pop3(running, "127.0.0.1", user, password, port) as client:
            for number in range(1, client.stat()[0] + 1):
                text = b"\r\n".join(client.retr(number)[1]).decode(errors="replace")
                if words in text:
                    found.append(text)
                    return True
            client.quit()
        return False

    eventually(look)
    return found[0]


@pytest.mark.parametrize("source", ["127.3.0.1", "::1"])
def test_a_login_vouches_for_ipv4_and_ipv6_clients(
    running: RunningInstallation, source: str
) -> None:
    with pop3(running, source, "alice", "wonderland") as client:
        client.quit()
    subject, text = message("alice@example.org", "eve@example.net")
    with smtp(running, source) as client:
        client.sendmail("alice@example.org", ["eve@example.net"], text)
    received = in_sink(running, subject)
    assert re.search(r"^X-Auth-OK: alice$", received, re.MULTILINE)
    assert source in received


def test_an_imap_login_vouches_too_and_names_the_protocol(running: RunningInstallation) -> None:
    class FromSource(imaplib.IMAP4):
        def _create_socket(self, timeout: float | None) -> socket.socket:
            where = ("127.0.0.1", running.port(2143))
            return socket.create_connection(where, timeout, source_address=("127.3.0.2", 0))

    with FromSource("127.0.0.1", running.port(2143)) as mailbox:
        mailbox.login("bob", "builder")
    subject, text = message("bob@example.org", "eve@example.net")
    with smtp(running, "127.3.0.2") as client:
        client.sendmail("bob@example.org", ["eve@example.net"], text)
    assert "IMAP" in in_sink(running, subject).partition("X-Auth-OK")[0]


def test_mail_from_the_standalone_server_reaches_the_other_by_its_route(
    running: RunningInstallation,
) -> None:
    subject, text = message("carol@branch.example.org", "bob@example.org")
    with smtp(running, "127.3.0.3", 3587) as client:
        client.starttls()
        client.login("carol", "branch-office")
        client.sendmail("carol@branch.example.org", ["bob@example.org"], text)
    received = in_mailbox(running, "bob", "builder", subject)
    assert "by mail2.branch.example.org" in received
    assert "by mail1.example.org" in received


def test_mail_to_a_user_who_is_not_there_comes_back_from_the_other_server(
    running: RunningInstallation,
) -> None:
    subject, text = message("carol@branch.example.org", "nobody@example.org")
    with smtp(running, "127.3.0.3", 3587) as client:
        client.starttls()
        client.login("carol", "branch-office")
        client.sendmail("carol@branch.example.org", ["nobody@example.org"], text)
    returned = in_mailbox(running, "carol", "branch-office", f"Subject: {subject}", 3110)
    assert "multipart/report" in returned
    assert "5.1.1" in returned
    assert "Return-Path: <>" in returned


def test_a_user_of_another_servers_context_who_is_not_there_is_refused_at_rcpt(
    running: RunningInstallation,
) -> None:
    with smtp(running, "127.3.0.4") as client:
        reply = reply_to_rcpt(client, "eve@example.net", "nobody@branch.example.org")
        assert reply.startswith("550 5.1.1 ")
        reply = reply_to_rcpt(client, "eve@example.net", "carol@branch.example.org")
        assert reply.startswith("250 ")


def test_on_a_submission_listener_every_recipient_needs_a_known_sender(
    running: RunningInstallation,
) -> None:
    with smtp(running, "127.3.0.5", 2587) as client:
        reply = reply_to_rcpt(client, "eve@example.net", "alice@example.org")
        assert re.match(r"5[35]0 5\.7\.", reply)


def test_a_disabled_user_does_not_exist(running: RunningInstallation) -> None:
    made = running.netmail("user", "add", "fay", "--context", "users.demo", "--generate", "--json")
    password = json.loads(made.stdout)["password"]
    with pop3(running, "127.3.0.6", "fay", password) as client:
        client.quit()
    with smtp(running, "127.3.0.6") as sender:
        assert reply_to_rcpt(sender, "fay@example.org", "eve@example.net").startswith("250 ")
        running.netmail("user", "disable", "fay")
        reply = reply_to_rcpt(sender, "fay@example.org", "eve@example.net")
        assert reply.startswith("550 5.7.1 ")
        assert reply_to_rcpt(sender, "eve@example.net", "fay@example.org").startswith("550 5.1.1 ")
    with pytest.raises(poplib.error_proto, match="AUTH"):
        pop3(running, "127.3.0.6", "fay", password)
    running.netmail("user", "remove", "fay", "--yes")


def test_without_a_connection_manager_a_stranger_is_told_to_come_back(
    running: RunningInstallation,
) -> None:
    manager = running.pids("netmail_connmgr")[0]
    os.kill(manager, signal.SIGSTOP)
    try:
        with smtp(running, "127.3.0.7") as client:
            reply = reply_to_rcpt(client, "alice@example.org", "eve@example.net")
            assert reply.startswith("451 4.4.3 ")
            assert reply_to_rcpt(client, "eve@example.net", "bob@example.org").startswith("250 ")
    finally:
        os.kill(manager, signal.SIGCONT)


def test_smtp_authentication_works_without_a_connection_manager(
    running: RunningInstallation,
) -> None:
    manager = running.pids("netmail_connmgr")[0]
    subject, text = message("bob@example.org", "eve@example.net")
    os.kill(manager, signal.SIGSTOP)
    try:
        with smtp(running, "127.3.0.8", 2587) as client:
            client.starttls()
            client.login("bob", "builder")
            client.sendmail("bob@example.org", ["eve@example.net"], text)
    finally:
        os.kill(manager, signal.SIGCONT)
    assert "X-Auth-OK: bob" in in_sink(running, subject)


def test_while_the_nmap_agent_is_away_nothing_is_accepted_and_nothing_is_lost(
    running: RunningInstallation,
) -> None:
    for pid in running.pids("netmail_nmap", "mail2"):
        os.kill(pid, signal.SIGKILL)
    subject, text = message("eve@example.net", "carol@branch.example.org")

    refusals: list[str] = []

    def accepted() -> bool:
        try:
            with smtp(running, "127.3.0.9", 3525) as client:
                client.sendmail("eve@example.net", ["carol@branch.example.org"], text)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
            refusals.append(str(error))
            return False
        return True

    eventually(accepted)
    assert all(re.search(r"\b4[0-9][0-9]\b", refusal) for refusal in refusals), refusals
    in_mailbox(running, "carol", "branch-office", subject, 3110)


def test_the_bodys_octets_are_what_was_sent(running: RunningInstallation) -> None:
    subject, text = message("eve@example.net", "alice@example.org")
    body = "trailing space \r\n\tTab\r\n..dots\r\n.\u00e4\r\n" + "x" * 900 + "\r\n\r\n\r\n"
    with smtp(running, "127.3.0.10") as client:
        client.sendmail(
            "eve@example.net",
            ["alice@example.org"],
            text + body.encode(),
            mail_options=["BODY=8BITMIME"],
        )
    with pop3(running, "127.0.0.1", "alice", "wonderland") as mailbox:
        stored = [
            b"\r\n".join(mailbox.retr(n)[1]) + b"\r\n" for n in range(1, mailbox.stat()[0] + 1)
        ]
        mailbox.quit()
    found = [one for one in stored if f"Subject: {subject}".encode() in one]
    assert found[0].endswith(text + body.encode())


def test_no_password_or_message_text_and_no_traceback_is_in_the_log(
    running: RunningInstallation,
) -> None:
    log = running.text()
    table, _, rest = log.partition("\nready\n")
    assert table
    for word in ("wonderland", "builder", "branch-office", "Traceback", "trailing space"):
        assert word not in rest, word


def test_each_relay_decision_is_one_log_line(running: RunningInstallation) -> None:
    with smtp(running, "127.3.0.11") as client:
        reply_to_rcpt(client, "alice@example.org", "eve@example.net")

    def lines() -> list[str]:
        return [line for line in running.output if "127.3.0.11" in line and '"smtp"' in line]

    eventually(lambda: any("eve@example.net" in line for line in lines()))
    refused = [json.loads(line) for line in lines() if "eve@example.net" in line]
    assert len(refused) == 1
    assert refused[0]["reason"]
    assert refused[0]["address"] == "127.3.0.11"
