"""Names that stay at home: X-Auth-OK for local recipients, a word for the others."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail.nmap.v1 import queue_pb2
from netmail_common.config import ConfigError, MessagingServerConfig, XAuthOkConfig
from netmail_common.header import scan_header
from netmail_smtp.adapters.deliver_message import outgoing
from netmail_smtp.app.receiver import _user_words
from netmail_smtp.domain.relay import KnownSender, Way
from netmail_smtp.domain.trace import stamp_message
from netmail_smtp.domain.user_word import UserWords, without_name

from tests.smtp.conftest import Start
from tests.smtp.test_trace import ALICE, HOP

WORDS = UserWords(b"k" * 32)
WORD = WORDS.word("alice", "users.demo")
MESSAGE = (
    b"From: alice@example.org\r\nX-Auth-Hash: ~forged\r\nX-Auth-OK: mallory\r\n"
    b"\r\n"
    b"X-Auth-Hash: body\r\n"
)


def stamped(message: bytes = MESSAGE, known: KnownSender | None = ALICE, word: str = WORD) -> bytes:
    """What the queue and local recipients get."""
    header = scan_header(message)
    hop = replace(HOP, known=known, user_word=word)
    return b"".join(stamp_message(header, hop, submission=False)) + message[header.body :]


def test_a_word_is_a_users_own_and_needs_the_key() -> None:
    assert UserWords(b"k" * 32).word("alice", "users.demo") == WORD
    others = {
        WORDS.word("alice", "users.other"),
        WORDS.word("alice\0users", "demo"),
        UserWords(b"K" * 32).word("alice", "users.demo"),
    }
    assert len(others | {WORD}) == 4
    assert all(len(word) == 21 and word.isascii() for word in others)
    with pytest.raises(ValueError, match="fewer than 32 octets"):
        UserWords(b"k" * 31)


def test_local_recipients_see_the_name_and_received_never_has_it() -> None:
    message = stamped()
    assert b"\r\nX-Auth-OK: alice\r\n" in message
    assert f"(user {WORD}, known by IMAP4 login)".encode() in message
    assert message.count(b"alice") == 2  # X-Auth-OK and From
    assert b"forged" not in message
    assert b"mallory" not in message


def test_a_message_that_leaves_has_the_word_instead() -> None:
    message, leaving = stamped(), without_name(stamped())
    assert leaving == message.replace(b"X-Auth-OK: alice\r\nX-Auth-Hash:", b"X-Auth-OK:")
    assert leaving.endswith(b"\r\n\r\nX-Auth-Hash: body\r\n")
    assert without_name(leaving) == leaving


def test_without_a_word_the_name_leaves() -> None:
    message = stamped(word="")
    assert b"user alice of users.demo" in message
    assert without_name(message) == message
    unknown = stamped(known=None, word="")
    assert b"X-Auth-" not in unknown.partition(b"\r\n\r\n")[0]


@given(
    st.lists(
        st.sampled_from(
            [b"X-Auth-OK: alice\r\n", b"X-Auth-Hash: ~w\r\n", b"Subject: x\r\n y\r\n", b"stray\r\n"]
        ),
        max_size=6,
    ),
    st.sampled_from([b"", b"\r\n", b"\r\nX-Auth-Hash: b\r\nX-Auth-OK: b\r\n"]),
)
def test_only_fields_of_ours_change_whatever_else_is_there(lines: list[bytes], rest: bytes) -> None:
    leaving = without_name(b"".join(lines) + rest)
    hashed = b"X-Auth-Hash: ~w\r\n" in lines
    wanted = [line.replace(b"Hash", b"OK") for line in lines if not (hashed and b"alice" in line)]
    assert leaving == b"".join(wanted) + rest


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_the_delivery_agent_sends_it_so_whole_or_in_pieces(size: int) -> None:
    message = stamped(MESSAGE + b"x" * 1000)

    async def pieces() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(message), size):
            yield message[at : at + size]

    item = queue_pb2.LeasedItem(destination="remote.example", size=len(message))
    streamed = await outgoing(item, pieces)
    assert streamed.pieces is not None
    assert b"".join([piece async for piece in streamed.pieces()]) == without_name(message)
    item.data, item.data_included = message, True
    whole = await outgoing(item, pieces)
    assert whole.data == without_name(message)
    assert whole.traits.size == len(whole.data)


def server(**config: Any) -> MessagingServerConfig:
    return cast(
        "MessagingServerConfig", SimpleNamespace(name="mail1", x_auth_ok=XAuthOkConfig(**config))
    )


def test_the_key_is_read_at_the_start(tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert _user_words(server()) is None
    with pytest.raises(ConfigError, match="No such file"):
        _user_words(server(remote="hmac", key_file=key))
    key.write_bytes(b"k" * 31 + b"\n")
    with pytest.raises(ConfigError, match="fewer than 32 octets"):
        _user_words(server(remote="hmac", key_file=key))
    key.write_bytes(b"k" * 32 + b"\n")
    words = _user_words(server(remote="hmac", key_file=key))
    assert words is not None
    assert words.word("alice", "users.demo") == WORD


def test_a_client_of_an_allowed_network_has_no_name_to_hide() -> None:
    known = KnownSender(Way.NETWORK)
    assert b"X-Auth-" not in stamped(b"Subject: x\r\n\r\n", known, "")


async def test_a_server_that_hides_names_stamps_both(start: Start, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    hidden = {"x_auth_ok": {"remote": "hmac", "key_file": str(key)}}
    async with start(server=hidden) as server:
        await server.login("alice", "127.0.0.7")
        client = await server.connect(address="127.0.0.7")
        message = "From: alice@example.org\r\n\r\nHello\r\n"
        reply = await client.message(message, "alice@example.org", "friend@example.net")
        assert reply.startswith("250")
        stored = server.last.data
        assert b"X-Auth-OK: alice\r\n" in stored
        assert f"(user {WORD}, known by POP3 login)".encode() in stored
        assert b"alice" not in without_name(stored).replace(b"alice@example.org", b"")
