"""The grammar of commands, and lines out of whole buffers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.mail_address import MailAddress
from netmail_smtp.protocol.commands import (
    VERBS,
    Auth,
    Bdat,
    Ehlo,
    Mail,
    Notify,
    Rcpt,
    Simple,
    decode_xtext,
    parse_command,
)
from netmail_smtp.protocol.framing import InputBuffer, LineTooLong
from netmail_smtp.protocol.reply import Reply, SmtpError

ALICE = MailAddress("alice", "example.org")


def parse(line: str | bytes) -> object:
    return parse_command(line.encode() if isinstance(line, str) else line)[1]


def refusal(line: str | bytes) -> str:
    with pytest.raises(SmtpError) as refused:
        parse(line)
    return f"{refused.value.reply.code} {refused.value.reply.enhanced}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("EHLO mx.example.net", Ehlo("mx.example.net", extended=True)),
        ("helo localhost", Ehlo("localhost", extended=False)),
        ("EHLO [192.0.2.1]", Ehlo("[192.0.2.1]", extended=True)),
        ("MAIL FROM:<alice@example.org>", Mail(ALICE)),
        ("mail from: <alice@example.org>", Mail(ALICE)),
        ("MAIL FROM:<>", Mail(None)),
        ("BDAT 0 LAST", Bdat(0, last=True)),
        ("bdat 1000", Bdat(1000, last=False)),
        ("AUTH plain AGE=", Auth("PLAIN", b"AGE=")),
        ("AUTH PLAIN =", Auth("PLAIN", b"=")),
        ("AUTH LOGIN", Auth("LOGIN", None)),
        ("DATA", Simple("DATA", "")),
        ("NOOP what ever", Simple("NOOP", "what ever")),
        ("VRFY alice", Simple("VRFY", "alice")),
        ("QUIT  ", Simple("QUIT", "")),
    ],
)
def test_a_command_is_read(line: str, expected: object) -> None:
    assert parse(line) == expected


def test_mail_parameters_keep_the_case_of_their_values() -> None:
    command = parse(
        "MAIL FROM:<alice@example.org> size=100 body=8bitmime SMTPUTF8 RET=hdrs ENVID=Aa+2BbB"
        " AUTH=Alice+40Example.org"
    )
    assert command == Mail(
        ALICE,
        size=100,
        body_8bit=True,
        smtputf8=True,
        return_headers_only=True,
        envelope_id="Aa+bB",
        names=frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"}),
    )


def test_rcpt_parameters_keep_the_case_of_their_values() -> None:
    command = parse("RCPT TO:<alice@example.org> NOTIFY=success,Failure ORCPT=rfc822;Al+2BIce@X")
    assert isinstance(command, Rcpt)
    assert command.path.mailbox == ALICE
    assert command.notify == {Notify.SUCCESS, Notify.FAILURE}
    assert command.original_recipient == "rfc822;Al+Ice@X"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "500 5.5.2"),
        ("FOO", "500 5.5.1"),
        ("123", "500 5.5.2"),
        ("MAIL FROM:<a@b>\nRCPT TO:<c@d>", "500 5.5.2"),
        ("NOOP \r", "500 5.5.2"),
        ("NOOP \0", "500 5.5.2"),
        (b"NOOP \xff", "500 5.5.2"),
        ("EHLO", "501 5.5.4"),
        ("EHLO two words", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        ("MAIL TO:<a@b>", "501 5.5.4"),
        ("MAIL FROM:alice@example.org", "501 5.1.3"),
        ("MAIL FROM:<alice@example.org", "501 5.1.3"),
        ("MAIL FROM:<alice@example.org>SIZE=1", "501 5.5.4"),
        ("MAIL FROM:<alice>", "553 5.1.3"),
        ("MAIL FROM:<postmaster>", "553 5.1.7"),
        ("MAIL FROM:<alice@exa mple.org>", "553 5.1.3"),
        ("MAIL FROM:<alice@@example.org>", "553 5.1.3"),
        ("MAIL FROM:<alice@example.org> FOO=bar", "555 5.5.4"),
        ("MAIL FROM:<alice@example.org> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> BODY", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> SIZE=1 SIZE=2", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> SMTPUTF8=yes", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> RET=SOME", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> ENVID=a+zz", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> ENVID=a+0D+0Ab", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> ENVID=" + "a" * 101, "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> AUTH=nonsense", "501 5.5.4"),
        ("MAIL FROM:<alice@example.org> =x", "501 5.5.4"),
        ("MAIL FROM:<zoë@example.org>", "553 5.6.7"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<a!u>", "553 5.1.3"),
        ("RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", "501 5.5.4"),
        ("RCPT TO:<a@b> NOTIFY=", "501 5.5.4"),
        ("RCPT TO:<a@b> ORCPT=rfc822", "501 5.5.4"),
        ("RCPT TO:<a@b> ORCPT=rfc822;", "501 5.5.4"),
        ("RCPT TO:<a@b> SIZE=1", "555 5.5.4"),
        ("BDAT", "501 5.5.4"),
        ("BDAT -1", "501 5.5.4"),
        ("BDAT 1 LAST x", "501 5.5.4"),
        ("AUTH", "501 5.5.4"),
        ("AUTH PLAIN x y", "501 5.5.4"),
        ("DATA now", "501 5.5.4"),
        ("QUIT now", "501 5.5.4"),
        ("VRFY", "501 5.5.4"),
    ],
)
def test_a_malformed_command_gets_its_reply(line: str | bytes, expected: str) -> None:
    assert refusal(line) == expected


@pytest.mark.parametrize(
    ("path", "address", "relayable"),
    [
        ("u@example.org", MailAddress("u", "example.org"), True),
        ("u%a@example.org", MailAddress("u%a", "example.org"), False),
        ("@a.example:u@example.org", MailAddress("u", "example.org"), False),
        ("@a.example,@b.example:u@example.org", MailAddress("u", "example.org"), False),
        ('"u@a.example"@example.org', MailAddress("u@a.example", "example.org"), False),
        ("a!u@example.org", MailAddress("a!u", "example.org"), False),
        ('"a b"@example.org', MailAddress("a b", "example.org"), True),
        ('"a>b"@example.org', MailAddress("a>b", "example.org"), True),
    ],
)
def test_a_path_that_could_be_taken_apart_is_never_relayed(
    path: str, address: MailAddress, relayable: bool
) -> None:
    command = parse(f"RCPT TO:<{path}>")
    assert isinstance(command, Rcpt)
    assert command.path.mailbox == address
    assert command.path.may_be_relayed is relayable


def test_postmaster_needs_no_domain() -> None:
    command = parse("RCPT TO:<Postmaster>")
    assert isinstance(command, Rcpt)
    assert command.path.is_postmaster


@given(st.binary(max_size=200))
def test_any_line_is_read_or_refused(line: bytes) -> None:
    try:
        verb, _ = parse_command(line)
    except SmtpError as error:
        code = error.reply.code
        refused = code >= 500
    else:
        refused = verb in VERBS
    assert refused


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_xtext_comes_back(text: str) -> None:
    encoded = "".join(c if c.isalnum() else f"+{ord(c):02X}" for c in text)
    assert decode_xtext(encoded) == text


@given(
    st.lists(st.text(alphabet="ab\r\n", max_size=12).map(str.encode), max_size=6),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_lines_come_out_whole_in_any_pieces(lines: list[bytes], places: list[int]) -> None:
    wire = b"".join(line + b"\r\n" for line in lines)
    edges = sorted({0, len(wire), *(place % (len(wire) + 1) for place in places)})
    buffer, got = InputBuffer(1000), []
    for a, b in itertools.pairwise(edges):
        buffer.feed(wire[a:b])
        while (line := buffer.take_line()) is not None:
            got.append(line)
    assert got == wire.split(b"\r\n")[:-1]
    assert len(buffer) == 0


def test_a_line_without_end_takes_no_more_than_its_limit() -> None:
    buffer = InputBuffer(100)
    for _ in range(1000):
        buffer.feed(b"x" * 1000)
        assert buffer.take_line() is None
        assert len(buffer) <= 101
    buffer.feed(b"\r")
    assert buffer.take_line() is None
    buffer.feed(b"\nNOOP\r\n")
    with pytest.raises(LineTooLong):
        buffer.take_line()
    assert buffer.take_line() == b"NOOP"


def test_only_a_complete_line_with_that_verb_is_taken_ahead() -> None:
    buffer = InputBuffer(100)
    buffer.feed(b"rcpt TO:<a@b>\r\nRCPTX\r\n")
    assert buffer.take_line_if(b"RCPT") == b"rcpt TO:<a@b>"
    assert buffer.take_line_if(b"RCPT") is None
    assert buffer.take_line() == b"RCPTX"
    buffer.feed(b"RCPT TO:<a@b>")
    assert buffer.take_line_if(b"RCPT") is None


@given(st.text(max_size=50))
def test_nothing_in_a_reply_ends_its_line(text: str) -> None:
    octets = Reply(550, "5.7.1", text).encode()
    lines = octets.split(b"\r\n")
    assert lines.pop() == b""
    assert all(b"\r" not in line and line.startswith(b"550") for line in lines)
    assert octets.count(b"\n") == len(lines)


def test_lines_are_kept_but_never_a_password() -> None:
    assert parse("NOOP kept") is parse("NOOP kept")
    assert parse("AUTH PLAIN AGE=") is not parse("AUTH PLAIN AGE=")
    assert parse("auth plain AGE=") is not parse("auth plain AGE=")
