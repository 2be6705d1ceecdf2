"""Logins and revocations as the store keeps them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.connmgr.model import LoginProtocol, Profile, Revocation, UserKey
from netmail_connmgr.adapters.valkey.clock import MICROSECONDS
from netmail_connmgr.adapters.valkey.records import (
    BadEntry,
    member_of,
    place_and_user,
    read_login,
    read_members,
    read_revocation,
    registration_arguments,
    revocation_rest,
    user_field,
)

from tests.connmgr.store_contract.stores import HOME, registration

names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=40)
users = st.builds(UserKey, names, names)
places = st.one_of(*(st.binary(min_size=n, max_size=n) for n in (4, 16))).flatmap(
    lambda network: st.sampled_from([network, network + b"-"])
)
texts = st.lists(st.text(max_size=30), max_size=4).map(tuple)
times = st.integers(0, 2**52)


def to_store(shown: float) -> float:
    return shown / MICROSECONDS


@given(
    user=users,
    place=places,
    addresses=texts,
    keys=texts,
    domains=texts,
    session=names,
    epoch=st.one_of(st.none(), st.integers(0, 2**53)),
    verified=times,
    expires=times,
    protocol=st.sampled_from(LoginProtocol),
    client=st.binary(min_size=4, max_size=4),
)
def test_a_login_is_read_as_it_was_written(
    *,
    user: UserKey,
    place: bytes,
    addresses: tuple[str, ...],
    keys: tuple[str, ...],
    domains: tuple[str, ...],
    session: str,
    epoch: int | None,
    verified: int,
    expires: int,
    protocol: LoginProtocol,
    client: bytes,
) -> None:
    # As many keys as addresses, as a login has.
    keys = (*keys, *addresses)[: len(addresses)]
    profile = Profile(user, addresses, keys, frozenset(domains))
    item = registration(
        user,
        place,
        profile=profile,
        client_address=client,
        protocol=protocol,
        session=session,
        epoch=epoch,
    )
    args = registration_arguments(item, 900.0, 0.0)
    assert args[:2] == [place, user_field(user)]
    written_epoch, written_session, rest = args[4], args[5], args[7]
    assert isinstance(written_epoch, int)
    assert isinstance(written_session, str)
    assert isinstance(rest, bytes)
    value = struct.pack(">dddd", 7, verified, expires, written_epoch)
    value += written_session.encode() + b"\0" + rest
    login = read_login(*place_and_user(member_of(place, user)), value, to_store)
    assert login.profile == profile
    assert (login.place, login.client_address) == (place, client)
    assert (login.session_id, login.credential_epoch) == (session, epoch)
    assert login.protocol is protocol
    assert (login.verified, login.expires) == (verified / MICROSECONDS, expires / MICROSECONDS)


@given(
    user=st.one_of(st.none(), users),
    network=st.one_of(
        st.none(), st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)
    ),
    epoch=st.integers(0, 2**53),
    reason=st.text(max_size=100),
)
def test_a_revocation_is_read_as_it_was_written(
    user: UserKey | None, network: bytes | None, epoch: int, reason: str
) -> None:
    revocation = Revocation(5.0, user, network, epoch, network, 64, reason)
    subject = b"%d" % bool(epoch) + bytes((len(network or b""),)) + (network or b"")
    subject += user_field(user) if user is not None else b""
    value = struct.pack(">ddd", 5 * MICROSECONDS, epoch, 0) + revocation_rest(revocation)
    assert read_revocation(subject, value, to_store) == revocation


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_whatever_else_is_there_is_a_bad_entry(value: bytes, member: bytes) -> None:
    for read in (
        lambda: read_login(HOME, UserKey("a", "b"), value, to_store),
        lambda: read_revocation(member, value, to_store),
        lambda: place_and_user(member),
        lambda: read_members(value),
    ):
        try:
            read()
        except BadEntry:
            continue


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"[]",
        b"null",
        b'["",99,"",[],[],[]]',
        b"[" * 2000,
        b"\xff",
        b'["",1,"","a@b",[],[]]',
        b'["",1,"",[1],[],[]]',
        b'["",1,"",[],[],[[]]]',
        b'["zz",1,"",[],[],[]]',
    ],
)
def test_a_login_whose_end_is_none_is_a_bad_entry(rest: bytes) -> None:
    value = struct.pack(">dddd", 1, 2, 3, 4) + b"s\0" + rest
    with pytest.raises(BadEntry):
        read_login(HOME, UserKey("a", "b"), value, to_store)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -float("inf")])
def test_a_number_that_is_none_is_a_bad_entry(number: float) -> None:
    value = struct.pack(">dddd", number, 2, 3, 4) + b's\0["",1,"",[],[],[]]'
    with pytest.raises(BadEntry):
        read_login(HOME, UserKey("a", "b"), value, to_store)
