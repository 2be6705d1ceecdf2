"""Packed logins: what goes in comes out, and octets that are no record do no harm."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Login,
    LoginProtocol,
    Profile,
    Registration,
    UserKey,
)
from netmail_common.connmgr.packed import (
    BadRecord,
    LoginPacker,
    Origin,
    Origins,
    assembled,
    grants,
    key_end,
    login_key,
    origin_of,
    place_of,
    prolonged,
    session_of,
    times_of,
)
from netmail_common.connmgr.replica_table import ReplicaTable
from netmail_common.networks import network_of

HOME = b"\xc0\x00\x02\x01"

names = st.text("abZ.@ é€\U0001d54f-", min_size=1, max_size=60) | st.just("x" * 255)
users = st.one_of(st.just(ANONYMOUS), st.builds(UserKey, names, names | st.just("")))
networks = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
times = st.floats(1.0, 1e9)
texts = st.lists(names, max_size=4).map(tuple)


@st.composite
def logins(draw: st.DrawFn) -> Login:
    network = draw(networks)
    addresses = draw(texts)
    keys = draw(st.sampled_from([addresses, tuple(text.casefold() for text in addresses)]))
    return Login(
        serial=draw(st.integers(1, 2**40)),
        profile=Profile(draw(users), addresses, keys, frozenset(draw(texts))),
        place=network + draw(st.sampled_from([b"", b"-"])),
        client_address=draw(st.just(network) | networks),
        protocol=draw(st.sampled_from(LoginProtocol)),
        messaging_server=draw(names | st.just("")),
        session_id=draw(names | st.just("")),
        verified=draw(times),
        expires=draw(times),
        credential_epoch=draw(st.none() | st.integers(0, 2**40)),
    )


@given(logins())
def test_what_is_packed_is_unpacked_the_same(login: Login) -> None:
    packer = LoginPacker()
    assert packer.unpack(packer.pack(login)) == login


@given(logins(), times)
def test_key_times_and_origin_are_read_without_unpacking(login: Login, later: float) -> None:
    packer = LoginPacker()
    record = packer.pack(login)
    end = key_end(record)
    assert record[:end] == login_key(login.place, login.user)
    assert place_of(record) == place_of(record[:end]) == login.place
    assert grants(record) == (network_of(login.place) == login.place)
    assert times_of(record, end) == (login.expires, login.verified)
    assert packer.origins[origin_of(record, end)] == Origin(
        login.messaging_server, login.profile.domains
    )
    assert times_of(prolonged(record, end, later), end) == (later, login.verified)
    assert len(prolonged(record, end, later)) == len(record)


@given(logins())
def test_a_record_is_what_any_protobuf_library_reads(login: Login) -> None:
    record = LoginPacker().pack(login)
    message = pb.LoginRecord.FromString(record)
    assert (message.place, message.user.name) == (login.place, login.user.name)
    assert (message.expires, message.verified) == (login.expires, login.verified)
    if login.user != ANONYMOUS and login.user.context:
        again = message.SerializeToString(deterministic=True)
        assert len(again) == len(record)  # the same fields; the session id stands at another place
        assert pb.LoginRecord.FromString(again) == message


@given(logins(), logins(), st.booleans(), times, times)
def test_a_login_is_renewed_in_its_record_if_it_says_the_same_again(
    login: Login, other: Login, same: bool, verified: float, expires: float
) -> None:
    again = login._replace(session_id=other.session_id) if same else other
    registration = Registration(
        profile=again.profile,
        place=login.place,
        client_address=again.client_address,
        protocol=again.protocol,
        messaging_server=again.messaging_server,
        agent="pop_imap/1",
        session_id=again.session_id,
        age=0.0,
        credential_epoch=again.credential_epoch,
    )
    packer = LoginPacker()
    record = packer.pack(login)
    end = key_end(record)
    at = packer.session_at(record, end, registration)
    said, said_again = (
        one._replace(
            profile=one.profile._replace(user=ANONYMOUS, domains=frozenset()),
            messaging_server="",
            session_id="",
            place=login.place,
            serial=0,
            verified=0.0,
            expires=0.0,
        )
        for one in (login, again)
    )
    assert bool(at) == (said == said_again)
    if at:
        assert session_of(record, at) == login.session_id.encode()
        parts = packer.parts(record, end, at, registration)
        renewed = assembled(parts, expires, verified, registration.session_id)
        assert packer.unpack(renewed) == again._replace(
            profile=again.profile._replace(user=login.user),
            place=login.place,
            serial=login.serial,
            verified=verified,
            expires=expires,
        )
        assert packer.session_at(renewed, end, registration) == at


@given(logins(), logins())
def test_different_logins_have_different_keys(one: Login, other: Login) -> None:
    first, second = login_key(one.place, one.user), login_key(other.place, other.user)
    same = (one.place, one.user) == (other.place, other.user)
    assert first.startswith(second) == same


@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda rest: b"\x0a\x04home\x12" + rest))
def test_octets_that_are_no_record_are_refused(octets: bytes) -> None:
    table = ReplicaTable()
    with contextlib.suppress(BadRecord):
        table.put(octets)
        table.at(place_of(octets), 0.0, 10)
    with contextlib.suppress(BadRecord):
        table.remove(octets)
    with contextlib.suppress(BadRecord):
        LoginPacker().unpack(octets)


@given(logins(), st.data())
def test_a_damaged_record_is_refused_or_another_login(login: Login, data: st.DataObject) -> None:
    packer = LoginPacker()
    record = bytearray(packer.pack(login))
    record[data.draw(st.integers(0, len(record) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadRecord):
        packer.unpack(bytes(record))


def test_an_origin_goes_with_its_last_login_and_its_number_never_comes_back() -> None:
    origins = Origins()
    one, two = Origin("mail1"), Origin("mail2")
    first, second = origins.number(one), origins.number(two)
    assert (origins.number(one), second) == (first, first + 1)
    origins.use(first)
    origins.use(first)
    origins.release(first)
    assert origins.after(0) == [(first, one), (second, two)]
    origins.release(first)
    assert origins.after(0) == [(second, two)]
    assert origins.after(second) == []
    with pytest.raises(BadRecord):
        origins[first]
    assert origins.number(one) == second + 1
