"""Every request and reply of UDP port 689, octet by octet, in each layout."""

from collections.abc import Container

import pytest
from netmail_connmgr.protocol.legacy_udp import (
    Connect,
    Handshake,
    PlainEnquiry,
    Reception,
    Refused,
    Register,
    Relay,
    Reply,
    Request,
)
from netmail_connmgr.protocol.legacy_udp.layout import Layout

from tests.connmgr.legacy_udp.vectors import ACCESS_HASH, AGENT, CLIENT, NOW, vector, vectors

RECEPTION = Reception(with_plain=True, handshake=Handshake(ACCESS_HASH))

every_layout = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name)


def receive(name: str, layout: Layout) -> Request | Refused:
    try:
        return RECEPTION.receive(vector(name, layout), AGENT, NOW)
    except Refused as refused:
        return refused


@every_layout
@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("store", ""),
        ("store_name", "alice"),
        ("store_name-of-nobody", ""),
        ("store_name-of-20", "n" * 20),
        ("store_name-of-255", "x" * 255),
        ("store_name-not-ascii", "j\u00f6rg"),
    ],
)
def test_a_plain_store_registers_and_is_not_answered(name: str, user: str, layout: Layout) -> None:
    store = receive(name, layout)
    assert store == Register(name.partition("-")[0], CLIENT, user)
    assert isinstance(store, Register)
    assert (store.done(), store.failed(), store.refused()) == (None, None, None)


@every_layout
def test_a_plain_name_of_256_octets_is_refused_and_not_cut(layout: Layout) -> None:
    refused = receive("store_name-of-256", layout)
    assert isinstance(refused, Refused)
    assert (refused.fault, refused.reply) == ("name", None)


@every_layout
def test_a_plain_check_is_answered_in_the_client_s_layout(layout: Layout) -> None:
    check = receive("check", layout)
    assert isinstance(check, PlainEnquiry)
    assert (check.kind, check.address) == ("check", CLIENT)
    assert check.unknown() == vector("reply-not-found", layout)
    assert check.known("") == vector("reply-found", layout)
    assert check.known("alice") == vector("reply-found", layout)
    check.unavailable()


@every_layout
def test_a_plain_check_for_a_name_is_answered_with_it(layout: Layout) -> None:
    check = receive("check_name", layout)
    assert isinstance(check, PlainEnquiry)
    assert (check.kind, check.address) == ("check_name", CLIENT)
    assert check.unknown() == vector("reply-not-found", layout)
    assert check.known("") == vector("reply-found", layout)
    assert check.known("alice") == vector("reply-found-name", layout)
    assert check.known("x" * 255) == vector("reply-found-255", layout)


@every_layout
@pytest.mark.parametrize("name", ["relay", "relay-lower-case", "password-in-capitals"])
def test_a_relay_question_is_answered_with_the_user(name: str, layout: Layout) -> None:
    relay = receive(name, layout)
    assert relay == Relay(layout, CLIENT)
    assert isinstance(relay, Relay)
    assert relay.known("alice") == vector("answer-allowed-user", layout)
    assert relay.known("x" * 255) == vector("answer-allowed-user-255", layout)
    assert relay.known("") == vector("answer-allowed", layout)
    assert relay.unknown() == vector("answer-deny-temporary", layout)
    assert relay.unavailable() == vector("answer-deny-temporary", layout)


@every_layout
def test_a_connection_is_judged_with_a_comment_and_without_a_user(layout: Layout) -> None:
    connect = receive("connect", layout)
    assert connect == Connect(layout, CLIENT)
    assert isinstance(connect, Connect)
    assert connect.allowed() == vector("answer-allowed", layout)
    assert connect.allowed("No reverse name", require_auth=True) == vector(
        "answer-require-auth", layout
    )
    denied = connect.denied("Try again later", permanently=False)
    assert denied == vector("answer-deny-temporary-comment", layout)
    assert connect.denied("Blocked", permanently=True) == vector("answer-deny-permanent", layout)
    assert connect.denied("c" * 200, permanently=False) == vector("answer-comment-128", layout)
    assert connect.denied("\r\nTry\x00 again later\x7f", permanently=False) == denied


@every_layout
@pytest.mark.parametrize(("name", "user"), [("authenticated", "alice"), ("255", "x" * 255)])
def test_a_login_is_registered_and_answered(name: str, user: str, layout: Layout) -> None:
    name = name if name == "authenticated" else f"authenticated-{name}"
    login = receive(name, layout)
    assert login == Register("authenticated", CLIENT, user, layout)
    assert isinstance(login, Register)
    assert login.done() == vector("answer-ok", layout)
    assert login.failed() == vector("answer-dberr", layout)
    assert login.refused() == vector("answer-unknown", layout)


@every_layout
@pytest.mark.parametrize("name", ["authenticated-256", "authenticated-endless"])
def test_a_login_with_too_long_a_name_is_refused_and_not_cut(name: str, layout: Layout) -> None:
    refused = receive(name, layout)
    assert isinstance(refused, Refused)
    assert (refused.fault, refused.reply) == ("name", vector("answer-unknown", layout))


@every_layout
@pytest.mark.parametrize(
    "name",
    [
        "authenticated-nobody",
        "disconnected",
        "delivered",
        "received",
        "virus-found",
        "spam-found",
        "dos-detected",
        "notify-other",
    ],
)
def test_what_is_only_counted_is_answered_ok(name: str, layout: Layout) -> None:
    reply = receive(name, layout)
    assert isinstance(reply, Reply)
    assert reply.data == vector("answer-ok", layout)
    assert reply.kind == {"authenticated-nobody": "authenticated"}.get(name, name).replace(
        "-found", " found"
    ).replace("dos-", "dos ").replace("-other", " other")


@every_layout
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("verify-other", "answer-deny-temporary"),
        ("unknown-command", "answer-unknown-command"),
        ("without-password", "answer-must-auth"),
        ("wrong-password", "answer-must-auth"),
    ],
)
def test_other_requests_are_answered_at_once(name: str, answer: str, layout: Layout) -> None:
    reply = receive(name, layout)
    assert isinstance(reply, Reply)
    assert reply.data == vector(answer, layout)


def test_every_vector_is_what_the_description_counts() -> None:
    requests: dict[int, Container[int]] = {4: {344}, 8: {368}}
    sizes: dict[str, dict[int, Container[int]]] = {
        "reply": {4: {276}, 8: {296}},
        "answer": {4: {396}, 8: {400}},
        "check": {4: {276}, 8: {296}},
        "check_name": {4: {276}, 8: {296}},
        "store": {4: {20}, 8: {40}},
        "store_name": {4: range(20, 277), 8: range(40, 297)},
    }
    for (name, layout), octets in vectors().items():
        allowed = sizes.get(name.partition("-")[0], requests)
        assert len(octets) in allowed[layout.word], (name, layout)
