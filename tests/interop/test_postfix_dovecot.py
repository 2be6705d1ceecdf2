"""Postfix relays after a login at Dovecot: both from Debian, by the documentation's own examples.

A Connection Manager alone, on the server's host with both of them; the client is another host with
addresses of its own (network namespaces), so that every address is what it would be in the world.
"""

import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import Iterator

import pytest

from tests.interop.postfix_dovecot_site import (
    CLIENT,
    LATER,
    LOGIN_FIRST,
    USERS,
    WORD,
    Plan,
    Site,
    site,
)
from tests.support.namespaces import TwoHosts, two_hosts
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with two_hosts(CLIENT) as made:
        yield made


@pytest.fixture(scope="module")
def server(hosts: TwoHosts) -> Iterator[Site]:
    with site(hosts, Plan()) as made:
        yield made


class TestAuthPolicy:
    def test_an_imap_login_opens_the_relay_for_its_address_alone(self, server: Site) -> None:
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")
        assert not server.relays("198.18.0.8")
        (login,) = server.logins("list", "--user", "alice@example.org")
        assert login["user"] == "alice@example.org"
        assert login["protocol"] == "auth policy"
        assert login["client_address"] == "198.18.0.7"

    def test_a_pop3_login_opens_it_for_its_64(self, server: Site) -> None:
        assert not server.relays("2001:db8:0:7::1")
        assert server.pop3("2001:db8:0:7::1")
        assert server.relays("2001:db8:0:7::1")
        assert server.relays("2001:db8:0:7::2")
        assert not server.relays("2001:db8:0:8::1")

    def test_a_wrong_password_opens_nothing(self, server: Site) -> None:
        assert server.imap("198.18.0.9", word="wrong") == "NO"
        assert not server.pop3("198.18.0.9", word="wrong")
        assert not server.relays("198.18.0.9")

    def test_the_sender_must_be_the_users(self, server: Site) -> None:
        assert server.imap("198.18.0.7") == "OK"
        assert not server.relays("198.18.0.7", "bob@example.org")
        assert server.imap("198.18.0.7", "bob@example.org") == "OK"
        assert server.relays("198.18.0.7", "bob@example.org")

    def test_the_header_names_the_user_and_a_forged_one_is_gone(self, server: Site) -> None:
        assert server.imap("198.18.0.7") == "OK"
        forged = (
            "X-Auth-OK: mallory\r\nx-auth-ok: mallory\r\nX-AUTH-OK : mallory\r\n"
            "X-Auth-OK:\r\n mallory\r\nX-Auth-OK: guess mallory\r\nX-Auth-User: mallory\r\n"
        )
        code, subject = server.send("198.18.0.7", header=forged)
        assert code == 250
        header = server.arrived(subject)
        assert header.count(b"X-Auth-OK: alice@example.org\n") == 1
        assert b"mallory" not in header
        assert WORD.encode() not in header

    def test_a_stranger_reaches_our_users_and_his_forged_header_does_not(
        self, server: Site
    ) -> None:
        code, subject = server.send(
            "198.18.0.8", "carol@elsewhere.example", "dave@example.net",
            header="X-Auth-OK: alice@example.org\r\n",
        )  # fmt: skip
        assert code == 250
        assert b"x-auth-ok" not in server.arrived(subject).lower()

    def test_headers_inside_a_message_stay(self, server: Site) -> None:
        inner = uuid.uuid4().hex
        code, _ = server.send(
            "198.18.0.8", "carol@elsewhere.example", "dave@example.net",
            header=f"Subject: outer {inner}\r\nContent-Type: message/rfc822\r\n\r\n"
            "X-Auth-OK: kept\r\n",
        )  # fmt: skip
        assert code == 250
        eventually(lambda: any(inner.encode() in m for m in server.postfix.messages()))
        (message,) = [m for m in server.postfix.messages() if inner.encode() in m]
        assert b"X-Auth-OK: kept" in message

    def test_smtp_auth_is_named_and_vouches_for_no_address(self, server: Site) -> None:
        auth = ("alice@example.org", USERS["alice@example.org"])
        code, subject = server.send("198.18.0.10", auth=auth)
        assert code == 250
        assert b"X-Auth-OK: alice@example.org\n" in server.arrived(subject)
        assert not server.relays("198.18.0.10")

    def test_a_revoked_login_opens_nothing_until_the_next_one(self, server: Site) -> None:
        assert server.imap("198.18.0.7") == "OK"
        assert server.logins("revoke", "--user", "alice@example.org")["revoked"] >= 1
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")

    def test_a_known_sender_may_send_so_much_and_no_more(self, server: Site) -> None:
        carol = "carol@example.org"
        assert server.imap("198.18.0.9", carol) == "OK"
        assert server.relays("198.18.0.9", carol)
        assert server.relays("198.18.0.9", carol)
        assert server.has_sent_too_much("198.18.0.9", carol)
        auth = (carol, USERS[carol])
        assert server.send("198.18.0.9", carol, auth=auth)[0] == 250
        assert server.has_sent_too_much("198.18.0.9", carol, auth)
        # Whoever else is there goes on.
        assert server.imap("198.18.0.9") == "OK"
        assert server.relays("198.18.0.9")

    def test_who_guesses_is_refused_even_the_right_password(self, server: Site) -> None:
        for _ in range(6):
            assert server.imap("198.18.0.11", "bob@example.org", "wrong") == "NO"
        assert server.imap("198.18.0.11", "bob@example.org") == "NO"
        assert not server.relays("198.18.0.11", "bob@example.org")
        assert server.imap("198.18.0.10", "bob@example.org") == "OK"

    def test_without_the_connection_manager_everybody_comes_again_and_local_mail_goes_on(
        self, server: Site
    ) -> None:
        assert server.imap("198.18.0.7") == "OK"
        (pid,) = server.manager.pids("netmail_connmgr")
        os.kill(pid, signal.SIGSTOP)
        try:
            code, _ = server.send("198.18.0.7")
            assert code in LATER
            code, _ = server.send("198.18.0.8")
            assert code in LATER
            code, _ = server.send("198.18.0.8", "x@elsewhere.example", "dave@example.net")
            assert code == 250
            assert server.imap("198.18.0.7") == "OK"  # mail can still be read
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: server.send("198.18.0.7")[0] == 250)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.send("198.18.0.7")[0] == LOGIN_FIRST[0], 60)
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")


def test_while_nobody_can_say_postfix_is_told_to_defer(hosts: TwoHosts) -> None:
    """The worker that Postfix asks is there, the process that owns the table stands still."""
    with site(hosts, Plan(workers=1, patience="20s")) as server:
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")
        worker = server.manager.pids("netmail_connmgr", "--worker")
        (owner,) = set(server.manager.pids("netmail_connmgr")) - set(worker)
        os.kill(owner, signal.SIGSTOP)
        try:
            code, text = server.send("198.18.0.7")
            assert code in LATER, text
            assert "problem talking to server" not in server.postfix.log_text()
            code, text = server.send("198.18.0.8", "x@elsewhere.example", "dave@example.net")
            assert code == 250, text
        finally:
            os.kill(owner, signal.SIGCONT)
        eventually(lambda: server.send("198.18.0.7")[0] == 250)


def test_a_post_login_script_does_it_for_dovecots_without_a_policy(hosts: TwoHosts) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs the Debian package curl")
    with site(hosts, Plan("dovecot-post-login.conf")) as server:
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        eventually(lambda: server.send("198.18.0.7")[0] == 250)
        assert server.pop3("198.18.0.8", "bob@example.org")
        eventually(lambda: server.relays("198.18.0.8", "bob@example.org"))
        assert server.imap("198.18.0.9", word="wrong") == "NO"
        assert not server.relays("198.18.0.9")


def test_from_other_hosts_postfix_asks_by_tcp_and_dovecot_tells_by_tls(hosts: TwoHosts) -> None:
    with site(hosts, Plan(manager="postfix-dovecot-remote.yaml")) as server:
        assert not server.relays("198.18.0.7")
        assert server.imap("198.18.0.7") == "OK"
        assert server.relays("198.18.0.7")
        # The client's host is none of those that may ask or tell.
        for port in server.plan.policy_port, server.plan.report_port:
            with (
                server.connect("198.18.0.8", port) as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(b"request=smtpd_access_policy\n\n")
                assert connection.recv(1) == b""
