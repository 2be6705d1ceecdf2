"""What the table's door lets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.connmgr.model import ANONYMOUS, LoginProtocol, UserKey
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.domain.door import MAX_ADDRESS_OCTETS, Candidate, NotAdmitted, admit

NETWORKS = NetworkMap(AddressRules())
HOME = b"\xc0\x00\x02\x01"


def candidate(
    user: UserKey = UserKey("alice", "users.demo"),  # noqa: B008 - frozen
    *,
    address: bytes = HOME,
    addresses: tuple[str, ...] = (),
    domains: tuple[str, ...] = (),
    protocol: LoginProtocol = LoginProtocol.IMAP,
    agent: str = "",
    age: float = 0.0,
) -> Candidate:
    return Candidate(
        user=user,
        client_address=address,
        protocol=protocol,
        addresses=addresses,
        domains=domains,
        agent=agent,
        age=age,
    )


def test_addresses_and_domains_are_kept_in_their_one_form() -> None:
    profile = admit(
        candidate(
            addresses=("Alice@Example.ORG", "not an address", "b\u00fc@b\u00fccher.example"),
            domains=("EXAMPLE.org", "b\u00fccher.example", "no domain!"),
        ),
        NETWORKS,
    ).profile
    assert profile.address_keys == ("alice@example.org", "b\u00fc@xn--bcher-kva.example")
    assert profile.domains == {"example.org", "xn--bcher-kva.example"}


def test_users_of_one_server_share_its_domains() -> None:
    domains = tuple(f"d{n}.example" for n in range(100))
    one, other = (
        admit(candidate(UserKey(name, "c"), domains=domains), NETWORKS) for name in ("a", "b")
    )
    assert one.profile.domains is other.profile.domains


def test_a_user_with_more_addresses_than_a_login_keeps_is_let_in() -> None:
    many = tuple(f"alias-number-{n}@example.org" for n in range(5000))
    kept = admit(candidate(addresses=many), NETWORKS).profile.addresses
    assert kept == many[: len(kept)]
    assert sum(map(len, kept)) <= MAX_ADDRESS_OCTETS < sum(map(len, kept)) + 40


def test_a_login_without_a_user_owns_no_address() -> None:
    legacy = candidate(
        ANONYMOUS,
        addresses=("a@example.org",),
        domains=("example.org",),
        protocol=LoginProtocol.LEGACY_UDP,
    )
    profile = admit(legacy, NETWORKS).profile
    assert (profile.address_keys, profile.domains) == ((), frozenset())


@pytest.mark.parametrize(
    "bad",
    [
        candidate(ANONYMOUS),
        candidate(UserKey("", "users.demo"), protocol=LoginProtocol.LEGACY_UDP),
        candidate(UserKey("a\tb", "c")),
        candidate(UserKey("a", "c\x7f")),
        candidate(UserKey("\ud800", "c")),
        candidate(UserKey("a\u2029", "c")),
        candidate(UserKey("a" * 256, "c")),
        candidate(agent="a" * 256),
        candidate(address=b"\x01" * 5),
        candidate(age=-0.001),
        candidate(domains=("example.org",) * 10_001),
    ],
)
def test_what_may_not_stand_in_a_header_or_a_log_is_not_let_in(bad: Candidate) -> None:
    with pytest.raises(NotAdmitted):
        admit(bad, NETWORKS)


@given(st.text(max_size=300), st.text(max_size=20), st.binary(max_size=20))
def test_whoever_is_let_in_has_a_name_that_can_be_written(
    name: str, context: str, address: bytes
) -> None:
    try:
        registration = admit(candidate(UserKey(name, context), address=address), NETWORKS)
    except NotAdmitted:
        return
    user = registration.profile.user
    for text in (user.name, user.context):
        assert len(text.encode()) <= 255
        assert len(text.splitlines()) <= 1
        assert all(ord(character) >= 32 and ord(character) != 127 for character in text)
    assert user.name
    assert len(address) in {4, 16}
