"""SMTP sessions on real sockets: who may send where, and what the message carries then."""

import pytest
from netmail.connmgr.v1 import connmgr_pb2
from netmail.nmap.v1 import queue_pb2

from tests.smtp.conftest import Start
from tests.smtp.receiving import FROM_ALICE, OPEN, PLAIN_ALICE

REMOTE = "friend@example.net"
PLAIN_BOB = "AUTH PLAIN AGJvYgBidWlsZGVy"


async def test_mail_to_a_local_user_needs_nothing(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        content = "Subject: hi\r\n\r\nHello\r\n"
        reply = await client.message(content, "s@example.net", "bob@example.org")
        assert reply.startswith("250 2.0.0 Ok: queued as ")
        assert server.last.envelope.sender == "s@example.net"
        assert [r.address for r in server.last.envelope.recipients] == ["bob@example.org"]
        assert server.last.data.endswith(b"Subject: hi\r\n\r\nHello\r\n")
        assert server.last.data.startswith(b"Received: from client.example.net ([127.0.0.1])\r\n")
        assert b"X-Auth-OK" not in server.last.data
        assert server.last.envelope.relayed_for == ""


async def test_a_stranger_is_told_how_to_become_known(start: Start) -> None:
    async with start() as server:
        client = await server.connect()
        await client.say("MAIL FROM:<alice@example.org>")
        assert await client.say(f"RCPT TO:<{REMOTE}>") == (
            f"550 5.7.1 Relaying to <{REMOTE}> denied: log in by POP3 or IMAP4 first,"
            " or use SMTP authentication"
        )


async def test_a_login_from_the_same_address_lets_the_user_relay(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7", ehlo="my-laptop")
        assert (await client.message(FROM_ALICE, "alice@example.org", REMOTE)).startswith("250")
        assert b"\r\nX-Auth-OK: alice\r\n" in server.last.data
        assert b"user alice of users.demo, known by POP3 login" in server.last.data
        assert b" with ESMTP id " in server.last.data
        assert server.last.envelope.relayed_for == "alice@users.demo"


async def test_a_login_vouches_for_its_address_only(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.8")
        reply = await client.message(FROM_ALICE, "alice@example.org", REMOTE)
        assert reply.startswith("550 5.7.1 Relaying")


async def test_a_login_from_a_shared_network_never_grants(start: Start) -> None:
    async with start(loopback_grants=False) as server:
        client = await server.connect()
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(f"RCPT TO:<{REMOTE}>")).startswith("550 5.7.1")


async def test_a_revoked_login_is_asked_about_again_at_the_end_of_the_data(start: Start) -> None:
    async with start(smtp={"replica_max_logins": 0}) as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(f"RCPT TO:<{REMOTE}>")).startswith("250")
        await client.say("DATA")
        await server.revoke("alice")
        assert (await client.say(FROM_ALICE + ".")).startswith("550 5.7.1 Relaying denied")
        assert server.nmap.submitted == []


async def test_several_users_at_one_address_are_counted_in_the_trace(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        await server.login("bob", "127.0.0.7", protocol=connmgr_pb2.PROTOCOL_IMAP)
        client = await server.connect(address="127.0.0.7")
        assert (await client.message(FROM_ALICE, "alice@example.org", REMOTE)).startswith("250")
        assert b"X-Auth-OK: alice\r\n" in server.last.data
        assert b"one of 2 users at this address" in server.last.data
        from_bob = FROM_ALICE.replace("alice", "bob")
        assert (await client.message(from_bob, "bob@example.org", REMOTE)).startswith("250")
        assert b"X-Auth-OK: bob\r\n" in server.last.data
        assert b"IMAP4 login" in server.last.data


@pytest.mark.parametrize(
    ("sender", "header", "expected"),
    [
        ("alice@example.org", "From: alice@example.org", "250"),
        ("", "From: alice@example.org", "250"),
        ("alice@example.org", "From: sales@example.org", "250"),
        ("alice@example.org", "From: bob@example.org", "550 5.7.1"),
        ("bob@example.org", "From: alice@example.org", "550 5.7.1"),
        ("mallory@example.com", "From: alice@example.org", "550 5.7.1"),
        ("alice@example.org", "From: mallory@example.com", "550 5.7.1"),
        ("alice@example.org", "From : alice@example.org", "550 5.6.0"),
        ("alice@example.org", "Subject: none", "550 5.6.0"),
        ("", "From: bob@example.org", "550 5.7.1"),
    ],
)
async def test_after_a_login_senders_of_the_domain_pass_unless_they_are_somebody_elses(
    start: Start, sender: str, header: str, expected: str
) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        reply = await client.message(f"{header}\r\n\r\nHello\r\n", sender, REMOTE)
        assert reply.startswith(expected)


@pytest.mark.parametrize("sender", ["alice@example.org", ""])
async def test_a_login_that_names_nobody_is_told_how_to_become_known(
    start: Start, sender: str
) -> None:
    """Only agents of NetMail 2 and 3 register such."""
    async with start() as server:
        await server.connmgr.register_one(
            connmgr_pb2.LoginRegistration(
                client_address=bytes([127, 0, 0, 7]), protocol=connmgr_pb2.PROTOCOL_LEGACY_UDP
            )
        )
        client = await server.connect(address="127.0.0.7")
        await client.say(f"MAIL FROM:<{sender}>")
        reply = await client.say(f"RCPT TO:<{REMOTE}>")
        assert reply.startswith(f"550 5.7.1 Relaying to <{REMOTE}> denied: log in by POP3 or IMAP4")


@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest.mark.parametrize("after_login", ["domain", "strict"])
async def test_what_the_catch_all_user_gets_is_nobodys_address(
    start: Start, user: str, after_login: str
) -> None:
    async with start(server={"sender_binding": {"after_login": after_login}}) as server:
        server.nmap.catch_all = "bob"
        await server.login(user, "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        reply = await client.message(
            "From: whoever@example.org\r\n\r\nx\r\n", "whoever@example.org", REMOTE
        )
        assert reply.startswith("250" if after_login == "domain" else "550 5.7.1")


@pytest.mark.parametrize("user", ["alice", "bob"])
async def test_after_auth_the_catch_all_users_mail_is_nobodys_address_too(
    start: Start, user: str
) -> None:
    plain = {"alice": PLAIN_ALICE, "bob": PLAIN_BOB}[user]
    async with start(listeners=OPEN, server={"sender_binding": {"after_auth": "domain"}}) as server:
        server.nmap.catch_all = "bob"
        client = await server.connect()
        assert (await client.say(plain)).startswith("235")
        assert (await client.say("MAIL FROM:<whoever@example.org>")).startswith("250")


async def test_another_users_address_passes_while_that_user_is_logged_in_too(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        await server.login("bob", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        reply = await client.message(
            "From: bob@example.org\r\n\r\nx\r\n", "alice@example.org", REMOTE
        )
        assert reply.startswith("250")


@pytest.mark.parametrize(
    ("after_login", "header", "expected"),
    [
        ("strict", "From: sales@example.org", "550 5.7.1"),
        ("strict", "From: alice@example.org", "250"),
        ("any", "From: mallory@example.com", "250"),
        ("any", "From : nonsense", "250"),
    ],
)
async def test_the_binding_after_a_login_can_be_chosen(
    start: Start, after_login: str, header: str, expected: str
) -> None:
    async with start(server={"sender_binding": {"after_login": after_login}}) as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        reply = await client.message(f"{header}\r\n\r\nx\r\n", "alice@example.org", REMOTE)
        assert reply.startswith(expected)
        if expected == "250":
            assert b"X-Auth-OK: alice\r\n" in server.last.data


async def test_smtp_auth_lets_the_user_relay(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        assert (await client.say(PLAIN_ALICE)).startswith("235 2.7.0")
        assert (await client.message(FROM_ALICE, "alice@example.org", REMOTE)).startswith("250")
        assert b" with ESMTPA id " in server.last.data
        assert b"known by SMTP AUTH PLAIN" in server.last.data
        assert b"X-Auth-OK: alice\r\n" in server.last.data


async def test_after_auth_only_ones_own_addresses_pass(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        await client.say(PLAIN_ALICE)
        reply = await client.say("MAIL FROM:<bob@example.org>")
        assert reply.startswith("550 5.7.1")
        assert "bob@example.org" in reply
        assert "alice" in reply
        for sender in ("alice.liddell@example.org", "alice+tag@example.org", ""):
            content = f"From: {sender or 'alice@example.org'}\r\n\r\nx\r\n"
            assert (await client.message(content, sender, REMOTE)).startswith("250")
        forged = "From: bob@example.org\r\n\r\nx\r\n"
        assert (await client.message(forged, "alice@example.org", REMOTE)).startswith("550 5.7.1")


async def test_with_binding_domain_after_auth_the_directory_tells_whose_an_address_is(
    start: Start,
) -> None:
    binding = {"sender_binding": {"after_auth": "domain"}}
    async with start(listeners=OPEN, server=binding) as server:
        client = await server.connect()
        await client.say(PLAIN_ALICE)
        assert (await client.say("MAIL FROM:<sales@example.org>", "RSET")).startswith("250")
        assert (await client.say("MAIL FROM:<bob@example.org>")).startswith("550 5.7.1")
        server.nmap.resolve_fails = True
        assert (await client.say("MAIL FROM:<sales@example.org>")).startswith("451 4.3.0")


async def test_auth_grants_even_with_both_options_off(start: Start) -> None:
    off = {"remote_sending_authenticated_only": False, "smtp_after_pop": False}
    async with start(listeners=OPEN, server={"ube_relaying": off}) as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        await client.say("MAIL FROM:<alice@example.org>")
        reply = await client.say(f"RCPT TO:<{REMOTE}>")
        assert reply == f"550 5.7.1 Relaying to <{REMOTE}> denied: use SMTP authentication"
        await client.say("RSET")
        await client.say(PLAIN_ALICE)
        assert (await client.message(FROM_ALICE, "alice@example.org", REMOTE)).startswith("250")


async def test_a_way_to_relay_can_be_switched_off_per_listener(start: Start) -> None:
    listeners = [{"smtp_after_pop": False, "allowed_networks": False}, {}]
    smtp = {"allowed_networks": ["127.0.0.9/32"]}
    async with start(listeners=listeners, smtp=smtp) as server:
        await server.login("alice", "127.0.0.7")
        for address in ("127.0.0.7", "127.0.0.9"):
            for number, expected in enumerate(("550 5.7.1", "250")):
                client = await server.connect(number, address=address)
                await client.say("MAIL FROM:<alice@example.org>")
                assert (await client.say(f"RCPT TO:<{REMOTE}>")).startswith(expected)


async def test_an_allowed_network_relays_any_sender_without_a_user(start: Start) -> None:
    async with start(smtp={"allowed_networks": ["127.0.0.9/32"]}) as server:
        client = await server.connect(address="127.0.0.9")
        assert (await client.message("Subject: x\r\n\r\n", "a@b.example", REMOTE)).startswith("250")
        assert b"X-Auth-OK" not in server.last.data
        assert b"(relayed for an allowed network)" in server.last.data


async def test_relay_domains_need_nothing_on_mx_but_tricks_do_not_pass(start: Start) -> None:
    async with start(smtp={"relay_domains": ["backup.example"]}) as server:
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say("RCPT TO:<u@backup.example>")).startswith("250")
        for path in ("u%x@backup.example", "x!u@backup.example", '"u@x"@backup.example'):
            assert (await client.say(f"RCPT TO:<{path}>")).startswith("550 5.7.1")
        assert (await client.say("RCPT TO:<@x.example:u@backup.example>")).startswith("550 5.7.1")


async def test_tricks_do_not_pass_for_known_senders_either(start: Start) -> None:
    async with start(listeners=OPEN) as server:
        client = await server.connect()
        await client.say(PLAIN_ALICE)
        await client.say("MAIL FROM:<alice@example.org>")
        for path in ("u%x@example.net", "x!u@example.net", '"u@x"@example.net', "@x:u@example.net"):
            assert (await client.say(f"RCPT TO:<{path}>")).startswith("550 5.7.1")
        assert (await client.say("RCPT TO:<u%example.net@example.org>")).startswith("550 5.1.1")


async def test_a_submission_listener_takes_nothing_from_strangers(start: Start) -> None:
    listeners = [{"role": "submission", "plaintext_auth": True}]
    async with start(listeners=listeners) as server:
        client = await server.connect()
        await client.say("MAIL FROM:<alice@example.org>")
        for recipient in ("bob@example.org", "nobody@example.org", REMOTE):
            assert (await client.say(f"RCPT TO:<{recipient}>")).startswith("530 5.7.0")
        await client.say("RSET")
        await client.say(PLAIN_ALICE)
        reply = await client.message(FROM_ALICE, "alice@example.org", "bob@example.org")
        assert reply.startswith("250")


@pytest.mark.parametrize(
    ("listener", "auth", "completed"),
    [(0, False, False), (0, True, True), (1, False, True), (1, True, True)],
)
async def test_date_message_id_and_bcc_are_looked_after_where_mail_is_submitted(
    start: Start, listener: int, auth: bool, completed: bool
) -> None:
    both = [{"plaintext_auth": True}, {"plaintext_auth": True, "role": "submission"}]
    async with start(listeners=both) as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(listener, address="127.0.0.7")
        if auth:
            assert (await client.say(PLAIN_ALICE)).startswith("235")
        content = "From: alice@example.org\r\nBcc: bob@example.org\r\n\r\nHello\r\n"
        assert (await client.message(content, "alice@example.org", REMOTE)).startswith("250")
        data = server.last.data
        assert (b"\r\nDate: " in data) is completed
        assert (b"\r\nMessage-ID: " in data) is completed
        assert (b"\r\nBcc: " in data) is not completed


async def test_a_login_is_enough_on_a_submission_listener(start: Start) -> None:
    async with start(listeners=[{"role": "submission"}]) as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        reply = await client.message(FROM_ALICE, "alice@example.org", "bob@example.org")
        assert reply.startswith("250")
        assert b"X-Auth-OK: alice" in server.last.data


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("bob@example.org", "250 2.1.5"),
        ("BOB@EXAMPLE.ORG", "250 2.1.5"),
        ("bob+tag@example.org", "250 2.1.5"),
        ("Postmaster", "250 2.1.5"),
        ("postmaster@example.org", "250 2.1.5"),
        ("@relay.example:bob@example.org", "250 2.1.5"),
        ("nobody@example.org", "550 5.1.1"),
        ("disabled@example.org", "550 5.1.1"),
        ("full@example.org", "452 4.2.2"),
    ],
)
async def test_the_directory_decides_about_local_recipients(
    start: Start, recipient: str, expected: str
) -> None:
    async with start() as server:
        server.nmap.add("disabled", "x").disabled = True
        server.nmap.add("full", "x").full = True
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say(f"RCPT TO:<{recipient}>")).startswith(expected)


async def test_a_directory_that_does_not_answer_means_451(start: Start) -> None:
    async with start() as server:
        server.nmap.resolve_fails = True
        client = await server.connect()
        await client.say("MAIL FROM:<s@example.net>")
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("451 4.3.0")


async def test_a_connection_manager_that_does_not_answer_means_451(start: Start) -> None:
    async with start(smtp={"connmgr_timeout": 0.5, "replica_max_logins": 0}) as server:
        await server.login("alice", "127.0.0.7")
        await server.connmgr_server.stop(0)
        client = await server.connect(address="127.0.0.7")
        await client.say("MAIL FROM:<alice@example.org>")
        assert (await client.say(f"RCPT TO:<{REMOTE}>")).startswith("451 4.4.3")
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("250")


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (queue_pb2.SUBMIT_OUTCOME_TEMPORARY_FAILURE, "451 4.3.0"),
        (queue_pb2.SUBMIT_OUTCOME_INSUFFICIENT_STORAGE, "452 4.3.1"),
        (queue_pb2.SUBMIT_OUTCOME_INVALID, "554 5.3.0"),
    ],
)
async def test_what_the_store_says_is_what_the_client_gets(
    start: Start, outcome: "queue_pb2.SubmitOutcome.ValueType", expected: str
) -> None:
    async with start() as server:
        server.nmap.submit_outcome = outcome
        client = await server.connect()
        reply = await client.message(FROM_ALICE, "s@example.net", "bob@example.org")
        assert reply.startswith(expected)


async def test_known_senders_may_ask_for_success_reports_and_strangers_not(start: Start) -> None:
    async with start() as server:
        await server.login("alice", "127.0.0.7")
        for address, granted in (("127.0.0.7", True), ("127.0.0.8", False)):
            client = await server.connect(address=address)
            await client.say("MAIL FROM:<alice@example.org> RET=HDRS ENVID=Id+2B1")
            reply = await client.say(
                "RCPT TO:<bob@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob@X",
            )
            assert reply.startswith("250")
            await client.say("DATA")
            await client.say(FROM_ALICE + ".")
            envelope = server.last.envelope
            assert (envelope.return_headers_only, envelope.envelope_id) == (True, "Id+1")
            recipient = envelope.recipients[0]
            assert recipient.notify_given
            assert recipient.notify_success is granted
            assert recipient.notify_delay
            assert not recipient.notify_failure
            assert recipient.original_recipient == "rfc822;Bob@X"


async def test_strangers_with_half_a_name_can_be_refused_and_known_senders_are_not(
    start: Start,
) -> None:
    async with start(listeners=[{"require_full_helo": True}]) as server:
        await server.login("alice", "127.0.0.7")
        for address, name, expected in (
            ("127.0.0.8", "laptop", "550 5.7.1"),
            ("127.0.0.8", "laptop.example.net", "250"),
            ("127.0.0.8", "[127.0.0.8]", "250"),
            ("127.0.0.7", "laptop", "250"),
        ):
            client = await server.connect(address=address, ehlo=name)
            await client.say("MAIL FROM:<alice@example.org>")
            assert (await client.say("RCPT TO:<bob@example.org>")).startswith(expected)


async def test_too_many_relay_refusals_end_the_session(start: Start) -> None:
    async with start(smtp={"limits": {"relay_refusals": 3}}) as server:
        client = await server.connect()
        await client.say("MAIL FROM:<alice@example.org>")
        for number in range(3):
            assert (await client.say(f"RCPT TO:<u{number}@example.net>")).startswith("550 5.7.1")
        assert (await client.reply()).startswith("421 4.7.0")
        assert await client.reply() == ""


async def test_an_address_asks_the_connection_manager_ten_times_a_second_at_most(
    start: Start,
) -> None:
    async with start() as server:
        replies = []
        for _ in range(12):
            client = await server.connect()
            await client.say("MAIL FROM:<alice@example.org>")
            replies.append((await client.say(f"RCPT TO:<{REMOTE}>"))[:3])
        assert replies == ["550"] * 10 + ["451"] * 2
        other = await server.connect(address="127.0.0.9")
        await other.say("MAIL FROM:<alice@example.org>")
        assert (await other.say(f"RCPT TO:<{REMOTE}>")).startswith("550")
