"""Whose a mail address is, by a file and by the rule user@domain."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.config import ConfigError
from netmail_common.config.connmgr import AddressMapConfig
from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.model import (
    Binding,
    Decision,
    Login,
    LoginProtocol,
    SenderQuestion,
    UserKey,
)
from netmail_common.networks import AddressRules, NetworkMap, Standing
from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.domain.address_map import AddressMap, AddressMapError, parse_entries
from netmail_connmgr.domain.door import Candidate, admit

FILE = """\
# address              user
alice@example.org      alice
Sales@EXAMPLE.org      alice   # shared
sales@example.org      bob
bob@example.net        bob@example.net
carol@example.com      carol@users.demo
"""
ALICE = UserKey("alice", "")


def address_map(text: str = FILE, *domains: str, **more: str) -> AddressMap:
    return AddressMap(parse_entries(text), domains, **more)


def login_of(known: AddressMap, user: UserKey, serial: int = 1) -> Login:
    """The login of a user as a front end registers it."""
    registration = admit(
        Candidate(
            user,
            b"\xc0\x00\x02\x01",
            LoginProtocol.AUTH_POLICY,
            addresses=known.addresses_of(user),
            domains=known.domains_of(user),
        ),
        NetworkMap(AddressRules()),
    )
    return Login(
        serial=serial,
        profile=registration.profile,
        place=registration.place,
        client_address=registration.client_address,
        protocol=registration.protocol,
        messaging_server="",
        session_id="",
        verified=0.0,
        expires=900.0,
        credential_epoch=None,
    )


def may_send(
    known: AddressMap, sender: str, *users: UserKey, binding: Binding = Binding.STRICT
) -> bool:
    """What the table's decision says, with these users logged in from the client's address."""
    logins = [login_of(known, user, serial) for serial, user in enumerate(users)]
    question = SenderQuestion((known.sender(sender, binding),), binding)
    decision = decide(question, Standing.GRANTS, logins, max_users=8)
    return decision.decision is Decision.ALLOWED


def test_a_user_owns_what_the_file_gives_him() -> None:
    known = address_map()
    assert known.addresses_of(ALICE) == ("alice@example.org", "Sales@example.org")
    assert known.domains_of(ALICE) == ("example.org",)
    assert may_send(known, "ALICE@Example.Org", ALICE)
    assert may_send(known, "sales@example.org", ALICE)
    assert not may_send(known, "bob@example.net", ALICE)
    assert len(known) == 4


def test_an_address_may_have_several_owners() -> None:
    known = address_map()
    assert may_send(known, "sales@example.org", UserKey("bob", ""))


def test_a_name_with_a_domain_is_another_name() -> None:
    known = address_map()
    assert may_send(known, "bob@example.net", UserKey("bob@example.net", ""))
    assert may_send(known, "bob@example.net", UserKey("bob", "example.net"))
    assert not may_send(known, "bob@example.net", UserKey("bob", ""))
    assert not may_send(known, "bob@example.net", UserKey("bob", "example.org"))


def test_users_of_a_context_are_named_with_it() -> None:
    known = address_map()
    assert may_send(known, "carol@example.com", UserKey("carol", "users.demo"))
    assert not may_send(known, "carol@example.com", UserKey("carol", "users.acme"))
    assert not may_send(known, "carol@example.com", UserKey("carol", ""))


def test_a_user_of_the_default_context_counts_as_one_without() -> None:
    known = address_map(FILE, default_context="users.demo")
    assert may_send(known, "alice@example.org", UserKey("alice", "users.demo"))
    assert not may_send(known, "alice@example.org", UserKey("alice", "users.acme"))


def test_in_the_domains_of_the_rule_an_address_is_the_users_of_that_name() -> None:
    known = address_map("", "example.org", "example.net")
    assert may_send(known, "alice@example.org", ALICE)
    assert may_send(known, "alice@example.net", ALICE)
    assert not may_send(known, "bob@example.org", ALICE)
    assert not may_send(known, "alice@example.com", ALICE)
    whole = UserKey("alice@example.org", "")
    assert may_send(known, "alice@example.org", whole)
    assert not may_send(known, "alice@example.net", whole)


def test_a_line_of_the_file_goes_before_the_rule() -> None:
    known = address_map("alice@example.org bob\n", "example.org")
    assert not may_send(known, "alice@example.org", ALICE)
    assert may_send(known, "alice@example.org", UserKey("bob", ""))
    assert not may_send(known, "alice@example.org", UserKey("alice@example.org", ""))


def test_subaddresses_are_their_users() -> None:
    assert may_send(address_map(), "alice+shop@example.org", ALICE)
    assert not may_send(address_map(), "+alice@example.org", ALICE)
    assert not may_send(address_map(separator=""), "alice+shop@example.org", ALICE)
    named = address_map(FILE + "alice+shop@example.org bob\n")
    assert not may_send(named, "alice+shop@example.org", ALICE)
    assert may_send(named, "alice+shop@example.org", UserKey("bob", ""))


def test_under_domain_an_unlisted_address_of_a_listed_domain_is_nobodys() -> None:
    known = address_map()
    domain = Binding.DOMAIN
    assert may_send(known, "anything@example.org", ALICE, binding=domain)
    assert not may_send(known, "anything@example.org", ALICE)
    assert not may_send(known, "anything@example.net", ALICE, binding=domain)
    assert not may_send(known, "anything@elsewhere.example", ALICE, binding=domain)
    assert may_send(known, "sales@example.org", ALICE, binding=domain)
    bob = UserKey("bob@example.net", "")
    assert not may_send(known, "alice@example.org", bob, binding=domain)
    assert may_send(known, "alice@example.org", bob, ALICE, binding=domain)


def test_under_domain_the_rule_still_knows_an_owner_for_each_address() -> None:
    known = address_map("", "example.org")
    assert may_send(known, "alice@example.org", ALICE, binding=Binding.DOMAIN)
    assert not may_send(known, "bob@example.org", ALICE, binding=Binding.DOMAIN)


def test_what_is_no_address_belongs_to_nobody() -> None:
    known = address_map()
    for text in ("", "alice", "@example.org", "alice@", "alice@exa mple", "a\nb@example.org"):
        assert not may_send(known, text, ALICE)
        assert not may_send(known, text, ALICE, binding=Binding.DOMAIN)


def test_internationalized_addresses_match_in_every_spelling() -> None:
    known = address_map("Ünï@exämple.org alice\n")
    assert may_send(known, "ünï@xn--exmple-cua.org", ALICE)
    assert may_send(known, "u\u0308ni\u0308@EXÄMPLE.org", ALICE)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("alice@example.org\n", "line 1: not an address and a user"),
        ("\n# a\nalice@example.org alice bob\n", "line 3: not an address and a user"),
        ("alice alice\n", "line 1: no @ behind the local part"),
        ("@example.org alice\n", "line 1: the local part is empty or has a character it may not"),
        ("a@-x- alice\n", "line 1: the domain is not a host name"),
        ("a@example.org \x01\n", "line 1: user name with a control character"),
        (f"a@example.org {'x' * 256}\n", "line 1: user name longer than 255 octets"),
    ],
)
def test_a_bad_line_is_named_by_its_number(text: str, error: str) -> None:
    with pytest.raises(AddressMapError) as raised:
        parse_entries(text)
    assert str(raised.value) == error


NAMES = st.sampled_from(["alice", "bob", "alice@example.org", "bob@example.net", "a+b", "x y"])
ADDRESSES = st.sampled_from(
    ["alice@example.org", "bob@example.org", "alice+a@example.org", "bob@example.net", "a@b.test"]
)


@given(
    entries=st.lists(st.tuples(ADDRESSES, NAMES.filter(lambda name: " " not in name))),
    domains=st.sets(st.sampled_from(["example.org", "example.net"])),
    user=NAMES,
    sender=ADDRESSES,
)
def test_strict_allows_nothing_but_what_file_or_rule_give(
    entries: list[tuple[str, str]], domains: set[str], user: str, sender: str
) -> None:
    known = address_map("\n".join(f"{address} {name}" for address, name in entries), *domains)
    listed = {address for address, _ in entries}
    local, _, domain = sender.partition("@")
    meant = sender if sender in listed else f"{local.partition('+')[0]}@{domain}"
    if meant in listed:
        owns = (meant, user) in entries
    else:
        owns = domain in domains and user in {meant, meant.partition("@")[0]}
    assert may_send(known, sender, UserKey(user, "")) == owns


async def test_a_changed_file_is_taken_when_it_has_settled(tmp_path: Path) -> None:
    path = tmp_path / "addresses"
    path.write_text("alice@example.org alice\n")
    book = AddressBook(AddressMapConfig(file=path))
    first = book.map
    await book.look()
    assert book.map is first
    path.write_text("alice@example.org alice\nally@example.org alice\n")
    await book.look()
    assert book.map is first
    await book.look()
    assert may_send(book.map, "ally@example.org", ALICE)


async def test_a_bad_or_lost_file_leaves_the_last_good_map(tmp_path: Path) -> None:
    path = tmp_path / "addresses"
    path.write_text("alice@example.org alice\n")
    book = AddressBook(AddressMapConfig(file=path))
    for change in (lambda: path.write_bytes(b"\xff"), lambda: path.write_text("x\n"), path.unlink):
        change()
        await book.look()
        await book.look()
        assert may_send(book.map, "alice@example.org", ALICE)
    path.write_text("bob@example.org bob\n")
    await book.look()
    await book.look()
    assert may_send(book.map, "bob@example.org", UserKey("bob", ""))


async def test_following_the_file_ends_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / "addresses"
    path.write_text("")
    async with AddressBook(AddressMapConfig(file=path)).followed():
        pass


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"nonsense\n"])
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "addresses"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="address_map"):
        AddressBook(AddressMapConfig(file=path))
