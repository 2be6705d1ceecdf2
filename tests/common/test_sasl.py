"""The SASL layer: lines in, challenges and verifications out."""

import base64
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.sasl import (
    MAX_LINE,
    AuthCancelled,
    AuthenticatedUser,
    AuthError,
    AuthFailed,
    AuthMalformed,
    AuthTooLong,
    Challenge,
    Done,
    IPAddress,
    Mechanism,
    SaslExchange,
    ScramOutcome,
    VerifyPassword,
    VerifyScramFirst,
    check_user_name,
    parse_client_first,
    prepare_password,
    run_sasl,
)
from netmail_common.sasl._exchange import decode_line

ALICE = AuthenticatedUser(
    7, "alice", "users.demo", "mail1", ("alice@example.org",), ("example.org",), 3
)
ADDRESS = IPv4Address("192.0.2.9")


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


class Scram:
    """A SCRAM exchange with a directory that knows what it expects."""

    server_first = b"r=abc,s=c2FsdA==,i=4096"

    def __init__(self) -> None:
        self.cancelled = False

    async def finish(self, client_final: bytes) -> ScramOutcome:
        if client_final != b"proof":
            raise AuthFailed
        return ScramOutcome(ALICE, b"v=sig")

    def cancel(self) -> None:
        self.cancelled = True


class Users:
    """A directory of one user."""

    def __init__(self) -> None:
        self.scram = Scram()

    async def authenticate_password(
        self, username: str, password: str, *, service: str, client_address: IPAddress
    ) -> AuthenticatedUser:
        assert (service, client_address) == ("imap", ADDRESS)
        if (username, password) != ("alice", "wonderland"):
            raise AuthFailed
        return ALICE

    async def start_scram(
        self, client_first: bytes, *, service: str, client_address: IPAddress
    ) -> Scram:
        assert (service, client_address) == ("imap", ADDRESS)
        parse_client_first(client_first)
        return self.scram


async def converse(
    mechanism: Mechanism, initial: bytes | None, *lines: bytes | None, users: Users | None = None
) -> tuple[AuthenticatedUser, list[bytes]]:
    """Runs an exchange in which the client says LINES; gives the user and the challenges."""
    challenges: list[bytes] = []
    answers = iter(lines)

    async def challenge(encoded: bytes) -> bytes | None:
        challenges.append(base64.b64decode(encoded, validate=True))
        return next(answers)

    result = await run_sasl(
        mechanism,
        initial,
        challenge=challenge,
        directory=users or Users(),
        service="imap",
        client_address=ADDRESS,
    )
    assert next(answers, "none left") == "none left"
    assert result.mechanism is mechanism
    return result.user, challenges


async def test_plain_with_an_initial_response() -> None:
    assert await converse(Mechanism.PLAIN, b64(b"\0alice\0wonderland")) == (ALICE, [])


async def test_plain_without_one_gets_an_empty_challenge() -> None:
    line = b64(b"\0alice\0wonderland")
    assert await converse(Mechanism.PLAIN, None, line) == (ALICE, [b""])


async def test_plain_with_the_same_authorization_identity() -> None:
    assert await converse(Mechanism.PLAIN, b64(b"alice\0alice\0wonderland")) == (ALICE, [])


async def test_nobody_may_act_for_somebody_else() -> None:
    with pytest.raises(AuthFailed):
        await converse(Mechanism.PLAIN, b64(b"bob\0alice\0wonderland"))


async def test_login_asks_for_name_and_password() -> None:
    user, challenges = await converse(Mechanism.LOGIN, None, b64(b"alice"), b64(b"wonderland"))
    assert (user, challenges) == (ALICE, [b"Username:", b"Password:"])


async def test_login_takes_the_name_as_initial_response() -> None:
    user, challenges = await converse(Mechanism.LOGIN, b64(b"alice"), b64(b"wonderland"))
    assert (user, challenges) == (ALICE, [b"Password:"])


async def test_scram_ends_with_the_server_s_proof_and_an_empty_response() -> None:
    user, challenges = await converse(
        Mechanism.SCRAM_SHA_256, b64(b"n,,n=alice,r=abc"), b64(b"proof"), b""
    )
    assert user == ALICE
    assert challenges == [Scram.server_first, b"v=sig"]


async def test_scram_with_a_wrong_proof_fails() -> None:
    with pytest.raises(AuthFailed):
        await converse(Mechanism.SCRAM_SHA_256, b64(b"n,,n=alice,r=abc"), b64(b"guess"))


async def test_scram_with_words_behind_the_end_is_malformed() -> None:
    with pytest.raises(AuthMalformed):
        await converse(
            Mechanism.SCRAM_SHA_256, b64(b"n,,n=alice,r=abc"), b64(b"proof"), b64(b"more")
        )


async def test_a_client_that_goes_away_cancels_its_scram_exchange() -> None:
    users = Users()
    with pytest.raises(AuthCancelled):
        await converse(Mechanism.SCRAM_SHA_256, b64(b"n,,n=alice,r=abc"), None, users=users)
    assert users.scram.cancelled


@pytest.mark.parametrize("mechanism", list(Mechanism))
async def test_a_star_cancels(mechanism: Mechanism) -> None:
    with pytest.raises(AuthCancelled):
        await converse(mechanism, None, b"*")


@pytest.mark.parametrize(
    "line",
    [
        b"AGFsaWNl\r",
        b" AGFs",
        b"AGFs AGFs",
        b"AGF",
        b"AGFs=",
        b"AG==AG==",
        b"AB==",  # bits behind the last octet
        b"A===",
        b"====",
        b"=",
        b"AGFs\0",
        b"AGFs-_==",
        "Ägfs".encode(),
    ],
)
def test_base64_is_strict(line: bytes) -> None:
    with pytest.raises(AuthMalformed):
        decode_line(line)


@given(st.binary(max_size=300))
def test_every_octet_string_has_one_encoding(data: bytes) -> None:
    assert decode_line(b64(data)) == data


def test_a_line_without_end_is_too_long() -> None:
    exchange = SaslExchange(Mechanism.PLAIN)
    exchange.start(None)
    with pytest.raises(AuthTooLong) as caught:
        exchange.feed(b"A" * (MAX_LINE + 4))
    assert caught.value.smtp[:2] == (500, "5.5.6")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"alice",
        b"\0alice",
        b"\0alice\0",
        b"\0\0wonderland",
        b"\0alice\0won\0derland",
        b"\0alice\0\xff",
        b"\0al\xc0ice\0wonderland",
        b"\0al\nice\0wonderland",
        b"\0" + b"a" * 256 + b"\0wonderland",
        b"\0alice\0" + b"p" * 1025,
    ],
)
def test_plain_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(AuthMalformed):
        SaslExchange(Mechanism.PLAIN).start(b64(message) or b"=")


def test_an_empty_initial_response_is_an_equals_sign() -> None:
    assert SaslExchange(Mechanism.LOGIN).start(b"=") == Challenge(b64(b"Password:"))
    with pytest.raises(AuthMalformed):
        SaslExchange(Mechanism.LOGIN).start(b"")


@given(
    st.sampled_from(list(Mechanism)),
    st.none() | st.binary(max_size=60),
    st.lists(st.binary(max_size=60), max_size=4),
    st.booleans(),
)
def test_an_exchange_ends_in_words_of_its_own(
    mechanism: Mechanism, initial: bytes | None, lines: list[bytes], encode: bool
) -> None:
    exchange = SaslExchange(mechanism)
    rest = iter(lines)
    try:
        step = exchange.start(b64(initial) if encode and initial else initial)
        while not isinstance(step, Done):
            if isinstance(step, Challenge):
                line = next(rest, b"*")
                step = exchange.feed(b64(line) if encode and line != b"*" else line)
            else:
                step = exchange.accepted(b"v=x")
    except AuthError:
        return
    assert mechanism is not Mechanism.LOGIN or len(lines) >= 1


@pytest.mark.parametrize("name", ["PLAIN", "plain", "Login", "scram-sha-256"])
def test_mechanism_names_have_no_case(name: str) -> None:
    mechanism = Mechanism.named(name)
    assert mechanism is not None
    assert mechanism.value == name.upper()


def test_a_mechanism_that_is_none_is_not_found() -> None:
    assert Mechanism.named("CRAM-MD5") is None


def test_only_scram_hides_the_password() -> None:
    assert [m for m in Mechanism if not m.reveals_password] == [Mechanism.SCRAM_SHA_256]


def test_passwords_are_saslprepared() -> None:
    assert prepare_password("p\u00adw\u00a0x") == "pw x"  # soft hyphen goes, NBSP is a space
    assert prepare_password("\u2168") == "IX"
    assert prepare_password("wonderland") == "wonderland"


def test_a_password_that_saslprep_refuses_stands_for_itself() -> None:
    assert prepare_password("🐇") == "🐇"
    assert prepare_password("a\u0007b") == "a\u0007b"


@pytest.mark.parametrize("password", ["", "a\0b", "x" * 1025, "\ud800"])
def test_what_cannot_be_a_password(password: str) -> None:
    with pytest.raises(ValueError, match="password"):
        prepare_password(password)


@pytest.mark.parametrize("name", ["", "a\nb", "a\x7fb", "a\x80b", "a\u2028b", "é" * 128])
def test_what_cannot_be_a_user_name(name: str) -> None:
    with pytest.raises(ValueError, match="user name"):
        check_user_name(name)


def test_a_user_name_is_kept_in_nfc() -> None:
    assert check_user_name("ju\u0308rgen") == "jürgen"
    assert check_user_name("a" * 255) == "a" * 255


def test_client_first_names_the_user() -> None:
    first = parse_client_first(b"n,,n=a=2Cb=3Dc,r=fyko+d2lbbFgONRv9qkxdawL,x=1")
    assert (first.username, first.nonce) == ("a,b=c", "fyko+d2lbbFgONRv9qkxdawL")
    assert parse_client_first(b"y,,n=alice,r=x").username == "alice"


def test_client_first_may_repeat_the_name_as_the_one_to_act_as_but_no_other() -> None:
    assert parse_client_first(b"n,a=alice,n=alice,r=x").username == "alice"
    with pytest.raises(AuthMalformed):
        parse_client_first(b"n,a=bob,n=alice,r=x")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,n=alice",
        b"n=alice,r=x",
        b"n,,r=x,n=alice",
        b"n,,n=,r=x",
        b"n,,n=alice,r=",
        b"n,,n=al=ice,r=x",
        b"n,,n=al=2cice,r=x",
        b"n,a=bob,n=alice,r=x",
        b"p=tls-unique,,n=alice,r=x",
        b"n,,m=ext,n=alice,r=x",
        b"n,,n=alice,r=a b",
        b"n,,n=alice,r=\xc3\xa4",
        b"n,,n=al\0ice,r=x",
        b"n,,n=\xff,r=x",
        b"n,,n=al\nice,r=x",
        b"n,,n=alice,r=" + b"x" * 5000,
    ],
)
def test_client_first_messages_that_are_none(message: bytes) -> None:
    with pytest.raises(AuthMalformed):
        parse_client_first(message)


@given(st.binary(max_size=80))
def test_any_client_first_parses_or_is_malformed(message: bytes) -> None:
    try:
        first = parse_client_first(b"n,,n=" + message)
    except AuthMalformed:
        return
    assert 1 <= len(first.username.encode()) <= 255


def test_a_step_out_of_turn_is_our_own_fault() -> None:
    exchange = SaslExchange(Mechanism.PLAIN)
    with pytest.raises(RuntimeError):
        exchange.feed(b"")
    step = exchange.start(b64(b"\0alice\0wonderland"))
    assert step == VerifyPassword("alice", "wonderland")
    with pytest.raises(RuntimeError):
        exchange.start(None)
    assert SaslExchange(Mechanism.SCRAM_SHA_256).start(b64(b"n,,n=a,r=x")) == VerifyScramFirst(
        b"n,,n=a,r=x"
    )
