"""Strict reading of address fields; the table of forged headers has most of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.address_list import AddressFieldError, parse_address_field
from netmail_common.mail_address import MailAddress

ATOM = st.text(alphabet="abcXYZ019!#$%&'*+-/=?^_`{|}~", min_size=1, max_size=8).filter(
    lambda text: "=?" not in text
)
SPACE = st.sampled_from(["", " ", "\t", "\r\n ", " (c) ", "(a(b)\\)c)", " \r\n\t"])


@given(st.text(alphabet='ab@.,:;<>()[]"\\ \t\r\n=?é', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        field = parse_address_field(text.encode())
    except AddressFieldError:
        return
    assert all("@" in str(address) for address in field.addresses)


@given(st.binary(max_size=60))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    try:
        parse_address_field(octets)
    except AddressFieldError:
        return


@given(ATOM, SPACE, SPACE, SPACE, st.booleans())
def test_comments_and_folding_change_no_address(
    local: str, one: str, two: str, three: str, angle: bool
) -> None:
    text = f"{one}{local}{two}@example.org{three}"
    if angle:
        text = f'{one}"A, B" {two}<{local}@example.org>{three}'
    field = parse_address_field(text.encode())
    assert field.addresses == (MailAddress(local, "example.org"),)


def test_groups_give_their_addresses() -> None:
    field = parse_address_field(b"A: a@x, B <b@x>;, c@x, D:;")
    assert [str(a) for a in field.addresses] == ["a@x", "b@x", "c@x"]
    assert field.has_group


def test_many_addresses_are_too_many() -> None:
    with pytest.raises(AddressFieldError, match="too many"):
        parse_address_field(b", ".join([b"a@x"] * 1001))


@pytest.mark.parametrize(
    "text",
    [
        b" " * 60_000 + b"\x00",
        b"(" * 60_000,
        b"(" * 30_000 + b")" * 30_000,
        b'"' + b" " * 60_000,
        b'"' + b"\\a" * 30_000,
        b"a." * 30_000,
        b"a " * 30_000,
        b"<" * 60_000,
        b'"' + b"a " * 30_000 + b"\x00",
    ],
)
def test_a_long_field_takes_little_time(text: bytes) -> None:
    with pytest.raises(AddressFieldError):
        parse_address_field(text)
