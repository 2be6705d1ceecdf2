"""Rates of known senders, against a model that remembers every recipient."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from netmail_common.config import RateLimit, RateOverride, RatesConfig
from netmail_common.connmgr.model import UserKey
from netmail_common.connmgr.rates import RATE_WINDOW, RelayWanted, limit_for, rate_counts
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.domain.rates import Rates, RateVerdict

ALICE, BOB, NEWS = (UserKey(name, "users") for name in ("alice", "bob", "news"))
CONFIG = RatesConfig(
    after_login=RateLimit(recipients=10, messages=4),
    after_auth=RateLimit(recipients=20),
    overrides=[RateOverride(context="users", user="news", after_auth=RateLimit(recipients=40))],
)

mail = st.builds(
    RelayWanted,
    user=st.sampled_from([ALICE, BOB, NEWS, None]),
    network=st.sampled_from([b"one", b"two", None]),
    session_id=st.sampled_from(["s1", "s2", ""]),
    authenticated=st.booleans(),
    recipients=st.integers(1, 12),
    messages=st.integers(0, 1),
)


@dataclass
class Model:
    """What was accepted of late, by whom it counts for."""

    counted: list[tuple[float, RelayWanted]]

    def fits(self, wanted: RelayWanted, now: float) -> bool:
        """Whether nothing would be exceeded."""
        limit = limit_for(CONFIG, wanted.user, authenticated=wanted.authenticated)
        of_his_own = wanted.user == NEWS and wanted.authenticated
        for about in ("user", "network", "session_id"):
            value = getattr(wanted, about)
            if not value or (about == "network" and of_his_own):
                continue
            total: Counter[str] = Counter()
            for when, other in self.counted:
                same = (
                    other.authenticated == wanted.authenticated and getattr(other, about) == value
                )
                own = other.user == NEWS and other.authenticated
                if when > now - RATE_WINDOW and same and not (about == "network" and own):
                    total["recipients"] += other.recipients
                    total["messages"] += other.messages
            for what in ("recipients", "messages"):
                amount, bound = getattr(wanted, what), getattr(limit, what)
                if amount and bound and total[what] + amount > bound:
                    return False
        return True


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2 * RATE_WINDOW]), mail), max_size=40))
async def test_mail_is_accepted_while_nothing_is_exceeded_and_only_then(
    steps: list[tuple[float, RelayWanted]],
) -> None:
    now, model = 0.0, Model([])
    rates = Rates(MemoryCounters(lambda: now), CONFIG)
    for pause, wanted in steps:
        now += pause
        (verdict,) = await rates.admit([wanted])
        assert verdict.accepted is model.fits(wanted, now)
        if verdict.accepted:
            model.counted.append((now, wanted))
        else:
            assert verdict.rate in {"user", "network", "login"}
            assert 0 < verdict.retry_after <= RATE_WINDOW


async def test_several_at_once_are_counted_in_their_order() -> None:
    rates = Rates(MemoryCounters(lambda: 0.0), CONFIG)
    wanted = [RelayWanted(ALICE, b"one", "s", False, count, 1) for count in (6, 6, 4, 1)]
    accepted = [verdict.accepted for verdict in await rates.admit(wanted)]
    assert accepted == [True, False, True, False]


async def test_what_could_never_be_sent_at_once_is_to_be_tried_within_an_hour_at_most() -> None:
    rates = Rates(MemoryCounters(lambda: 0.0), CONFIG)
    wanted = RelayWanted(ALICE, None, "", False, 11)
    assert await rates.admit([wanted]) == [RateVerdict(False, "user", RATE_WINDOW)]


def test_0_is_no_limit_and_nothing_is_counted() -> None:
    config = RatesConfig(after_login=RateLimit(recipients=0), after_auth=RateLimit(recipients=0))
    wanted = RelayWanted(ALICE, b"one", "s", False, 1000, 10)
    assert list(rate_counts(config, wanted)) == []


def test_the_first_override_that_fits_counts() -> None:
    config = RatesConfig(
        overrides=[
            RateOverride(context="other", after_auth=RateLimit(recipients=1)),
            RateOverride(context="users", user="alice", after_auth=RateLimit(recipients=2)),
            RateOverride(context="users", after_login=RateLimit(recipients=3)),
            RateOverride(context="users", after_auth=RateLimit(recipients=4)),
        ]
    )

    def limit(user: UserKey | None, *, authenticated: bool) -> int:
        return limit_for(config, user, authenticated=authenticated).recipients

    assert limit(ALICE, authenticated=True) == 2
    assert limit(ALICE, authenticated=False) == 3
    assert limit(BOB, authenticated=True) == 4
    assert limit(UserKey("alice", "elsewhere"), authenticated=True) == 500
    assert limit(None, authenticated=False) == 100
