"""One message to one host, over real sockets: commands, replies, extensions, framing."""

import base64

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from netmail_smtp.adapters.deliver_smtp import OutgoingRecipient
from netmail_smtp.domain.deliver_outcome import Delivered

from tests.smtp.deliver_support import (
    TEXT,
    delivered,
    failure,
    outbound,
    pools_closed,  # noqa: F401 - closes what tests open
    statuses,
)
from tests.support.scripted_smtp import FULL_EHLO, Script, scripted_host

BOB, CAROL, DAVE = "bob@example.net", "carol@example.net", "dave@example.net"
BARE = ("SIZE",)


async def test_a_message_arrives_as_it_was() -> None:
    data = b"Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n"
    async with scripted_host() as host:
        outcomes = await outbound(host.port).send(BOB, data=data)
        assert outcomes[BOB] == Delivered(
            "2.0.0", "smtp; 250 2.0.0 queued", "127.0.0.1", dsn_passed_on=True
        )
        (message,) = host.messages
        assert (message.sender, message.recipients) == ("alice@example.org", [BOB])
        assert message.data == data


async def test_with_pipelining_the_envelope_is_one_write() -> None:
    async with scripted_host() as host:
        await outbound(host.port).send(BOB, CAROL)
        assert [batch.count(b"\r\n") for batch in host.batches[:3]] == [1, 4, 4]


async def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    async with scripted_host(Script(ehlo=BARE)) as host:
        assert delivered(await outbound(host.port).send(BOB, CAROL)) == {BOB, CAROL}
        assert [batch.count(b"\r\n") for batch in host.batches[:6]] == [1, 1, 1, 1, 1, 4]


async def test_chunking_saves_the_round_trip_of_data() -> None:
    script = Script(ehlo=[*FULL_EHLO, "CHUNKING"])
    data = b"Subject: x\r\n\r\n.\r\nno stuffing\r\n"
    async with scripted_host(script) as host:
        assert delivered(await outbound(host.port).send(BOB, data=data)) == {BOB}
        assert host.messages[0].data == data
        assert host.verbs() == ["EHLO", "MAIL", "RCPT", "BDAT"]


async def test_a_chunk_after_refused_recipients_harms_nothing() -> None:
    script = Script(ehlo=[*FULL_EHLO, "CHUNKING"], replies={"RCPT": ["550 5.1.1 no", "250 ok"]})
    async with scripted_host(script) as host:
        out = outbound(host.port)
        assert failure(await out.send(BOB), BOB).status == "5.1.1"
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 1
        assert host.verbs().count("RSET") == 1


async def test_streamed_messages_are_never_chunked_and_arrive_whole() -> None:
    data = b"Subject: x\r\n\r\n" + b".line\r\n" * 20_000
    script = Script(ehlo=[*FULL_EHLO, "CHUNKING"])
    async with scripted_host(script) as host:
        assert delivered(await outbound(host.port).send(BOB, data=data, streamed=True)) == {BOB}
        assert host.messages[0].data == data


@pytest.mark.parametrize("ehlo", [FULL_EHLO, BARE], ids=["pipelining", "one by one"])
async def test_each_recipient_has_its_own_fate(ehlo: tuple[str, ...]) -> None:
    script = Script(
        ehlo=ehlo,
        replies={
            f"RCPT TO:<{BOB}>": "550 5.1.1 no such user",
            f"RCPT TO:<{CAROL}>": "450 4.2.1 greylisted",
        },
    )
    async with scripted_host(script) as host:
        outcomes = await outbound(host.port).send(BOB, CAROL, DAVE)
        assert delivered(outcomes) == {DAVE}
        bob, carol = failure(outcomes, BOB), failure(outcomes, CAROL)
        assert (bob.retryable, bob.status) == (False, "5.1.1")
        assert bob.diagnostic == "smtp; 550 5.1.1 no such user"
        assert (carol.retryable, carol.status) == (True, "4.2.1")


@pytest.mark.parametrize("ehlo", [FULL_EHLO, BARE], ids=["pipelining", "one by one"])
@pytest.mark.parametrize("stage", ["DATA", "FINAL"])
@pytest.mark.parametrize(
    ("reply", "retryable", "status"),
    [
        ("451 4.3.0 later", True, "4.3.0"),
        ("554 5.7.1 spam", False, "5.7.1"),
        ("550 no code", False, "5.0.0"),
        ("452 no code", True, "4.0.0"),
    ],
)
async def test_a_refused_message_is_refused_for_all(
    ehlo: tuple[str, ...], stage: str, reply: str, retryable: bool, status: str
) -> None:
    async with scripted_host(Script(ehlo=ehlo, replies={stage: reply})) as host:
        outcomes = await outbound(host.port).send(BOB, CAROL)
        assert statuses(outcomes, [BOB, CAROL]) == [status, status]
        assert failure(outcomes, BOB).retryable is retryable


async def test_a_refused_sender_fails_every_recipient_and_sends_nothing() -> None:
    async with scripted_host(Script(replies={"MAIL": "550 5.1.8 bad sender"})) as host:
        outcomes = await outbound(host.port).send(BOB, CAROL)
        assert statuses(outcomes, [BOB, CAROL]) == ["5.1.8", "5.1.8"]
        assert host.messages == []


async def test_data_accepted_without_recipients_is_ended_at_once() -> None:
    script = Script(replies={"RCPT": ["550 5.1.1 no", "250 ok"], "DATA": "354 go"})
    async with scripted_host(script) as host:
        out = outbound(host.port)
        assert failure(await out.send(BOB), BOB).status == "5.1.1"
        assert host.messages == []
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.messages[0].data == TEXT


async def test_recipients_beyond_the_hosts_limit_follow_in_another_transaction() -> None:
    people = [f"user{n}@example.net" for n in range(7)]
    script = Script(ehlo=[*FULL_EHLO, "LIMITS RCPTMAX=3"])
    async with scripted_host(script) as host:
        assert delivered(await outbound(host.port).send(*people)) == set(people)
        assert [len(message.recipients) for message in host.messages] == [3, 3, 1]
        assert host.connections == 1


async def test_452_behind_accepted_recipients_is_tried_in_another_transaction() -> None:
    script = Script(replies={f"RCPT TO:<{CAROL}>": ["452 4.5.3 too many", "250 ok"]})
    async with scripted_host(script) as host:
        assert delivered(await outbound(host.port).send(BOB, CAROL)) == {BOB, CAROL}
        assert [message.recipients for message in host.messages] == [[BOB], [CAROL]]


async def test_452_for_the_first_recipient_is_a_deferral() -> None:
    async with scripted_host(Script(replies={"RCPT": "452 4.2.2 full"})) as host:
        assert failure(await outbound(host.port).send(BOB), BOB).status == "4.2.2"


async def test_dsn_parameters_go_to_a_host_that_knows_them() -> None:
    bob = OutgoingRecipient(BOB, "SUCCESS,FAILURE", "rfc822;Bob+x@example.net")
    async with scripted_host() as host:
        await outbound(host.port).send(bob, return_headers_only=True, envelope_id="QQ=1")
        mail, rcpt = host.commands[1:3]
        assert mail == f"MAIL FROM:<alice@example.org> SIZE={len(TEXT)} RET=HDRS ENVID=QQ+3D1"
        assert rcpt == f"RCPT TO:<{BOB}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bx@example.net"


async def test_without_dsn_its_duties_stay_here() -> None:
    bob = OutgoingRecipient(BOB, "SUCCESS", "rfc822;x@example.net")
    async with scripted_host(Script(ehlo=BARE)) as host:
        outcomes = await outbound(host.port).send(bob, envelope_id="1")
        outcome = outcomes[BOB]
        assert isinstance(outcome, Delivered)
        assert not outcome.dsn_passed_on
        assert "NOTIFY" not in " ".join(host.commands)
        assert "ENVID" not in " ".join(host.commands)


async def test_helo_where_ehlo_is_unknown() -> None:
    async with scripted_host(Script(replies={"EHLO": "502 5.5.1 what"})) as host:
        assert delivered(await outbound(host.port).send(BOB)) == {BOB}
        assert host.commands[:3] == [
            "EHLO mail1.example.org",
            "HELO mail1.example.org",
            "MAIL FROM:<alice@example.org>",
        ]


async def test_eight_bit_body_needs_8bitmime_and_is_never_re_encoded() -> None:
    data = b"Subject: x\r\n\r\ncaf\xe9\r\n"
    async with scripted_host() as host, scripted_host(Script(ehlo=BARE)) as old:
        assert delivered(await outbound(host.port).send(BOB, data=data)) == {BOB}
        assert host.messages[0].data == data
        assert "BODY=8BITMIME" in host.commands[1]
        refused = failure(await outbound(old.port).send(BOB, data=data), BOB)
        assert (refused.retryable, refused.status) == (False, "5.6.3")
        assert "MAIL" not in old.verbs()


async def test_non_ascii_addresses_need_smtputf8_each_for_itself() -> None:
    utf8 = "bøb@example.net"
    ehlo = ("PIPELINING", "8BITMIME")
    async with scripted_host() as host, scripted_host(Script(ehlo=ehlo)) as old:
        assert delivered(await outbound(host.port).send(utf8, CAROL)) == {utf8, CAROL}
        assert "SMTPUTF8" in host.commands[1]
        outcomes = await outbound(old.port).send(utf8, CAROL)
        assert failure(outcomes, utf8).status == "5.6.7"
        assert delivered(outcomes) == {CAROL}
        outcomes = await outbound(old.port).send(CAROL, sender="ålice@example.org")
        assert failure(outcomes, CAROL).status == "5.6.7"


async def test_a_message_beyond_the_hosts_size_is_not_offered() -> None:
    async with scripted_host(Script(ehlo=("SIZE 10",))) as host:
        assert failure(await outbound(host.port).send(BOB), BOB).status == "5.3.4"
        assert "MAIL" not in host.verbs()


async def test_local_parts_are_spelled_as_smtp_does() -> None:
    async with scripted_host() as host:
        assert delivered(await outbound(host.port).send('b"o b@example.net')) == {
            'b"o b@example.net'
        }
        assert host.commands[2] == r'RCPT TO:<"b\"o b"@example.net>'


async def test_the_null_sender_stays_null() -> None:
    async with scripted_host() as host:
        await outbound(host.port).send(BOB, sender="")
        assert host.commands[1].startswith("MAIL FROM:<> ")


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
async def test_a_smarthost_gets_the_routes_credentials(mechanisms: str) -> None:
    script = Script(ehlo=[*FULL_EHLO, f"AUTH {mechanisms}"])
    async with scripted_host(script) as host:
        route = {"username": "relay", "password": "sécret", "tls": "none"}
        assert delivered(await outbound(host.port, route=route).send(BOB)) == {BOB}
        if mechanisms == "LOGIN":
            words = [base64.b64decode(c).decode() for c in host.commands[2:4]]
            assert words == ["relay", "sécret"]
        else:
            initial = host.commands[1].split(" ")[2]
            assert base64.b64decode(initial).decode() == "\0relay\0sécret"


async def test_no_password_goes_out_without_tls_unless_the_route_says_so() -> None:
    async with scripted_host(Script(ehlo=[*FULL_EHLO, "AUTH PLAIN"])) as host:
        route = {"username": "relay", "password": "secret"}
        refused = failure(await outbound(host.port, route=route).send(BOB), BOB)
        assert (refused.retryable, refused.status) == (True, "4.7.10")
        assert "AUTH" not in host.verbs()


@pytest.mark.parametrize("reply", ["535 5.7.8 no", "454 4.7.0 later"])
async def test_refused_credentials_defer_the_mail(reply: str) -> None:
    script = Script(ehlo=[*FULL_EHLO, "AUTH PLAIN"], replies={"AUTH": reply})
    async with scripted_host(script) as host:
        route = {"username": "relay", "password": "secret", "tls": "none"}
        refused = failure(await outbound(host.port, route=route).send(BOB), BOB)
        assert refused.retryable
        assert refused.status == "4.7.0"


REPLIES = st.sampled_from(
    ["250 ok", "250 2.0.0 ok", "354 go", "421 4.3.2 bye", "450 no", "452 4.5.3 many",
     "550 5.1.1 no", "554", "334 ", "xyz", "250-open", "999 bad", ""]
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    replies=st.dictionaries(
        st.sampled_from(["EHLO", "MAIL", "RCPT", "DATA", "FINAL", "RSET", f"RCPT TO:<{BOB}>"]),
        REPLIES,
    ),
    pipelining=st.booleans(),
    chunking=st.booleans(),
    greeting=st.sampled_from(["220 hi"] * 6 + ["421 no", "554 no", "junk"]),
)
async def test_whatever_a_host_says_delivered_means_that_it_took_the_message(
    replies: dict[str, str], pipelining: bool, chunking: bool, greeting: str
) -> None:
    ehlo = ["PIPELINING"] * pipelining + ["CHUNKING"] * chunking + ["SIZE"]
    script = Script(ehlo=ehlo, replies=dict(replies), greeting=greeting)
    async with scripted_host(script) as host:
        out = outbound(host.port, config={"command_timeout": 1, "connect_timeout": 1})
        outcomes = await out.send(BOB, CAROL)
        taken = {r for message in host.messages for r in message.recipients}
        assert delivered(outcomes) <= taken
        for address in {BOB, CAROL} - delivered(outcomes):
            outcome = failure(outcomes, address)
            assert outcome.status[0] == ("4" if outcome.retryable else "5")
            if not outcome.retryable:
                assert outcome.diagnostic.startswith(("smtp; 5", "x-netmail; "))
