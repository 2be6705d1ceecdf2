"""The login table in virtual time."""

import pytest
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Login,
    LoginProtocol,
    Profile,
    Registration,
    Revocation,
    UserKey,
)
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.marks import MARK_LIFETIME, TooManyMarks
from netmail_connmgr.domain.table import LoginTable, Outcome, Registered, TableLimits

HOME = b"\xc0\x00\x02\x01"
OFFICE = b"\xc0\x00\x02\x02"
ALICE = UserKey("alice", "users.demo")
BOB = UserKey("bob", "users.demo")
START = 1000.0


def table(
    *, max_networks_per_user: int = 64, max_logins: int = 1000, login_lifetime: float = 900
) -> LoginTable:
    limits = TableLimits(login_lifetime, max_networks_per_user, max_logins)
    return LoginTable(limits, ChangeLog())


def register(
    logins: LoginTable,
    now: float = START,
    user: UserKey = ALICE,
    place: bytes = HOME,
    *,
    session: str = "s",
    age: float = 0.0,
    epoch: int | None = 1,
    renewal: bool = False,
) -> Registered:
    registration = Registration(
        profile=Profile(user),
        place=place,
        client_address=place[:4],
        protocol=LoginProtocol.POP3,
        messaging_server="mail1",
        agent="",
        session_id=session,
        age=age,
        credential_epoch=epoch,
        renewal=renewal,
    )
    return logins.register(registration, now)


def live(logins: LoginTable, now: float, place: bytes = HOME) -> set[UserKey]:
    return {login.user for login in logins.find(place, now).logins}


def only(logins: LoginTable, now: float, place: bytes = HOME) -> Login:
    (login,) = logins.find(place, now).logins
    return login


def revoke(
    logins: LoginTable,
    now: float,
    user: UserKey | None = ALICE,
    network: bytes | None = None,
    epoch: int = 0,
) -> set[tuple[UserKey, bytes]]:
    gone = logins.revoke(Revocation(now, user, network, epoch))
    return {(login.user, login.place) for login in gone}


def nothing_is_left_of(logins: LoginTable) -> bool:
    records = logins._records
    return (
        len(logins) == len(records) == len(logins._users) == len(logins.packer.origins) == 0
        and not any(logins.snapshot())
        and not records._wheel._buckets
        and not any(records._places._heads)
        and not any(logins._users._heads)
    )


def test_a_login_is_live_until_the_instant_it_expires() -> None:
    logins = table()
    assert register(logins) == Registered(Outcome.REGISTERED, 900.0)
    assert live(logins, START + 899.999) == {ALICE}
    assert live(logins, START + 900) == set()


def test_an_expired_login_is_remembered_as_such_for_one_lifetime() -> None:
    logins = table()
    register(logins)
    assert not logins.find(HOME, START + 1).expired
    assert logins.find(HOME, START + 900).expired
    assert logins.find(HOME, START + 1799).expired
    assert not logins.find(HOME, START + 1801).expired
    assert not logins.find(OFFICE, START + 900).expired


def test_each_user_of_a_network_has_an_expiry_of_his_own() -> None:
    logins = table()
    register(logins, START, ALICE)
    register(logins, START + 100, BOB)
    assert live(logins, START + 950) == {BOB}


def test_a_login_that_waited_on_its_way_is_live_for_less() -> None:
    logins = table()
    assert register(logins, age=30).remaining == 870
    assert live(logins, START + 870) == set()


def test_a_login_older_than_the_lifetime_is_refused() -> None:
    logins = table()
    assert register(logins, age=900).outcome is Outcome.EXPIRED
    assert register(logins, age=899).outcome is Outcome.REGISTERED


def test_a_login_as_old_as_its_lifetime_is_over_at_any_time_of_the_clock() -> None:
    logins = table()
    young = [100 + number / 7 for number in range(2800)]  # a machine that has just started
    assert any((now - 900) + 900 > now for now in young)
    assert {register(logins, now, age=900).outcome for now in young} == {Outcome.EXPIRED}


def test_a_renewal_counts_from_now_however_old_the_login() -> None:
    logins = table()
    answer = register(logins, age=5000, renewal=True)
    assert answer == Registered(Outcome.REGISTERED, 900.0)
    assert only(logins, START).verified == START - 5000


def test_registering_a_session_again_changes_nothing() -> None:
    logins = table()
    register(logins)
    revision = logins.changes.revision
    again = register(logins, START + 60, age=59.9)
    assert again == Registered(Outcome.REGISTERED, 840.0, renewed=True)
    assert logins.changes.revision == revision


def test_a_late_duplicate_does_not_shorten_what_a_renewal_gave() -> None:
    logins = table()
    register(logins)
    register(logins, START + 600, age=600, renewal=True)
    register(logins, START + 601, age=601)
    assert live(logins, START + 1499) == {ALICE}


def test_another_login_of_the_user_renews_and_an_older_one_does_not_take_over() -> None:
    logins = table()
    register(logins, START, session="one")
    register(logins, START + 100, session="two")
    register(logins, START + 150, session="late", age=120)
    assert only(logins, START + 150).session_id == "two"
    assert live(logins, START + 999) == {ALICE}


def test_the_newer_login_brings_the_newer_addresses() -> None:
    logins = table()
    register(logins, session="one")
    newer = Registration(
        Profile(ALICE, ("a@example.org",), ("a@example.org",)),
        HOME, HOME, LoginProtocol.IMAP, "mail1", "", "two", 0.0, 1,
    )  # fmt: skip
    logins.register(newer, START + 1)
    assert only(logins, START + 1).profile.addresses == ("a@example.org",)


def test_the_oldest_network_of_a_user_goes_for_one_too_many() -> None:
    logins = table(max_networks_per_user=3)
    places = [bytes([192, 0, 2, n]) for n in range(4)]
    for n, place in enumerate(places[:3]):
        register(logins, START + n, place=place, session=f"s{n}")
    register(logins, START + 10, place=places[0], session="again")
    register(logins, START + 20, place=places[3], session="s3")
    assert [bool(live(logins, START + 21, place)) for place in places] == [True, False, True, True]
    assert len(logins) == 3


def test_the_default_is_64_networks() -> None:
    logins = LoginTable(TableLimits(), ChangeLog())
    for n in range(65):
        register(logins, START + n, place=bytes([192, 0, 2, n]), session=f"s{n}")
    assert len(logins) == 64
    assert live(logins, START + 65, bytes([192, 0, 2, 0])) == set()


def test_logins_without_a_user_are_not_bounded_by_networks() -> None:
    logins = table(max_networks_per_user=2)
    for n in range(5):
        register(logins, user=ANONYMOUS, place=bytes([192, 0, 2, n]))
    assert len(logins) == 5


def test_other_users_networks_do_not_count() -> None:
    logins = table(max_networks_per_user=1)
    register(logins, user=ALICE)
    register(logins, user=BOB)
    assert live(logins, START) == {ALICE, BOB}


def test_a_shared_place_is_kept_apart() -> None:
    logins = table()
    assert register(logins, place=HOME + b"-").outcome is Outcome.SHARED_NETWORK
    assert live(logins, START) == set()
    assert live(logins, START, HOME + b"-") == {ALICE}


def test_a_full_table_refuses_new_logins_and_renews_old_ones() -> None:
    logins = table(max_logins=2)
    register(logins, user=ALICE)
    register(logins, START + 1, user=BOB)
    assert register(logins, START + 2, ALICE, OFFICE).outcome is Outcome.TABLE_FULL
    assert register(logins, START + 2, BOB, session="x").outcome is Outcome.REGISTERED
    assert live(logins, START + 2) == {ALICE, BOB}


def test_a_full_table_has_room_again_when_logins_expire() -> None:
    logins = table(max_logins=2)
    register(logins, user=ALICE)
    register(logins, user=BOB)
    assert register(logins, START + 902, ALICE, OFFICE).outcome is Outcome.REGISTERED
    assert len(logins) == 1


def test_a_revocation_by_user_ends_the_logins_of_that_user() -> None:
    logins = table()
    register(logins, user=ALICE)
    register(logins, user=ALICE, place=OFFICE)
    register(logins, user=BOB)
    assert revoke(logins, START + 1, ALICE) == {(ALICE, HOME), (ALICE, OFFICE)}
    assert live(logins, START + 1) == {BOB}


def test_a_revocation_by_network_ends_everybodys_logins_there_shared_or_not() -> None:
    logins = table()
    register(logins, user=ALICE)
    register(logins, user=BOB, place=HOME + b"-")
    register(logins, user=ALICE, place=OFFICE)
    assert revoke(logins, START + 1, None, HOME) == {(ALICE, HOME), (BOB, HOME + b"-")}
    assert live(logins, START + 1, OFFICE) == {ALICE}


def test_a_revocation_by_both_ends_one_login() -> None:
    logins = table()
    register(logins, user=ALICE)
    register(logins, user=BOB)
    register(logins, user=ALICE, place=OFFICE)
    assert revoke(logins, START + 1, ALICE, HOME) == {(ALICE, HOME)}
    assert live(logins, START + 1) == {BOB}
    assert live(logins, START + 1, OFFICE) == {ALICE}


def test_what_was_verified_before_a_revocation_is_refused_afterwards() -> None:
    logins = table()
    revoke(logins, START)
    for age in (1.5, 100, 800):
        assert register(logins, START + 1, age=age).outcome is Outcome.REVOKED
    assert register(logins, START + 1, age=0.5).outcome is Outcome.REGISTERED
    assert register(logins, START + 1, BOB, age=100).outcome is Outcome.REGISTERED


def test_a_renewal_does_not_bring_back_what_was_revoked() -> None:
    logins = table()
    register(logins)
    revoke(logins, START + 10)
    answer = register(logins, START + 300, age=300, renewal=True)
    assert answer.outcome is Outcome.REVOKED
    assert live(logins, START + 300) == set()


def test_a_revocation_by_network_refuses_late_registrations_from_there_only() -> None:
    logins = table()
    revoke(logins, START, None, HOME)
    assert register(logins, START + 1, age=2).outcome is Outcome.REVOKED
    assert register(logins, START + 1, age=2, place=HOME + b"-").outcome is Outcome.REVOKED
    assert register(logins, START + 1, age=2, place=OFFICE).outcome is Outcome.REGISTERED


def test_a_raised_epoch_revokes_older_ones_and_spares_a_login_that_was_faster() -> None:
    logins = table()
    register(logins, START, place=HOME, epoch=4)
    register(logins, START, place=OFFICE, epoch=5)
    assert revoke(logins, START + 1, epoch=5) == {(ALICE, HOME)}
    assert live(logins, START + 2, OFFICE) == {ALICE}


def test_an_epoch_decides_even_when_the_clocks_of_agents_disagree() -> None:
    logins = table()
    revoke(logins, START, epoch=5)
    assert register(logins, START + 60, epoch=4).outcome is Outcome.REVOKED
    assert register(logins, START + 60, age=120, epoch=5).outcome is Outcome.REGISTERED


def test_a_login_without_an_epoch_is_compared_by_age() -> None:
    logins = table()
    register(logins, epoch=None)
    assert revoke(logins, START + 1, epoch=5) == {(ALICE, HOME)}
    assert register(logins, START + 2, age=1.5, epoch=None).outcome is Outcome.REVOKED
    assert register(logins, START + 2, age=0.5, epoch=None).outcome is Outcome.REGISTERED


def test_a_smaller_epoch_that_comes_late_does_not_weaken_a_mark() -> None:
    logins = table()
    revoke(logins, START, epoch=6)
    revoke(logins, START + 1, epoch=5)
    assert register(logins, START + 2, epoch=5).outcome is Outcome.REVOKED


def test_whoever_proved_the_newer_password_stays_though_an_older_one_came_later() -> None:
    logins = table()
    register(logins, START, epoch=5, session="new password")
    register(logins, START + 1, epoch=4, session="old password, slower")
    assert revoke(logins, START + 2, epoch=5) == set()
    assert live(logins, START + 2) == {ALICE}


def test_a_mark_by_age_and_one_by_epoch_bind_both() -> None:
    logins = table()
    revoke(logins, START, epoch=5)
    revoke(logins, START + 10)
    assert register(logins, START + 11, age=5, epoch=5).outcome is Outcome.REVOKED
    assert register(logins, START + 11, age=0, epoch=4).outcome is Outcome.REVOKED
    assert register(logins, START + 11, age=0, epoch=5).outcome is Outcome.REGISTERED


def test_marks_bind_for_the_longest_lifetime_and_are_forgotten_then() -> None:
    logins = table()
    revoke(logins, START, epoch=5)
    late = START + MARK_LIFETIME
    assert register(logins, late - 1, epoch=4).outcome is Outcome.REVOKED
    assert register(logins, late, epoch=4).outcome is Outcome.REGISTERED
    assert len(logins.marks) == 0


def test_a_revocation_that_finds_no_room_is_not_made() -> None:
    logins = table(max_logins=1)
    register(logins, user=ALICE)
    revoke(logins, START + 1, BOB)
    with pytest.raises(TooManyMarks):
        revoke(logins, START + 2, ALICE)
    assert live(logins, START + 2) == {ALICE}
    revoke(logins, START + 3, BOB)
    revoke(logins, START + 3 + MARK_LIFETIME, ALICE)


def test_a_million_logins_that_end_at_once_do_not_stop_the_rest() -> None:
    logins = table(max_logins=10_000)
    for n in range(5000):
        register(logins, user=UserKey(f"u{n}", "c"), place=n.to_bytes(4, "big"))
    logins.find(HOME, START + 901)
    assert 4000 < len(logins) < 5000
    assert live(logins, START + 901, (4999).to_bytes(4, "big")) == set()
    while logins.drop_expired(START + 901):
        pass
    assert len(logins) == 0
    assert nothing_is_left_of(logins)


def test_nothing_is_left_of_logins_that_ended() -> None:
    logins = table(max_networks_per_user=2)
    for n in range(200):
        register(logins, START + n / 10, place=n.to_bytes(4, "big"), session=f"s{n}")
        register(logins, START + n / 10, BOB, OFFICE, session=f"b{n}")
    revoke(logins, START + 30, ALICE)
    logins.drop_expired(START + 2000)
    assert nothing_is_left_of(logins)
