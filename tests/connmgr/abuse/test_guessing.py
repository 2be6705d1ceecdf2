"""Failed logins: who is slowed down, who is denied, and who never is."""

import pytest
from netmail_common.config import GuessingConfig
from netmail_connmgr.domain.connections import ConnectionVerdict, Service, Verdict

from tests.connmgr.abuse.world import ALICE, BOB, HOME, HOTEL, World, question

DAY = 86_400.0
NOTHING = ConnectionVerdict()


async def test_a_few_failures_are_answered_at_once() -> None:
    world = World()
    assert await world.fail(HOTEL, ALICE, times=4) == 0
    assert await world.check(HOTEL, ALICE) == NOTHING
    assert not len(world.suspicions)


async def test_more_failures_are_answered_later_and_later_up_to_a_bound() -> None:
    world = World()
    await world.fail(HOTEL, ALICE, times=4)
    delays = [await world.fail(HOTEL, ALICE) for _ in range(8)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]


async def test_a_login_with_the_right_password_waits_as_long_as_one_with_a_wrong_one() -> None:
    world = World()
    delay = await world.fail(HOTEL, ALICE, times=7)
    assert (await world.check(HOTEL, ALICE)).delay == delay > 0


async def test_a_user_whom_many_have_guessed_is_denied_from_new_addresses_for_a_day() -> None:
    world = World()
    for number in range(20):
        await world.fail(f"198.51.100.{number}", ALICE)
    verdict = await world.check(HOME, ALICE)
    assert verdict.verdict is Verdict.DENY_TEMPORARY
    assert verdict.rule == "guessing"
    assert 0.99 * DAY < verdict.deny_for <= 1.02 * DAY
    world.now += verdict.deny_for
    assert (await world.check(HOME, ALICE)).verdict is Verdict.ALLOWED


async def test_guesses_at_a_denied_user_do_not_prolong_it() -> None:
    world = World()
    await world.fail(HOTEL, ALICE, times=20)
    before = (await world.check(HOME, ALICE)).deny_for
    world.now += 1000
    await world.fail(HOTEL, ALICE, times=50)
    assert (await world.check(HOME, ALICE)).deny_for == pytest.approx(before - 1000)


async def test_a_user_is_never_denied_where_he_has_logged_in() -> None:
    world = World()
    await world.log_in(HOME, ALICE)
    for number in range(100):
        await world.fail(f"198.51.100.{number}", ALICE)
    assert await world.check(HOME, ALICE) == NOTHING


async def test_nor_when_the_whole_network_is_denied() -> None:
    world = World()
    await world.log_in(HOME, ALICE)
    for _ in range(30):
        await world.fail(HOME, name="nobody")
    assert await world.check(HOME, ALICE) == NOTHING
    assert (await world.check(HOME, BOB)).verdict is Verdict.DENY_TEMPORARY


async def test_his_own_forgotten_telephone_denies_neither_him_elsewhere_nor_his_neighbours() -> (
    None
):
    world = World()
    await world.log_in(HOME, ALICE)
    assert await world.fail(HOME, ALICE, times=200) == 8.0
    assert await world.check(HOTEL, ALICE) == NOTHING
    assert await world.check(HOME, BOB) == NOTHING
    verdict = await world.check(HOME, ALICE)
    assert (verdict.verdict, verdict.delay) == (Verdict.ALLOWED, 1.0)


async def test_a_login_is_forgotten_after_the_configured_time() -> None:
    world = World(GuessingConfig(known_address_days=2))
    await world.log_in(HOME, ALICE)
    world.now += 2 * DAY + 1
    await world.fail(HOTEL, ALICE, times=20)
    assert (await world.check(HOME, ALICE)).verdict is Verdict.DENY_TEMPORARY


async def test_who_logs_in_every_day_stays_known() -> None:
    world = World(GuessingConfig(known_address_days=2))
    for _ in range(10):
        await world.log_in(HOME, ALICE)
        world.now += DAY
    await world.fail(HOTEL, ALICE, times=20)
    assert await world.check(HOME, ALICE) == NOTHING


async def test_nobody_is_known_anywhere_with_0_days() -> None:
    world = World(GuessingConfig(known_address_days=0))
    await world.log_in(HOME, ALICE)
    await world.fail(HOTEL, ALICE, times=20)
    assert (await world.check(HOME, ALICE)).verdict is Verdict.DENY_TEMPORARY


async def test_an_address_that_guesses_at_many_is_denied_before_a_password_is_looked_at() -> None:
    world = World()
    for number in range(20):
        await world.fail(HOTEL, name=f"user{number}")
    verdict = await world.check(HOTEL, name="somebody")
    assert verdict.verdict is Verdict.DENY_TEMPORARY
    assert 3600 <= verdict.deny_for <= 3700
    world.now += verdict.deny_for
    assert await world.check(HOTEL, name="somebody") == NOTHING


async def test_where_somebody_has_logged_in_passwords_are_looked_at_all_the_same() -> None:
    world = World()
    await world.log_in(HOTEL, BOB)
    await world.fail(HOTEL, name="nobody", times=20)
    assert await world.check(HOTEL, name="bob") == NOTHING
    assert (await world.check(HOTEL, ALICE)).verdict is Verdict.DENY_TEMPORARY


async def test_a_denied_address_may_not_even_connect_where_it_could_only_log_in() -> None:
    world = World()
    await world.fail(HOTEL, name="nobody", times=20)
    assert (await world.check(HOTEL, service=Service.POP3)).verdict is Verdict.DENY_TEMPORARY
    assert (await world.check(HOTEL, service=Service.IMAP)).verdict is Verdict.DENY_TEMPORARY
    # Mail from there has nothing to do with it.
    assert await world.check(HOTEL, service=Service.SMTP) == NOTHING


async def test_ipv6_clients_are_counted_by_their_64() -> None:
    world = World()
    for number in range(20):
        await world.fail(f"2001:db8::{number:x}", name=f"user{number}")
    assert (await world.check("2001:db8::ffff", ALICE)).verdict is Verdict.DENY_TEMPORARY
    assert await world.check("2001:db8:0:1::1", ALICE) == NOTHING


async def test_every_spelling_of_an_ipv4_address_is_one_client() -> None:
    world = World()
    for spelling in ("::ffff:198.51.100.7", "64:ff9b::c633:6407", "198.51.100.7"):
        await world.fail(spelling, name="nobody", times=7)
    assert (await world.check("2002:c633:6407::1", ALICE)).verdict is Verdict.DENY_TEMPORARY


async def test_behind_a_shared_network_failures_count_by_user_and_listener_only() -> None:
    world = World()
    await world.fail("127.0.0.1", ALICE, times=20)
    assert (await world.check("127.0.0.2", ALICE)).verdict is Verdict.DENY_TEMPORARY
    assert await world.check("127.0.0.1", ALICE, listener="pop3") == NOTHING
    assert await world.check("127.0.0.1", BOB) == NOTHING
    assert await world.check(HOME, ALICE) == NOTHING


async def test_a_login_behind_a_shared_network_makes_nobody_known_there() -> None:
    world = World()
    await world.log_in("100.64.0.1", ALICE)
    await world.fail("100.64.0.1", ALICE, times=20)
    assert (await world.check("100.64.0.1", ALICE)).verdict is Verdict.DENY_TEMPORARY


async def test_exempt_networks_are_neither_counted_nor_denied() -> None:
    world = World(GuessingConfig(exempt_networks=["198.51.100.0/24"]))
    for spelling in (HOTEL, "64:ff9b::c633:6407", "::ffff:198.51.100.7"):
        assert await world.fail(spelling, ALICE, times=100) == 0
    assert await world.check(HOTEL, ALICE) == NOTHING
    assert await world.check(HOME, ALICE) == NOTHING
    await world.fail(HOME, ALICE, times=20)
    assert await world.check(HOTEL, ALICE) == NOTHING


async def test_names_that_nobody_has_are_slowed_down_like_users() -> None:
    world = World()
    delays = [await world.fail(f"198.51.100.{number}", name="Admin") for number in range(8)]
    assert delays == [0, 0, 0, 0, 0.5, 1.0, 2.0, 4.0]
    assert await world.fail(HOME, name="ADMIN") == 8.0


async def test_agents_are_to_ask_about_whom_failures_are_slowing_down() -> None:
    world = World()
    await world.fail(HOTEL, ALICE, times=5)
    assert ALICE in world.suspicions
    assert world.networks.locate(bytes([198, 51, 100, 7])).key in world.suspicions
    world.now += 1.02 * DAY
    world.suspicions.drop_expired()
    assert not len(world.suspicions)


async def test_forgetting_a_user_lets_him_in_from_anywhere() -> None:
    world = World()
    for number in range(20):
        await world.fail(f"203.0.113.{number}", ALICE)
    await world.fail("127.0.0.1", ALICE, times=20)
    assert await world.guessing.forget(ALICE, b"") == 2
    assert ALICE not in world.suspicions
    assert await world.check(HOME, ALICE) == NOTHING
    assert await world.check("127.0.0.1", ALICE) == NOTHING


async def test_forgetting_an_address_lets_everybody_in_from_there() -> None:
    world = World()
    await world.fail(HOTEL, name="nobody", times=20)
    assert await world.guessing.forget(None, bytes([198, 51, 100, 7])) == 1
    assert await world.check(HOTEL, ALICE) == NOTHING
    assert await world.guessing.forget(None, bytes([198, 51, 100, 7])) == 0


async def test_forgetting_leaves_what_is_known() -> None:
    world = World()
    await world.log_in(HOME, ALICE)
    await world.guessing.forget(ALICE, bytes([192, 0, 2, 1]))
    await world.fail(HOTEL, ALICE, times=20)
    assert await world.check(HOME, ALICE) == NOTHING


async def test_an_address_that_is_none_is_an_error() -> None:
    world = World()
    with pytest.raises(ValueError, match="octets"):
        await world.guessing.forget(None, b"abc")


async def test_several_questions_are_answered_in_their_order() -> None:
    world = World()
    await world.log_in(HOME, ALICE)
    await world.fail(HOTEL, ALICE, times=20)
    asked = [
        question(HOME, ALICE),
        question(HOTEL, ALICE),
        question("127.0.0.1", ALICE),
        question(HOTEL, name="x"),
        question("192.0.2.99", BOB),
    ]
    verdicts = [verdict.verdict for verdict in await world.guessing.check(asked)]
    allowed, denied = Verdict.ALLOWED, Verdict.DENY_TEMPORARY
    assert verdicts == [allowed, denied, allowed, denied, allowed]
