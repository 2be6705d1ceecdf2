"""Mail addresses: what parses, what does not, and when two are the same."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.mail_address import (
    AddressError,
    MailAddress,
    fold,
    parse_domain,
    parse_mail_address,
    quote_local,
    split_subaddress,
)


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("alice@example.org", "alice", "example.org"),
        ("Alice@EXAMPLE.Org", "Alice", "example.org"),
        ("a.b-c_d+tag@example.org", "a.b-c_d+tag", "example.org"),
        ("!#$%&'*+/=?^_`{|}~-@example.org", "!#$%&'*+/=?^_`{|}~-", "example.org"),
        ('"a b"@example.org', "a b", "example.org"),
        ('"a@b"@example.org', "a@b", "example.org"),
        ('"a\\"b\\\\c"@example.org', 'a"b\\c', "example.org"),
        ('"alice"@example.org', "alice", "example.org"),
        ("jürgen@bücher.example", "jürgen", "xn--bcher-kva.example"),
        ("u@xn--bcher-kva.example", "u", "xn--bcher-kva.example"),
        ("u@BÜCHER.example", "u", "xn--bcher-kva.example"),
        ("u@[192.0.2.1]", "u", "[192.0.2.1]"),
        ("u@[IPv6:2001:DB8:0:0::1]", "u", "[IPv6:2001:db8::1]"),
        ("u@localhost", "u", "localhost"),
        ("u@1.example", "u", "1.example"),
    ],
)
def test_a_mailbox_of_rfc_5321_parses(text: str, local: str, domain: str) -> None:
    assert parse_mail_address(text) == MailAddress(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "alice",
        "alice@",
        "@example.org",
        "@a.example:u@example.org",
        "a@b@example.org",
        ".a@example.org",
        "a.@example.org",
        "a..b@example.org",
        "$\u037e@example.org",  # a semicolon, once normalized
        "a b@example.org",
        " a@example.org",
        "a@example.org ",
        "a@ example.org",
        "<a@example.org>",
        "a@example.org\r\n",
        "a\r@example.org",
        "a\0@example.org",
        '"a@example.org',
        '"a"b@example.org',
        '""@example.org',
        '"a\nb"@example.org',
        '"a\x7fb"@example.org',
        "a(comment)@example.org",
        "a,b@example.org",
        "a\u2028b@example.org",
        "a\x85b@example.org",
        "a@-example.org",
        "a@example-.org",
        "a@example..org",
        "a@.example.org",
        "a@example.org.",
        "a@exam_ple.org",
        "a@exam ple.org",
        "a@" + "x" * 64 + ".org",
        "a@" + ".".join(["x" * 60] * 5),
        "a@xn--a",
        "a@xn--bcher-kva\u00e4.example",
        "a@[192.0.2.256]",
        "a@[192.0.2.1",
        "a@192.0.2.1]",
        "a@[2001:db8::1]",
        "a@[IPv6:fe80::1%eth0]",
        "a@[x400:c=de]",
        "a" * 256 + "@example.org",
        "\ud800@example.org",
    ],
)
def test_what_is_not_a_mailbox_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mail_address(text)


def test_an_error_does_not_repeat_the_text() -> None:
    with pytest.raises(AddressError) as caught:
        parse_mail_address("secret\r\n@example.org")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice@example.org", "ALICE@Example.ORG"),
        ('"alice"@example.org', "alice@example.org"),
        ("jürgen@example.org", unicodedata.normalize("NFD", "jürgen") + "@example.org"),
        ("JÜRGEN@example.org", "jürgen@example.org"),
        ("straße@example.org", "STRASSE@example.org"),
        ("u@bücher.example", "u@xn--bcher-kva.example"),
        ("u@[IPv6:2001:db8:0::1]", "u@[ipv6:2001:db8::1]"),
    ],
)
def test_spellings_of_one_address_have_one_key(one: str, other: str) -> None:
    assert parse_mail_address(one).key() == parse_mail_address(other).key()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("alice@example.org", "alice@exаmple.org"),  # noqa: RUF001 - a Cyrillic letter
        ("alice@example.org", "аlice@example.org"),  # noqa: RUF001 - likewise
        ("a.b@example.org", "ab@example.org"),
        ('"a b"@example.org', "ab@example.org"),
    ],
)
def test_lookalikes_are_different_addresses(one: str, other: str) -> None:
    assert parse_mail_address(one).key() != parse_mail_address(other).key()


def test_a_subaddress_is_split_at_the_first_separator() -> None:
    assert split_subaddress("user+a+b", "+") == ("user", "a+b")
    assert split_subaddress("user", "+") == ("user", "")
    assert split_subaddress("user+", "+") == ("user", "")
    assert split_subaddress("+tag", "+") == ("+tag", "")
    assert split_subaddress("user+tag", "") == ("user+tag", "")


locals_ = st.text(
    alphabet=st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=40
)
domains = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{2,5}){0,3}\Z").filter(
    lambda text: "xn--" not in text
)


@given(locals_, domains)
def test_every_spelling_of_an_address_parses_to_it(local: str, domain: str) -> None:
    address = MailAddress.from_wire(f"{local}@{domain}")
    assert MailAddress.from_wire(address.wire) == address
    assert parse_mail_address(str(address)) == address
    assert parse_mail_address(str(address)).key() == address.key()


@given(st.text(max_size=80))
def test_any_text_parses_or_is_refused_and_parsing_is_stable(text: str) -> None:
    try:
        address = parse_mail_address(text)
    except AddressError:
        return
    assert parse_mail_address(str(address)) == address
    assert parse_domain(address.domain) == address.domain


@given(st.text(max_size=40))
def test_folding_twice_changes_nothing_more(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFD", text)) == fold(text)


def test_quoting_only_where_it_must_be() -> None:
    assert quote_local("a.b") == "a.b"
    assert quote_local("a..b") == '"a..b"'
    assert quote_local('a"b\\') == '"a\\"b\\\\"'
