"""IMAP sessions: several processes, streams, limits, what needs no call."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from netmail_pop_imap.app import PopImapAgent

from tests.pop_imap.agents import PASSWORD, Agents
from tests.support.imap_client import ImapClient, Refused, fetched

MESSAGE = b"From: a@example.net\r\nSubject: hello\r\n\r\nbody\r\n"


@pytest.fixture(scope="module")
def second_agent(agents: Agents) -> Iterator[PopImapAgent]:
    """Another POP/IMAP agent beside the first: what a second process is."""
    agent = PopImapAgent(agents.installation, "mail1")
    agents.run(agent.__aenter__())
    yield agent
    agents.run(agent.drain())
    agents.run(agent.__aexit__(None, None, None))


@pytest.fixture
def user(new_user: Callable[[], str]) -> str:
    return new_user()


@pytest.fixture
def clients() -> Iterator[list[ImapClient]]:
    opened: list[ImapClient] = []
    yield opened
    for client in opened:
        client.close()


@pytest.fixture
def open_inbox(agents: Agents, user: str, clients: list[ImapClient]) -> Callable[[int], ImapClient]:
    """Gives a client that has INBOX open, at a port."""

    def connect(port: int) -> ImapClient:
        client = ImapClient.connect(port)
        clients.append(client)
        client.login(user, PASSWORD)
        client.command("SELECT INBOX")
        return client

    return connect


def test_a_change_reaches_idle_sessions_of_another_process_within_100_ms(
    agents: Agents, second_agent: PopImapAgent, open_inbox: Callable[[int], ImapClient]
) -> None:
    first = open_inbox(agents.port("imap"))
    second = open_inbox(second_agent.ports["imap"][0])
    tag = second.send("IDLE")
    assert second.response() == b"+ idling\r\n"
    delays = []
    first.append("INBOX", MESSAGE)
    assert second.response() == b"* 1 EXISTS\r\n"
    assert second.response().endswith(b" RECENT\r\n")
    for flag in ("\\Seen", "\\Flagged", "\\Answered"):
        first.command(f"STORE 1 +FLAGS.SILENT ({flag})")
        begin = time.monotonic()
        assert flag.encode() in second.response()
        delays.append(time.monotonic() - begin)
    first.command("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.response()
    first.command("EXPUNGE")
    begin = time.monotonic()
    assert second.response() == b"* 1 EXPUNGE\r\n"
    delays.append(time.monotonic() - begin)
    second.connection.sendall(b"DONE\r\n")
    second.finish(tag)
    assert sorted(delays)[len(delays) // 2] < 0.1


def test_a_mailbox_opened_again_has_what_changed_meanwhile(
    agents: Agents, second_agent: PopImapAgent, open_inbox: Callable[[int], ImapClient]
) -> None:
    first = open_inbox(agents.port("imap"))
    for _ in range(3):
        first.append("INBOX", MESSAGE)
    first.command("UNSELECT")
    second = open_inbox(second_agent.ports["imap"][0])
    second.command("STORE 2 +FLAGS (\\Deleted)")
    second.command("EXPUNGE")
    second.command("STORE 2 +FLAGS (\\Flagged)")
    second.append("INBOX", MESSAGE)
    assert b"* 3 EXISTS\r\n" in first.command("SELECT INBOX")
    flags = fetched(first.command("FETCH 1:* (UID FLAGS)"))
    assert [b"UID 1 " in flags[1], b"UID 3 " in flags[2], b"UID 4 " in flags[3]] == [True] * 3
    assert b"\\Flagged" in flags[2]


def test_what_the_session_knows_itself_needs_no_call(
    agents: Agents, user: str, open_inbox: Callable[[int], ImapClient]
) -> None:
    agents.deliver(user, MESSAGE)
    client = open_inbox(agents.port("imap"))
    hub = agents.pop_imap.mailbox_hub
    calls: list[str] = []
    original = hub.stub

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(original("mail1"), name)

    hub.stub = lambda server: Counting()  # type: ignore[method-assign]
    try:
        for command in (
            "NOOP", "CHECK", "CAPABILITY", "NAMESPACE", "ENABLE CONDSTORE",
            "FETCH 1:* (UID FLAGS MODSEQ)", "SEARCH UNSEEN NOT DELETED", 'LIST "" ""', "EXPUNGE",
            "UID SEARCH RETURN (COUNT) MODSEQ 1 1:*",
        ):  # fmt: skip
            client.command(command)
            assert calls == [], command
        client.command("FETCH 1:* BODY.PEEK[HEADER]")
        assert calls == ["FetchMessages"]
    finally:
        hub.stub = original  # type: ignore[method-assign]


def test_the_headers_of_a_thousand_messages_are_one_call(
    agents: Agents, user: str, open_inbox: Callable[[int], ImapClient]
) -> None:
    agents.deliver(user, MESSAGE)
    client = open_inbox(agents.port("imap"))
    for _ in range(10):  # 1, 2, 4, ... 1024
        client.command("COPY 1:* INBOX")
    responses = fetched(client.command("FETCH 1:1000 BODY.PEEK[HEADER]"))
    assert len(responses) == 1000
    assert {text[:12] for text in responses.values()} == {b"BODY[HEADER]"}


def test_a_large_message_goes_in_and_out_as_it_is(
    agents: Agents, open_inbox: Callable[[int], ImapClient]
) -> None:
    client = open_inbox(agents.port("imap"))
    message = MESSAGE + b"0123456789abcde\r\n" * 300_000  # 5 MB
    client.append("INBOX", message)
    (response,) = fetched(client.command("FETCH 1 BODY.PEEK[]")).values()
    assert response == b"BODY[] {%d}\r\n%b" % (len(message), message)
    (response,) = fetched(client.command("FETCH 1 BODY.PEEK[1]<1000000.34>")).values()
    start = 1_000_000 + len(MESSAGE) - len(b"body\r\n")
    assert response == b"BODY[1]<1000000> {34}\r\n" + message[start : start + 34]


def test_a_message_over_the_limit_is_passed_over_and_refused(
    agents: Agents, open_inbox: Callable[[int], ImapClient]
) -> None:
    client = open_inbox(agents.port("imap"))
    limit = agents.pop_imap.server.pop_imap.limits.literal
    with pytest.raises(Refused, match="TOOBIG"):
        client.append("INBOX", b"x" * (limit + 1))
    assert client.command("NOOP") == []


def test_a_client_that_reads_nothing_stops_the_stream(
    agents: Agents, user: str, open_inbox: Callable[[int], ImapClient]
) -> None:
    client = open_inbox(agents.port("imap"))
    client.append("INBOX", b"Subject: x\r\n\r\n" + b"x" * 4_000_000)
    for _ in range(4):
        client.command("COPY 1:* INBOX")
    tag = client.send("FETCH 1:* BODY.PEEK[]")
    time.sleep(1)
    (session,) = [s for s in agents.pop_imap.sessions._sessions if getattr(s, "in_mailbox", 0)]
    waiting = session.transport.get_write_buffer_size()  # type: ignore[attr-defined]
    assert waiting < 3_000_000
    untagged, tagged = client.finish(tag)
    assert len(fetched(untagged)) == 16
    assert b" OK " in tagged


def test_with_literal_minus_only_short_literals_come_unasked(
    agents: Agents, user: str, clients: list[ImapClient]
) -> None:
    server = agents.installation.messaging_server("mail1")
    limits = server.pop_imap.limits.model_copy(update={"non_sync_literals": "LITERAL-"})
    changed = server.model_copy(
        update={"pop_imap": server.pop_imap.model_copy(update={"limits": limits})}
    )
    installation = agents.installation.model_copy(update={"messaging_servers": [changed]})
    agent = PopImapAgent(installation, "mail1")
    agents.run(agent.__aenter__())
    client = ImapClient.connect(agent.ports["imap"][0])
    clients.append(client)
    client.login(user, PASSWORD)
    (capability, *_) = client.command("CAPABILITY")
    assert b" LITERAL- " in capability
    assert b"LITERAL+" not in capability
    client.append("INBOX", b"x" * 4096)
    with pytest.raises(Refused, match="TOOBIG"):
        client.append("INBOX", b"x" * 4097)
    assert client.command("NOOP") == []
    agents.run(agent.drain())
    agents.run(agent.__aexit__(None, None, None))


def test_a_message_of_a_megabyte_goes_in_by_pieces_and_refusals_come_after_it(
    agents: Agents, open_inbox: Callable[[int], ImapClient]
) -> None:
    client = open_inbox(agents.port("imap"))
    message = MESSAGE + b"x" * 1_000_000
    with pytest.raises(Refused, match="TRYCREATE"):
        client.append("Nowhere", message)
    with pytest.raises(Refused, match="Unexpected text"):
        client.command(b"APPEND INBOX {%d+}\r\n%b more" % (len(message), message))
    client.append("INBOX", message)
    assert len(fetched(client.command("FETCH 1:* RFC822.SIZE"))) == 1


def test_a_session_ends_when_its_user_is_disabled(
    agents: Agents, user: str, open_inbox: Callable[[int], ImapClient]
) -> None:
    client = open_inbox(agents.port("imap"))
    user_id = agents.user_id(user)
    hub = agents.pop_imap.mailbox_hub
    agents.loop.call_soon_threadsafe(hub._user_ended, "mail1", user_id)
    assert client.response() == b"* BYE login revoked\r\n"
    assert client.response() == b""


def test_a_drain_says_bye(agents: Agents, user: str, clients: list[ImapClient]) -> None:
    agent = PopImapAgent(agents.installation, "mail1")
    agents.run(agent.__aenter__())
    client = ImapClient.connect(agent.ports["imap"][0])
    clients.append(client)
    client.login(user, PASSWORD)
    agents.run(agent.drain())
    assert client.response() == b"* BYE [UNAVAILABLE] server shutting down\r\n"
    agents.run(agent.__aexit__(None, None, None))


def test_implicit_tls_serves_too(agents: Agents, user: str) -> None:
    import imaplib
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with imaplib.IMAP4_SSL("127.0.0.1", agents.port("imaps"), ssl_context=context) as client:
        assert client.login(user, PASSWORD)[0] == "OK"
        assert client.select()[0] == "OK"


def test_a_client_that_hangs_up_in_the_middle_of_a_literal_leaves_nothing(
    agents: Agents, user: str, open_inbox: Callable[[int], ImapClient]
) -> None:
    client = open_inbox(agents.port("imap"))
    client.connection.sendall(b"a APPEND INBOX {1000+}\r\nabc")
    client.connection.shutdown(socket.SHUT_RDWR)
    other = open_inbox(agents.port("imap"))
    assert b"* 0 EXISTS\r\n" in other.command("SELECT INBOX")
