"""Users: who is meant by a name or address, and what administration may do."""

from collections.abc import Callable

import pytest
from netmail_common.nmap import ResolveOutcome
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.adapters.sql import Store
from netmail_nmap.domain.delivery import Expansion
from netmail_nmap.domain.directory_errors import (
    AddressNotFound,
    AddressTaken,
    ContextNotFound,
    DomainNotLocal,
    InvalidAddress,
    InvalidPassword,
    InvalidUserName,
    UserExists,
)
from netmail_nmap.domain.errors import NmapError, UserNotFound

LOCAL, UNKNOWN = ResolveOutcome.LOCAL, ResolveOutcome.UNKNOWN_USER


async def resolve(directory: UserDirectory, address: str, size: int = 0) -> tuple[str, str]:
    """Outcome and user name."""
    (result,) = await directory.resolve([address], [size])
    return result.outcome.name, result.user.name if result.user else ""


async def test_a_new_user_has_an_address_in_each_domain(users: UserAdministration) -> None:
    alice = await users.create("alice", "users.demo", "wonderland")
    assert alice.addresses == ("alice@example.org", "alice@example.com")
    assert (alice.name, alice.context, alice.disabled) == ("alice", "users.demo", False)
    assert await users.get("ALICE", "") == alice
    assert await users.get("Alice@EXAMPLE.org", "") == alice


async def test_without_a_context_a_user_joins_the_first(users: UserAdministration) -> None:
    assert (await users.create("alice", "", "wonderland")).context == "users.demo"


async def test_login_by_bare_name_goes_through_the_contexts_in_their_order(
    users: UserAdministration, directory: UserDirectory
) -> None:
    second = await users.create("alice", "staff.demo", "x")
    first = await users.create("alice", "users.demo", "y")
    assert await directory.find_login("alice") == first
    # The addresses went to whom came first; the other alice has none left.
    assert await directory.find_login("alice@example.org") == second
    assert first.addresses == ()


async def test_login_by_any_own_address_but_not_with_a_tag(
    users: UserAdministration, directory: UserDirectory
) -> None:
    alice = await users.create("alice", "", "x", addresses=["Alice.Liddell@example.com"])
    for name in ("alice@example.org", "ALICE.liddell@Example.COM", "Alice"):
        assert await directory.find_login(name) == alice
    for name in ("alice+tag@example.org", "alice@example.net", "alice.liddell", "alice@", "@"):
        assert await directory.find_login(name) is None


async def test_a_disabled_user_does_not_exist(
    users: UserAdministration, directory: UserDirectory
) -> None:
    await users.create("alice", "", "x")
    await users.set_disabled("alice", "", disabled=True)
    assert await directory.find_login("alice") is None
    assert await directory.find_login("alice@example.org") is None
    assert await resolve(directory, "alice@example.org") == ("UNKNOWN_USER", "")
    assert await directory.expand(["alice@example.org"]) == [Expansion()]
    assert (await users.get("alice", "")).disabled
    await users.set_disabled("alice", "", disabled=False)
    assert await directory.find_login("alice") is not None


async def test_names_have_no_case_and_one_normal_form(
    users: UserAdministration, directory: UserDirectory
) -> None:
    await users.create("Ju\u0308rgen", "", "x")
    found = await directory.find_login("JÜRGEN")
    assert found is not None
    assert found.name == "Jürgen"
    with pytest.raises(UserExists):
        await users.create("jürgen", "", "x")


async def test_subaddresses_reach_the_user(
    users: UserAdministration, directory: UserDirectory
) -> None:
    await users.create("alice", "", "x", addresses=["bob+special@example.org"])
    await users.create("bob", "", "x")
    assert await resolve(directory, "alice+news+x@example.org") == ("LOCAL", "alice")
    assert await resolve(directory, "bob+special@example.org") == ("LOCAL", "alice")
    assert await resolve(directory, "bob+other@example.org") == ("LOCAL", "bob")
    assert await resolve(directory, "+alice@example.org") == ("UNKNOWN_USER", "")


async def test_subaddresses_can_be_switched_off(
    users: UserAdministration, directory_with: Callable[..., UserDirectory]
) -> None:
    await users.create("alice", "", "x")
    directory = directory_with(separator="")
    assert await resolve(directory, "alice+tag@example.org") == ("UNKNOWN_USER", "")


async def test_other_domains_are_not_local(directory: UserDirectory) -> None:
    assert await resolve(directory, "alice@example.net") == ("NOT_LOCAL", "")
    assert await directory.expand(["alice@example.net"]) == [
        Expansion(remote=("alice@example.net",))
    ]


@pytest.mark.parametrize("address", ["", "alice", "@example.org", "a\n@example.org", "a@b c"])
async def test_an_odd_address_is_unknown(directory: UserDirectory, address: str) -> None:
    assert await resolve(directory, address) == ("UNKNOWN_USER", "")
    assert await directory.expand([address]) == [Expansion()]


@pytest.mark.parametrize("local", ["postmaster", "PostMaster", "abuse", "abuse+x"])
async def test_postmaster_and_abuse_reach_the_first_user(
    users: UserAdministration, directory: UserDirectory, local: str
) -> None:
    await users.create("zoe", "staff.demo", "x")
    await users.create("alice", "users.demo", "x")
    await users.create("bob", "users.demo", "x")
    assert await resolve(directory, f"{local}@example.com") == ("LOCAL", "alice")
    await users.set_disabled("alice", "", disabled=True)
    assert await resolve(directory, f"{local}@example.com") == ("LOCAL", "bob")


async def test_postmaster_is_whom_the_configuration_names_or_who_has_the_address(
    users: UserAdministration, directory_with: Callable[..., UserDirectory]
) -> None:
    directory = directory_with(postmaster="bob@example.org")
    await users.create("alice", "", "x")
    await users.create("bob", "", "x")
    await users.create("carol", "", "x", addresses=["abuse@example.org"])
    assert await resolve(directory, "postmaster@example.org") == ("LOCAL", "bob")
    assert await resolve(directory, "abuse@example.org") == ("LOCAL", "carol")
    assert await resolve(directory, "abuse@example.com") == ("LOCAL", "bob")


async def test_postmaster_is_accepted_though_the_mailbox_is_full(
    users: UserAdministration, directory: UserDirectory
) -> None:
    await users.create("alice", "", "x", quota_bytes=10)
    assert await resolve(directory, "postmaster@example.org", 1000) == ("LOCAL", "alice")


async def test_catch_all_takes_what_nobody_has(
    users: UserAdministration, directory_with: Callable[..., UserDirectory]
) -> None:
    directory = directory_with(catch_all="bob@example.org")
    await users.create("alice", "", "x")
    await users.create("bob", "", "x")
    assert await resolve(directory, "alice@example.com") == ("LOCAL", "alice")
    assert await resolve(directory, "whoever@example.com") == ("LOCAL", "bob")
    assert await directory.find_login("whoever@example.com") is None


async def test_what_the_catch_all_user_gets_is_not_his_address(
    users: UserAdministration, directory_with: Callable[..., UserDirectory]
) -> None:
    directory = directory_with(catch_all="bob@example.org")
    await users.create("alice", "", "x")
    await users.create("bob", "", "x")
    asked = [
        "alice+tag@example.org",
        "bob@example.org",
        "postmaster@example.org",
        "who@example.org",
    ]
    found = await directory.resolve(asked, [0] * 4)
    assert [result.catch_all for result in found] == [False, False, False, True]


async def test_a_full_mailbox_is_said_by_declared_size(
    users: UserAdministration, directory: UserDirectory
) -> None:
    await users.create("alice", "", "x", quota_bytes=1000)
    assert await resolve(directory, "alice@example.org", 1000) == ("LOCAL", "alice")
    assert await resolve(directory, "alice@example.org", 1001) == ("MAILBOX_FULL", "alice")
    await users.set_quota("alice", "", 0)
    assert await resolve(directory, "alice@example.org", 1001) == ("LOCAL", "alice")


async def expand(directory: UserDirectory, address: str) -> tuple[set[int], set[str]]:
    (expansion,) = await directory.expand([address])
    return set(expansion.users), set(expansion.remote)


async def test_forwarding_goes_elsewhere_and_keeps_a_copy_if_asked(
    users: UserAdministration, directory: UserDirectory
) -> None:
    alice = await users.create("alice", "", "x")
    bob = await users.create("bob", "", "x")
    targets = ["bob@example.org", "Al@example.net"]
    await users.set_forwarding("alice", "", targets, keep_copy=True)
    assert await expand(directory, "alice@example.org") == (
        {alice.id, bob.id},
        {"Al@example.net"},
    )
    await users.set_forwarding("alice", "", targets, keep_copy=False)
    assert await expand(directory, "alice@example.org") == ({bob.id}, {"Al@example.net"})
    await users.set_forwarding("alice", "", [], keep_copy=False)
    assert await expand(directory, "alice@example.org") == ({alice.id}, set())


async def test_a_loop_of_forwarding_keeps_the_mail_where_it_came_in(
    users: UserAdministration, directory: UserDirectory
) -> None:
    alice = await users.create("alice", "", "x")
    bob = await users.create("bob", "", "x")
    await users.set_forwarding("alice", "", ["bob@example.com"], keep_copy=False)
    await users.set_forwarding("bob", "", ["alice+x@example.com"], keep_copy=False)
    assert await expand(directory, "alice@example.org") == ({alice.id}, set())
    assert await expand(directory, "bob@example.org") == ({bob.id}, set())
    await users.set_forwarding("bob", "", ["bob@example.org"], keep_copy=False)
    assert await expand(directory, "alice@example.org") == ({alice.id}, set())


async def test_forwarding_to_nobody_keeps_the_mail(
    users: UserAdministration, directory: UserDirectory
) -> None:
    alice = await users.create("alice", "", "x")
    await users.set_forwarding("alice", "", ["nobody@example.org"], keep_copy=False)
    assert await expand(directory, "alice@example.org") == ({alice.id}, set())


async def test_what_another_agent_handed_over_is_not_forwarded_to_one_again(
    users: UserAdministration, directory: UserDirectory
) -> None:
    alice = await users.create("alice", "", "x")
    targets = ["carol@branch.example.org", "al@example.net"]
    await users.set_forwarding("alice", "", targets, keep_copy=False)
    (from_outside,) = await directory.expand(["alice@example.org"])
    (handed_over,) = await directory.expand(["alice@example.org"], handed_over=True)
    assert from_outside == Expansion(remote=("carol@branch.example.org", "al@example.net"))
    assert handed_over == Expansion((alice.id,), ("al@example.net",))


async def test_two_ways_to_one_user_are_one_delivery(
    users: UserAdministration, directory: UserDirectory
) -> None:
    await users.create("alice", "", "x")
    bob = await users.create("bob", "", "x")
    await users.set_forwarding(
        "alice", "", ["bob@example.org", "bob+x@example.com"], keep_copy=False
    )
    assert await expand(directory, "alice@example.org") == ({bob.id}, set())


@pytest.mark.parametrize(
    ("name", "context", "password", "addresses", "error"),
    [
        ("alice", "", "x", [], UserExists),
        ("ALICE", "users.demo", "x", [], UserExists),
        ("bob", "nowhere", "x", [], ContextNotFound),
        ("", "", "x", [], InvalidUserName),
        ("a\nb", "", "x", [], InvalidUserName),
        ("b" * 256, "", "x", [], InvalidUserName),
        ("bob", "", "", [], InvalidPassword),
        ("bob", "", "a\0b", [], InvalidPassword),
        ("bob", "", "x", ["not an address"], InvalidAddress),
        ("bob", "", "x", ["bob@example.net"], DomainNotLocal),
        ("bob", "", "x", ["ALICE@example.com"], AddressTaken),
    ],
)
async def test_users_that_are_refused(
    users: UserAdministration,
    name: str,
    context: str,
    password: str,
    addresses: list[str],
    error: type[NmapError],
) -> None:
    await users.create("alice", "", "wonderland")
    with pytest.raises(error):
        await users.create(name, context, password, addresses=addresses)
    if not isinstance(error, UserExists):
        with pytest.raises(UserNotFound):
            await users.get("bob", "")


async def test_addresses_come_and_go(users: UserAdministration, directory: UserDirectory) -> None:
    await users.create("alice", "", "x")
    await users.create("bob", "", "x")
    alice = await users.add_address("alice", "", "Liddell@Example.org")
    assert alice.addresses[-1] == "Liddell@example.org"
    with pytest.raises(AddressTaken):
        await users.add_address("bob", "", "liddell@example.org")
    with pytest.raises(AddressNotFound):
        await users.remove_address("bob", "", "liddell@example.org")
    assert await resolve(directory, "liddell@example.org") == ("LOCAL", "alice")
    await users.remove_address("alice", "", "LIDDELL@example.org")
    assert await resolve(directory, "liddell@example.org") == ("UNKNOWN_USER", "")


async def test_a_bare_name_of_two_contexts_must_say_which(users: UserAdministration) -> None:
    await users.create("alice", "users.demo", "x")
    await users.create("alice", "staff.demo", "x")
    with pytest.raises(UserNotFound, match="several"):
        await users.get("alice", "")
    assert (await users.get("alice", "staff.demo")).context == "staff.demo"


async def test_credential_changes_raise_the_epoch_revoke_and_end_sessions(
    users: UserAdministration, directory: UserDirectory, store: Store
) -> None:
    ended: list[int] = []
    alice = await users.create("alice", "", "x")
    epochs = [alice.credential_epoch]
    with store.ended_users.listening(ended.append):
        epochs.append((await users.set_password("alice", "", "y")).credential_epoch)
        epochs.append((await users.set_disabled("alice", "", disabled=True)).credential_epoch)
        # Neither disabling twice nor enabling is a change of the credentials.
        await users.set_disabled("alice", "", disabled=True)
        assert (await users.set_disabled("alice", "", disabled=False)).credential_epoch == epochs[
            -1
        ]
        await users.add_address("alice", "", "al@example.org")
        await users.delete("alice", "")
    assert epochs == sorted(set(epochs))
    assert ended == [alice.id] * 3
    pending = await directory.store.pending_revocations(10)
    assert [(p.name, p.context) for p in pending] == [("alice", "users.demo")] * 3
    assert [p.credential_epoch for p in pending][:2] == epochs[1:]
    await directory.store.revocations_acknowledged([p.id for p in pending[:2]])
    assert await directory.store.pending_revocations(10) == pending[2:]


async def test_a_user_made_anew_is_above_every_earlier_revocation(
    users: UserAdministration, directory: UserDirectory
) -> None:
    first = await users.create("alice", "", "x")
    for password in "abc":
        await users.set_password("alice", "", password)
    await users.delete("alice", "")
    with pytest.raises(UserNotFound):
        await users.get("alice", "")
    second = await users.create("alice", "", "x")
    pending = await directory.store.pending_revocations(10)
    assert second.credential_epoch >= max(p.credential_epoch for p in pending)
    assert second.id != first.id
    assert second.addresses == first.addresses


async def test_a_new_user_has_mailboxes_and_a_removed_one_has_none(
    users: UserAdministration, store: Store
) -> None:
    alice = await users.create("alice", "", "x")
    names = {mailbox.name for mailbox in await store.mail.list_mailboxes(alice.id)}
    assert {"INBOX", "Sent", "Trash"} <= names
    await users.delete("alice", "")
    with pytest.raises(UserNotFound):
        await store.mail.list_mailboxes(alice.id)


async def test_users_are_listed_in_pages(
    users: UserAdministration, directory: UserDirectory, hasher: PasswordHasher
) -> None:
    del hasher
    made = [(await users.create(f"u{n}", "users.demo", "x")).name for n in range(5)]
    await users.create("other", "staff.demo", "x")
    seen: list[str] = []
    token = ""
    while True:
        page, token = await directory.list_users(("users.demo",), token, 2)
        seen += [user.name for user in page]
        if not token:
            break
    assert seen == made


async def test_the_fake_salt_s_secret_is_kept(directory: UserDirectory) -> None:
    secret = await directory.store.secret("scram")
    assert len(secret) == 32
    assert await directory.store.secret("scram") == secret
    assert await directory.store.secret("other") != secret
