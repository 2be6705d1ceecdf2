"""The contract, as tests that take the fixture `open_store`; modules that have it import them."""
# ruff: noqa: F403, F405 - the contract's own vocabulary

import asyncio

import pytest
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Login,
    LoginProtocol,
    Profile,
    UserKey,
)
from netmail_connmgr.domain.changes import Change
from netmail_connmgr.domain.store import (
    BadPageToken,
    Feed,
    LoginFilter,
    LoginStore,
    Position,
    RevokeOrder,
)
from netmail_connmgr.domain.table import Outcome

from tests.connmgr.store_contract.stores import *
from tests.connmgr.store_contract.stores import OpenStore
from tests.support.waiting import until

LIFETIME = 900.0


async def only(store: LoginStore, place: bytes = HOME) -> Login:
    (found,) = await store.find([place])
    (login,) = found.logins
    return login


async def all_pages(store: LoginStore, which: LoginFilter, limit: int) -> list[Login]:
    logins: list[Login] = []
    token = ""
    while True:
        page = await store.list_logins(which, limit, token)
        assert len(page.logins) <= limit
        logins += page.logins
        token = page.next_token
        if not token:
            return logins


async def taken(feed: Feed) -> list[Change]:
    """Everything up to now."""
    changes: list[Change] = []
    while some := await feed.take(10):
        changes += some
    return changes


async def test_a_login_comes_back_as_it_was_registered(open_store: OpenStore) -> None:
    user = UserKey("Zoë O'Hara %s\u20ac", "users.\u4f8b")
    profile = Profile(
        user,
        ("Zoe@example.org", "o'hara@example.net"),
        ("zoe@example.org", "o'hara@example.net"),
        frozenset({"example.org", "example.net"}),
    )
    place = bytes(range(0x20, 0x30))
    async with open_store() as store:
        await register(
            store,
            user,
            place,
            profile=profile,
            client_address=place[:8] + bytes(8),
            protocol=LoginProtocol.WHOSON,
            messaging_server="mail2",
            session="session 7",
            age=100,
            epoch=41,
        )
        (found,) = await store.find([place])
        (login,) = found.logins
        assert login.profile == profile
        assert login.place == place
        assert login.client_address == place[:8] + bytes(8)
        assert login.protocol is LoginProtocol.WHOSON
        assert (login.messaging_server, login.session_id) == ("mail2", "session 7")
        assert login.credential_epoch == 41
        assert found.now - login.verified == pytest.approx(100, abs=5)
        assert login.expires - found.now == pytest.approx(LIFETIME - 100, abs=5)


async def test_places_are_answered_in_the_order_of_the_question(open_store: OpenStore) -> None:
    async with open_store() as store:
        await register(store, ALICE, HOME)
        await register(store, BOB, OFFICE)
        found = await store.find([OFFICE, b"\xc0\x00\x02\x09", HOME])
        assert [[login.user for login in one.logins] for one in found] == [[BOB], [], [ALICE]]


async def test_many_registrations_are_answered_in_their_order(open_store: OpenStore) -> None:
    async with open_store() as store:
        items = [
            registration(ALICE, place, age=LIFETIME * (number % 2), session=str(number))
            for number, place in enumerate(places(50))
        ]
        outcomes = [answer.outcome for answer in await store.register(items)]
        assert outcomes == [Outcome.REGISTERED, Outcome.EXPIRED] * 25


async def test_a_login_through_a_shared_spelling_is_apart(open_store: OpenStore) -> None:
    async with open_store() as store:
        answer = await register(store, ALICE, HOME + b"-")
        assert answer.outcome is Outcome.SHARED_NETWORK
        assert await live(store, HOME) == set()
        assert await live(store, HOME + b"-") == {ALICE}


async def test_users_of_one_place_are_all_kept(open_store: OpenStore) -> None:
    users = {UserKey(f"user{number}", "users.demo") for number in range(30)}
    async with open_store() as store:
        for user in users:
            await register(store, user)
        assert await live(store) == users


async def test_a_login_ends_when_its_lifetime_is_over(open_store: OpenStore) -> None:
    async with open_store() as store:
        answer = await register(store, age=LIFETIME - 1)
        assert answer.outcome is Outcome.REGISTERED
        assert 0 < answer.remaining <= 1
        assert await live(store) == {ALICE}

        async def over() -> bool:
            return not await live(store)

        await until(over)
        (found,) = await store.find([HOME])
        assert found.expired
        (never,) = await store.find([OFFICE])
        assert not never.expired
        assert (await register(store, session="t")).renewed is False
        assert await live(store) == {ALICE}


async def test_what_is_over_when_it_comes_is_refused(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert (await register(store, age=LIFETIME)).outcome is Outcome.EXPIRED
        assert (await register(store, age=1e9)).outcome is Outcome.EXPIRED
        assert await live(store) == set()


async def test_a_repeated_registration_changes_nothing(open_store: OpenStore) -> None:
    async with open_store() as store:
        first = await register(store, age=300, session="one")
        again = await register(store, age=0, session="one", messaging_server="mail2")
        assert (first.renewed, again.renewed) == (False, True)
        assert again.remaining <= first.remaining
        assert (await only(store)).messaging_server == "mail1"


async def test_an_open_session_prolongs_its_login(open_store: OpenStore) -> None:
    async with open_store() as store:
        await register(store, age=600, session="one")
        answer = await register(store, age=600, session="one", renewal=True)
        assert answer.outcome is Outcome.REGISTERED
        assert answer.renewed
        assert answer.remaining == pytest.approx(LIFETIME, abs=5)
        login = await only(store)
        assert login.expires - login.verified == pytest.approx(LIFETIME + 600, abs=5)


async def test_a_newer_login_takes_over_and_an_older_one_does_not(open_store: OpenStore) -> None:
    async with open_store() as store:
        await register(store, age=300, session="old", epoch=3)
        serial = (await only(store)).serial
        newer = await register(store, age=100, session="new", epoch=2, protocol=LoginProtocol.IMAP)
        login = await only(store)
        assert newer.renewed
        assert (login.session_id, login.protocol) == ("new", LoginProtocol.IMAP)
        assert login.credential_epoch == 3, "he has proved the newer password from here"
        assert login.serial == serial
        await register(store, age=500, session="late", protocol=LoginProtocol.POP3)
        login = await only(store)
        assert (login.session_id, login.protocol) == ("new", LoginProtocol.IMAP)
        await register(store, age=0, session="legacy", epoch=None)
        assert (await only(store)).credential_epoch is None


async def test_the_oldest_login_goes_when_a_user_has_too_many_networks(
    open_store: OpenStore,
) -> None:
    async with open_store(max_networks_per_user=3) as store:
        for number, place in enumerate(places(6)):
            age = 600 if number == 4 else 300 - 10 * number
            answer = await register(store, ALICE, place, age=age, session=str(number))
            assert answer.outcome is Outcome.REGISTERED
        await register(store, BOB, places(1)[0])
        found = await store.find(places(6))
        kept = [index for index, one in enumerate(found) if ALICE in {x.user for x in one.logins}]
        # The fourth was there when the fifth, older than all, pushed the second out.
        assert kept == [2, 3, 5]
        await register(store, ALICE, places(6)[5], session="again")
        assert len(await all_pages(store, LoginFilter(user=ALICE), 10)) == 3


async def test_clients_without_a_name_may_come_from_anywhere(open_store: OpenStore) -> None:
    async with open_store(max_networks_per_user=3) as store:
        for place in places(20):
            await register(store, ANONYMOUS, place, epoch=None, protocol=LoginProtocol.LEGACY_UDP)
        found = await store.find(places(20))
        assert all({login.user for login in one.logins} == {ANONYMOUS} for one in found)


async def test_a_user_s_logins_end_by_a_revocation(open_store: OpenStore) -> None:
    async with open_store() as store:
        for place in (*places(5), HOME + b"-"):
            await register(store, ALICE, place, session=place.hex())
        await register(store, BOB, places(1)[0])
        assert await store.revoke(RevokeOrder(ALICE, None, 0)) == 6
        found = await store.find(places(5))
        assert [{login.user for login in one.logins} for one in found] == [{BOB}, *[set()] * 4]
        assert await store.revoke(RevokeOrder(ALICE, None, 0)) == 0


async def test_a_network_s_logins_end_by_a_revocation(open_store: OpenStore) -> None:
    async with open_store() as store:
        for user in (ALICE, BOB):
            await register(store, user, HOME)
            await register(store, user, HOME + b"-")
            await register(store, user, OFFICE)
        assert await store.revoke(RevokeOrder(None, HOME, 0)) == 4
        assert await live(store, HOME) == await live(store, HOME + b"-") == set()
        assert await live(store, OFFICE) == {ALICE, BOB}


async def test_a_user_s_logins_on_a_network_end_by_a_revocation(open_store: OpenStore) -> None:
    async with open_store() as store:
        for user in (ALICE, BOB):
            await register(store, user, HOME)
            await register(store, user, OFFICE)
        assert await store.revoke(RevokeOrder(ALICE, HOME, 0)) == 1
        assert await live(store, HOME) == {BOB}
        assert await live(store, OFFICE) == {ALICE, BOB}
        assert (await register(store, ALICE, HOME, age=5, session="r")).outcome is Outcome.REVOKED
        assert (await register(store, ALICE, OFFICE, age=5)).outcome is Outcome.REGISTERED
        assert (await register(store, BOB, HOME, age=5)).outcome is Outcome.REGISTERED


@pytest.mark.parametrize(
    ("user", "network"), [(ALICE, None), (None, HOME), (ALICE, HOME)], ids=["user", "net", "both"]
)
async def test_what_is_older_than_a_revocation_is_refused(
    open_store: OpenStore, user: UserKey | None, network: bytes | None
) -> None:
    async with open_store() as store:
        await store.revoke(RevokeOrder(user, network, 0))
        for session in ("late", "later"):
            late = await register(store, age=30, session=session)
            assert late.outcome is Outcome.REVOKED
            assert late.remaining == 0
        renewal = await register(store, age=30, session="open", renewal=True)
        assert renewal.outcome is Outcome.REVOKED
        assert (await register(store, age=0, session="new")).outcome is Outcome.REGISTERED
        assert await live(store) == {ALICE}


async def test_passwords_are_told_apart_by_epoch_where_both_sides_know_one(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        await register(store, ALICE, HOME, epoch=4, session="old")
        await register(store, ALICE, OFFICE, epoch=5, session="new")
        legacy = places(1)[0]
        await register(
            store, ALICE, legacy, epoch=None, protocol=LoginProtocol.LEGACY_UDP, session="udp"
        )
        assert await store.revoke(RevokeOrder(ALICE, None, 5)) == 2
        assert (await live(store, HOME), await live(store, OFFICE)) == (set(), {ALICE})
        assert await live(store, legacy) == set()
        old = await register(store, ALICE, HOME, epoch=4, session="again")
        new = await register(store, ALICE, HOME, age=30, epoch=5, session="slow")
        assert (old.outcome, new.outcome) == (Outcome.REVOKED, Outcome.REGISTERED)
        udp = await register(
            store,
            *(ALICE, legacy),
            age=30,
            epoch=None,
            protocol=LoginProtocol.LEGACY_UDP,
            session="late",
        )
        assert udp.outcome is Outcome.REVOKED


async def test_a_weaker_revocation_does_not_replace_a_stronger_one(open_store: OpenStore) -> None:
    async with open_store() as store:
        await store.revoke(RevokeOrder(ALICE, None, 9))
        await store.revoke(RevokeOrder(ALICE, None, 3))
        assert (await register(store, epoch=8)).outcome is Outcome.REVOKED
        assert (await register(store, epoch=9)).outcome is Outcome.REGISTERED
        await store.revoke(RevokeOrder(ALICE, None, 0))
        assert (await register(store, epoch=8, session="t")).outcome is Outcome.REVOKED
        assert (await register(store, epoch=9, session="u")).outcome is Outcome.REGISTERED
        assert (await register(store, epoch=9, age=60, session="v")).outcome is Outcome.REVOKED


async def test_the_table_is_bounded(open_store: OpenStore) -> None:
    async with open_store(max_logins=3) as store:
        for place in places(3):
            assert (await register(store, ALICE, place)).outcome is Outcome.REGISTERED
        full = await register(store, ALICE, HOME)
        assert full.outcome is Outcome.TABLE_FULL
        again = await register(store, ALICE, places(1)[0], session="t")
        assert again.outcome is Outcome.REGISTERED
        await store.revoke(RevokeOrder(None, places(1)[0], 0))
        assert (await register(store, BOB, HOME)).outcome is Outcome.REGISTERED


async def test_it_counts_its_logins(open_store: OpenStore) -> None:
    async with open_store() as store:
        assert await store.size() == 0
        for place in places(7):
            await register(store, ALICE, place)
        await until(lambda: holds(store, 7))


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_a_listing_gives_each_login_once(open_store: OpenStore, limit: int) -> None:
    async with open_store() as store:
        expected = set()
        for number, place in enumerate((*places(9), HOME, HOME + b"-", bytes(16))):
            for user in (ALICE, BOB) if number % 2 else (ALICE,):
                await register(store, user, place, session=f"{number}")
                expected.add((user, place))
        found = [(one.user, one.place) for one in await all_pages(store, LoginFilter(), limit)]
        assert len(found) == len(expected)
        assert set(found) == expected
        alices = await all_pages(store, LoginFilter(user=ALICE), limit)
        assert sorted(one.place for one in alices) == sorted(p for u, p in expected if u == ALICE)
        at_home = await all_pages(store, LoginFilter(network=HOME), limit)
        assert sorted((one.user, one.place) for one in at_home) == sorted(
            (user, place) for user, place in expected if place[:4] == HOME and len(place) < 6
        )
        both = await all_pages(store, LoginFilter(user=BOB, network=HOME), limit)
        assert {(one.user, one.place) for one in both} == {
            one for one in expected if one[0] == BOB and one[1][:4] == HOME and len(one[1]) < 6
        }


async def test_a_listing_goes_on_while_logins_come_renew_and_go(open_store: OpenStore) -> None:
    async with open_store() as store:
        all_places = places(40)
        for place in all_places:
            await register(store, ALICE, place, age=10, session=place.hex())
        seen: list[bytes] = []
        token = ""
        for number in range(100):
            page = await store.list_logins(LoginFilter(), 3, token)
            seen += [one.place for one in page.logins]
            token = page.next_token
            if not token:
                break
            await register(store, BOB, bytes((203, 0, 113, number)), session=f"b{number}")
            await register(
                store, ALICE, all_places[number % 20], session=f"r{number}", renewal=True
            )
            await store.revoke(RevokeOrder(ALICE, all_places[39 - number % 5], 0))
        ours = [place for place in seen if place in all_places]
        assert len(ours) == len(set(ours))
        assert set(all_places[:35]) <= set(ours)


@pytest.mark.parametrize("token", ["x", "0.zz", "-1", "99999.00", "1.1.1", "0." + "00" * 5000])
async def test_a_page_token_that_is_none_is_told(open_store: OpenStore, token: str) -> None:
    async with open_store() as store:
        with pytest.raises(BadPageToken):
            await store.list_logins(LoginFilter(), 10, token)


async def test_a_watcher_begins_with_a_snapshot_and_is_told_what_follows(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        await register(store, ALICE, HOME)
        await store.revoke(RevokeOrder(BOB, None, 0, reason="gone", client_address=None))
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
            assert not feed.resumed
            snapshot = await feed.snapshot(logins=True)
            logins = [store.packer.unpack(record) for record in snapshot.records if record]
            assert [(one.user, one.place) for one in logins] == [(ALICE, HOME)]
            assert logins[0].expires - snapshot.now == pytest.approx(LIFETIME, abs=5)
            assert [(one.user, one.reason) for one in snapshot.revocations] == [(BOB, "gone")]
            assert await taken(feed) == []
            wake.clear()
            await register(store, ALICE, OFFICE, session="t")
            async with asyncio.timeout(20):
                await wake.wait()
            (change,) = await taken(feed)
            assert store.packer.unpack(change.record).place == OFFICE
            assert feed.position == change.revision > snapshot.revision


async def test_a_watcher_is_told_which_logins_went(open_store: OpenStore) -> None:
    async with open_store(max_networks_per_user=2) as store:
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
            await feed.snapshot(logins=True)
            for number, place in enumerate(places(3)):
                await register(store, ALICE, place, age=10 - number, session=place.hex())
            gone = [key for change in await taken(feed) for key in change.removed]
            assert [key[2:6] for key in gone] == [places(1)[0]]
            await store.revoke(RevokeOrder(ALICE, None, 0, reason="left"))
            changes = await taken(feed)
            gone = [key for change in changes for key in change.removed]
            assert sorted(key[2:6] for key in gone) == sorted(places(3)[1:])
            revoked = [change.revocation for change in changes if change.revocation is not None]
            assert {(one.user, one.reason) for one in revoked} == {(ALICE, "left")}


async def test_nothing_new_means_that_there_is_nothing_new(open_store: OpenStore) -> None:
    """A watcher's heartbeat says so to whoever decides by its replica."""
    async with open_store() as store:
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
            await feed.snapshot(logins=True)
            for number in range(30):
                await register(store, ALICE, HOME, age=30, session=f"s{number}", renewal=True)
                assert await taken(feed), "what was acknowledged before the question is told"


async def test_a_watcher_of_revocations_is_told_these_alone(open_store: OpenStore) -> None:
    async with open_store() as store:
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=True, wake=wake) as feed:
            assert list((await feed.snapshot(logins=False)).records) == []
            await register(store)
            assert await taken(feed) == []
            await store.revoke(RevokeOrder(None, HOME, 0, HOME, 32, "abuse"))
            (change,) = await taken(feed)
            assert change.revocation is not None
            assert change.revocation.network == change.revocation.client_address == HOME
            assert (change.revocation.prefix_length, change.revocation.reason) == (32, "abuse")


async def test_a_watcher_resumes_where_it_was(open_store: OpenStore) -> None:
    async with open_store() as store:
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
            await feed.snapshot(logins=True)
            await register(store, ALICE, HOME)
            await taken(feed)
            position = Position(store.instance_id, feed.position)
        await register(store, BOB, OFFICE)
        async with store.watch(position, revocations_only=False, wake=wake) as feed:
            assert feed.resumed
            (change,) = await taken(feed)
            assert store.packer.unpack(change.record).user == BOB


@pytest.mark.parametrize("revisions_ahead", [-(10**15), 5, 10**15])
async def test_a_position_that_was_never_given_is_no_place_to_resume(
    open_store: OpenStore, revisions_ahead: int
) -> None:
    async with open_store() as store:
        await register(store)
        wake = asyncio.Event()
        async with store.watch(Position(), revocations_only=False, wake=wake) as feed:
            revision = (await feed.snapshot(logins=True)).revision
        position = Position(store.instance_id, max(0, revision + revisions_ahead))
        if position.revision or revision > 1:
            async with store.watch(position, revocations_only=False, wake=wake) as feed:
                assert not feed.resumed or position.revision == 0
        other = Position("0" * 32, revision)
        async with store.watch(other, revocations_only=False, wake=wake) as feed:
            assert not feed.resumed


async def test_another_lifetime_counts_for_logins_and_renewals_from_then_on(
    open_store: OpenStore,
) -> None:
    async with open_store() as store:
        await register(store, ALICE, HOME, session="before")
        store.live_for(300)
        assert store.login_lifetime == 300
        answer = await register(store, BOB, HOME, session="after")
        assert answer.remaining == pytest.approx(300, abs=5)
        (found,) = await store.find([HOME])
        left = {login.user: login.expires - found.now for login in found.logins}
        assert left[ALICE] == pytest.approx(LIFETIME, abs=5)
        assert left[BOB] == pytest.approx(300, abs=5)
        store.live_for(1800)
        answer = await register(store, BOB, HOME, session="after", renewal=True)
        assert answer.remaining == pytest.approx(1800, abs=5)
        late = await register(store, ALICE, OFFICE, age=1000)
        assert late.outcome is Outcome.REGISTERED
