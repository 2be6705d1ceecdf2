"""How datagrams are told apart, and what becomes of those that are none."""

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_connmgr.protocol.legacy_udp import (
    Handshake,
    Reception,
    Refused,
    Register,
    Reply,
    Request,
    authenticated,
    plain,
)
from netmail_connmgr.protocol.legacy_udp.layout import Layout
from netmail_connmgr.protocol.legacy_udp.plain import Malformed, RequestNumber

from tests.connmgr.legacy_udp.vectors import ACCESS_HASH, AGENT, NOW, vector, vectors

BOTH = Reception(with_plain=True, handshake=Handshake(ACCESS_HASH))
RANDOM = st.randoms(use_true_random=False)


def plain_request(
    layout: Layout, number: int, address: bytes, name: bytes | None, free: bytes
) -> bytes:
    """A request whose free octets are taken from FREE."""
    word, order = layout.word, layout.order
    bare = 5 * word
    size = bare + (len(name) if name is not None else 256 if number else 0)
    data = bytearray(itertools.islice(itertools.cycle(free), size))
    data[:word] = number.to_bytes(word, order)
    data[word : 2 * word] = int.from_bytes(address, order).to_bytes(word, order)
    if name is not None:
        data[2 * word : 3 * word] = len(name).to_bytes(word, order)
        data[4 * word : 4 * word + len(name)] = name
    return bytes(data)


addresses = st.binary(min_size=4, max_size=4).filter(any)
free_octets = st.binary(min_size=1, max_size=300)


@given(
    layout=st.sampled_from(Layout),
    number=st.sampled_from(RequestNumber),
    address=addresses,
    name=st.binary(max_size=256),
    free=free_octets,
)
def test_no_request_fits_another_layout_whatever_lay_on_the_stack(
    layout: Layout, number: RequestNumber, address: bytes, name: bytes, free: bytes
) -> None:
    given_name = name if number == RequestNumber.STORE_NAME else None
    request = plain.parse(plain_request(layout, number, address, given_name, free))
    assert (request.number, request.address) == (number, address)
    assert request.name == (given_name or b"")
    if number == RequestNumber.STORE:
        assert request.layout.word == layout.word
    else:
        assert request.layout is layout


@given(data=st.binary(max_size=600))
def test_garbage_is_refused_or_a_request_of_the_right_length(data: bytes) -> None:
    received = received_or_refused(data)
    if isinstance(received, Refused):
        assert received.reply is None
        assert received.fault in {"malformed", "name"}
    elif isinstance(received, Reply):
        assert len(data) in {344, 368}
        assert received.kind in {"no password", "wrong password"}


def received_or_refused(data: bytes) -> Request | Refused:
    try:
        return BOTH.receive(data, AGENT, NOW)
    except Refused as refused:
        return refused


@given(layout=st.sampled_from(Layout), number=st.sampled_from(RequestNumber), name=st.binary())
def test_no_address_is_refused_in_every_layout(
    layout: Layout, number: RequestNumber, name: bytes
) -> None:
    given_name = name if number == RequestNumber.STORE_NAME else None
    with pytest.raises(Malformed):
        plain.parse(plain_request(layout, number, bytes(4), given_name, b"\xa5"))


@pytest.mark.parametrize("half", [slice(8, 12), slice(12, 16)])
def test_an_address_with_both_halves_filled_is_refused(half: slice) -> None:
    for layout in (Layout.LP64_LITTLE, Layout.LP64_BIG):
        for name in ("store", "check", "check_name", "store_name"):
            data = bytearray(vector(name, layout))
            data[half] = b"\1\2\3\4"
            if data == vector(name, layout):
                continue
            if any(data[8:12]) and any(data[12:16]):
                with pytest.raises(Malformed):
                    plain.parse(bytes(data))


def test_every_request_cut_or_lengthened_by_an_octet_is_no_request() -> None:
    for (name, _), data in vectors().items():
        if name.startswith(("answer", "reply")):
            continue
        for wrong in (data[:-1], data + b"\0", data * 2, b""):
            with pytest.raises(Refused) as refused:
                BOTH.receive(wrong, AGENT, NOW)
            assert (refused.value.fault, refused.value.reply) == ("malformed", None)


def test_our_own_replies_are_no_requests() -> None:
    """Else two servers could be made to answer each other for ever."""
    for (name, _), data in vectors().items():
        if name.startswith(("answer", "reply")):
            with pytest.raises(Refused):
                BOTH.receive(data, AGENT, NOW)


@pytest.mark.parametrize("layout", list(Layout))
def test_a_protocol_that_is_off_gets_silence(layout: Layout) -> None:
    only_plain = Reception(with_plain=True, handshake=None)
    only_authenticated = Reception(with_plain=False, handshake=Handshake(ACCESS_HASH))
    for (name, which), data in vectors().items():
        if which is not layout or name.startswith(("answer", "reply", "store_name-of-256")):
            continue
        is_plain = name.startswith(("store", "check"))
        with pytest.raises(Refused) as refused:
            (only_authenticated if is_plain else only_plain).receive(data, AGENT, NOW)
        assert refused.value.reply is None
        assert refused.value.fault == ("plain is off" if is_plain else "no credential")


@given(
    command=st.binary(min_size=4, max_size=4),
    size=st.sampled_from(sorted(authenticated.REQUEST_SIZES)),
)
def test_the_smaller_reading_of_the_command_tells_the_byte_order(command: bytes, size: int) -> None:
    start, end = (36, 40) if size == 344 else (40, 48)
    data = bytearray(size)
    data[start : start + 4] = command
    request = authenticated.parse(bytes(data))
    field = bytes(data[start:end])
    little, big = int.from_bytes(field, "little"), int.from_bytes(field, "big")
    assert request.command == min(little, big)
    assert request.layout.order == ("little" if little <= big else "big")


def test_all_eight_octets_of_a_long_command_count() -> None:
    for layout in (Layout.LP64_LITTLE, Layout.LP64_BIG):
        data = bytearray(vector("relay", layout))
        data[43 if layout is Layout.LP64_LITTLE else 44] = 1
        reply = BOTH.receive(bytes(data), AGENT, NOW)
        assert isinstance(reply, Reply)
        assert reply.kind == "unknown command"


@pytest.mark.parametrize("layout", [Layout.LP64_LITTLE, Layout.LP64_BIG])
def test_an_authenticated_address_with_both_halves_filled_is_refused(layout: Layout) -> None:
    data = bytearray(vector("relay", layout))
    data[48:56] = b"\1" * 8
    with pytest.raises(Refused) as refused:
        BOTH.receive(bytes(data), AGENT, NOW)
    assert (refused.value.fault, refused.value.reply) == ("malformed", None)


@pytest.mark.parametrize("layout", list(Layout))
def test_a_name_that_is_no_text_is_refused(layout: Layout) -> None:
    data = bytearray(vector("authenticated", layout))
    offset = 80 if layout.word == 4 else 96
    data[offset] = 0xFF
    with pytest.raises(Refused) as refused:
        BOTH.receive(bytes(data), AGENT, NOW)
    assert refused.value.reply == vector("answer-unknown", layout)


@given(random=RANDOM, name=st.sampled_from(["relay", "connect", "authenticated"]))
def test_what_lies_behind_the_fields_of_an_event_does_not_matter(random: Random, name: str) -> None:
    for layout in Layout:
        data = bytearray(vector(name, layout))
        start = 80 if layout.word == 4 else 96
        free = len(data) - start - 6
        data[start + 6 :] = random.randbytes(free)
        data[44 if layout.word == 4 else 56 : 61 if layout.word == 4 else 73] = b"\xa5" * 17
        request = BOTH.receive(bytes(data), AGENT, NOW)
        assert request == BOTH.receive(vector(name, layout), AGENT, NOW)
        if name == "authenticated":
            assert isinstance(request, Register)
            assert request.name == "alice"
