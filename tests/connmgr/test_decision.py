"""The relay decision, one sentence at a time."""

import pytest
from netmail_common.connmgr.decision import MAX_NAMED_USERS, decide
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    CheckedSender,
    Decision,
    Login,
    LoginProtocol,
    Profile,
    Reason,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.networks import Standing

ALICE = UserKey("alice", "users.demo")
BOB = UserKey("bob", "users.demo")
CAROL = UserKey("carol", "branch.demo")


def login(user: UserKey, *, verified: float = 0.0, domain: str = "example.org") -> Login:
    address = f"{user.name}@{domain}"
    named = user != ANONYMOUS
    return Login(
        serial=int(verified),
        profile=Profile(
            user=user,
            addresses=(address,) if named else (),
            address_keys=(address,) if named else (),
            domains=frozenset({domain}) if named else frozenset(),
        ),
        place=b"\xc0\x00\x02\x01",
        client_address=b"\xc0\x00\x02\x01",
        protocol=LoginProtocol.IMAP,
        messaging_server="mail1",
        session_id=f"s-{user.name}",
        verified=verified,
        expires=verified + 900,
        credential_epoch=1,
    )


def unasked(address: str) -> CheckedSender:
    """A sender that the directory was not asked about."""
    return CheckedSender(address, address, address.rpartition("@")[2])


def resolved(address: str, owner: UserKey | None) -> CheckedSender:
    return CheckedSender(address, address, address.rpartition("@")[2], known=True, owner=owner)


GRANTING = {Standing.GRANTS, Standing.LISTED}
NO_ADDRESS = CheckedSender("not an address")


def ask(
    logins: list[Login],
    *senders: CheckedSender,
    binding: Binding = Binding.DOMAIN,
    standing: Standing = Standing.GRANTS,
    max_users: int = 8,
    expired: bool = False,
) -> SenderDecision:
    return decide(
        SenderQuestion(senders, binding), standing, logins, max_users=max_users, expired=expired
    )


OWN = unasked("alice@example.org")
ALIAS = resolved("sales@example.org", ALICE)
TAG = resolved("alice+news@example.org", ALICE)
BOBS = resolved("bob@example.org", BOB)
BOBS_UNASKED = unasked("bob@example.org")
NOBODYS = resolved("ceo@example.org", None)
NOBODYS_UNASKED = unasked("ceo@example.org")
FOREIGN = unasked("someone@example.net")
FOREIGN_RESOLVED = resolved("someone@example.net", None)
SUBDOMAIN = resolved("x@sub.example.org", None)

OF_OTHER = Reason.SENDER_OF_OTHER_USER
NOT_OWNED = Reason.SENDER_NOT_OWNED

# sender, the reason of refusal (None: allowed) under strict, domain, any; alice is logged in.
ONE_USER = [
    (OWN, None, None, None),
    (ALIAS, None, None, None),
    (TAG, None, None, None),
    (BOBS, OF_OTHER, OF_OTHER, None),
    (BOBS_UNASKED, NOT_OWNED, NOT_OWNED, None),
    (NOBODYS, NOT_OWNED, None, None),
    (NOBODYS_UNASKED, NOT_OWNED, NOT_OWNED, None),
    (FOREIGN, NOT_OWNED, NOT_OWNED, None),
    (FOREIGN_RESOLVED, NOT_OWNED, NOT_OWNED, None),
    (SUBDOMAIN, NOT_OWNED, NOT_OWNED, None),
    (NO_ADDRESS, NOT_OWNED, NOT_OWNED, None),
    # The directory knows better than what the login registered.
    (resolved("alice@example.org", BOB), OF_OTHER, OF_OTHER, None),
    (resolved("alice@example.org", None), NOT_OWNED, None, None),
]


@pytest.mark.parametrize(("sender", "strict", "domain", "anything"), ONE_USER)
def test_one_user_may_use_these_senders(
    sender: CheckedSender, strict: Reason | None, domain: Reason | None, anything: Reason | None
) -> None:
    for binding, refusal in zip(
        (Binding.STRICT, Binding.DOMAIN, Binding.ANY), (strict, domain, anything), strict=True
    ):
        answer = ask([login(ALICE)], sender, binding=binding)
        assert answer.reason is (refusal or Reason.LOGIN)
        assert answer.decision is (Decision.DENIED if refusal else Decision.ALLOWED)
        assert answer.refused_sender == (sender.address if refusal else "")
        assert answer.login is not None
        assert answer.login.user == ALICE


def test_a_user_logged_in_from_there_too_may_be_the_sender() -> None:
    logins = [login(ALICE, verified=1), login(BOB, verified=2)]
    for binding in Binding:
        assert ask(logins, OWN, BOBS, binding=binding).decision is Decision.ALLOWED


def test_the_owner_of_the_envelope_sender_is_named() -> None:
    logins = [login(ALICE, verified=1), login(BOB, verified=2)]
    answer = ask(logins, OWN, BOBS)
    assert answer.login is not None
    assert answer.login.user == ALICE


def test_the_owner_of_a_later_sender_is_named_if_nobody_owns_the_envelope_sender() -> None:
    logins = [login(ALICE, verified=1), login(BOB, verified=2)]
    answer = ask(logins, NOBODYS, OWN)
    assert answer.login is not None
    assert answer.login.user == ALICE


def test_the_newest_login_is_named_if_none_owns_the_sender_and_all_users_are_listed() -> None:
    logins = [login(BOB, verified=2), login(CAROL, verified=3), login(ALICE, verified=1)]
    answer = ask(logins, NOBODYS)
    assert answer.login is not None
    assert answer.login.user == CAROL
    assert answer.users == (CAROL, BOB, ALICE)
    assert answer.user_count == 3


def test_the_first_refused_sender_is_named() -> None:
    answer = ask([login(ALICE)], OWN, FOREIGN, BOBS)
    assert answer.refused_sender == "someone@example.net"
    assert answer.reason is NOT_OWNED


def test_one_good_sender_does_not_vouch_for_another() -> None:
    for binding in (Binding.STRICT, Binding.DOMAIN):
        assert ask([login(ALICE)], OWN, BOBS, binding=binding).decision is Decision.DENIED


def test_without_a_sender_the_login_decides() -> None:
    for binding in Binding:
        assert ask([login(ALICE)], binding=binding).decision is Decision.ALLOWED


def test_another_server_s_domain_counts_for_its_user_only() -> None:
    nobody_there = resolved("info@branch.example.org", None)
    assert ask([login(ALICE)], nobody_there).decision is Decision.DENIED
    both = [login(ALICE), login(CAROL, domain="branch.example.org")]
    assert ask(both, nobody_there).decision is Decision.ALLOWED


@pytest.mark.parametrize("binding", list(Binding))
def test_too_many_users_make_a_network_strict(binding: Binding) -> None:
    logins = [login(UserKey(f"u{n}", "users.demo"), verified=n) for n in range(8)]
    relaxed = ask(logins, NOBODYS, binding=binding)
    assert relaxed.decision is (Decision.DENIED if binding is Binding.STRICT else Decision.ALLOWED)
    crowded = ask([*logins, login(ALICE, verified=9)], NOBODYS, binding=binding)
    assert crowded.decision is Decision.DENIED
    assert ask([*logins, login(ALICE)], OWN, binding=binding).decision is Decision.ALLOWED


def test_a_login_without_a_user_does_not_count_as_a_user() -> None:
    logins = [login(UserKey(f"u{n}", "users.demo")) for n in range(8)]
    answer = ask([*logins, login(ANONYMOUS, verified=9)], NOBODYS)
    assert answer.decision is Decision.ALLOWED
    assert answer.user_count == 8
    assert ANONYMOUS not in answer.users


@pytest.mark.parametrize("sender", [OWN, NOBODYS, FOREIGN, NO_ADDRESS])
def test_a_login_without_a_user_relays_only_under_any(sender: CheckedSender) -> None:
    for binding in (Binding.STRICT, Binding.DOMAIN):
        answer = ask([login(ANONYMOUS)], sender, binding=binding)
        assert (answer.decision, answer.reason) == (Decision.DENIED, Reason.NO_USER)
    answer = ask([login(ANONYMOUS)], sender, binding=Binding.ANY)
    assert answer.decision is Decision.ALLOWED
    assert answer.user_count == 0


def test_a_login_without_a_user_vouches_for_no_message_without_senders() -> None:
    for binding in (Binding.STRICT, Binding.DOMAIN):
        answer = ask([login(ANONYMOUS)], binding=binding)
        assert (answer.decision, answer.reason) == (Decision.DENIED, Reason.NO_USER)
        assert answer.refused_sender == ""
    assert ask([login(ANONYMOUS)], binding=Binding.ANY).decision is Decision.ALLOWED
    assert ask([login(ALICE)], binding=Binding.STRICT).decision is Decision.ALLOWED


def test_nobody_can_be_the_owner_without_a_name() -> None:
    sender = resolved("x@example.org", ANONYMOUS)
    answer = ask([login(ANONYMOUS), login(ALICE)], sender, binding=Binding.STRICT)
    assert answer.login is not None
    assert answer.decision is Decision.DENIED


def test_a_named_login_is_named_before_a_newer_one_without_a_user() -> None:
    answer = ask([login(ALICE, verified=1), login(ANONYMOUS, verified=2)], NOBODYS)
    assert answer.login is not None
    assert answer.login.user == ALICE


def test_no_login_means_authenticate_and_says_whether_there_was_one() -> None:
    answer = ask([], OWN)
    assert (answer.decision, answer.reason) == (Decision.MUST_AUTHENTICATE, Reason.NO_LOGIN)
    assert ask([], OWN, expired=True).reason is Reason.EXPIRED


@pytest.mark.parametrize("binding", Binding)
def test_who_is_always_allowed_needs_no_login_and_is_nobody(binding: Binding) -> None:
    for logins in ([], [login(ALICE)]):
        answer = ask(logins, FOREIGN, standing=Standing.LISTED, binding=binding)
        assert answer == SenderDecision(Decision.ALLOWED, Reason.LISTED)


@pytest.mark.parametrize("standing", [s for s in Standing if s not in GRANTING])
@pytest.mark.parametrize("binding", list(Binding))
def test_a_network_that_does_not_grant_never_does(standing: Standing, binding: Binding) -> None:
    answer = ask([login(ALICE)], OWN, standing=standing, binding=binding)
    assert answer.decision is Decision.MUST_AUTHENTICATE
    why_not = {Standing.BLOCKED: Reason.BLOCKED}
    other = Reason.SHARED_NETWORK if standing.shared else Reason.NEVER_GRANTS
    assert answer.reason is why_not.get(standing, other)
    assert answer.login is None


def test_a_crowd_is_counted_but_not_named_whole() -> None:
    logins = [login(UserKey(f"u{n}", "c"), verified=n) for n in range(MAX_NAMED_USERS + 50)]
    answer = ask(logins)
    assert answer.user_count == MAX_NAMED_USERS + 50
    assert len(answer.users) == MAX_NAMED_USERS
    assert answer.users[0] == UserKey(f"u{MAX_NAMED_USERS + 49}", "c")
