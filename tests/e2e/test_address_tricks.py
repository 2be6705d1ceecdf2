"""Address tricks by PROXY header, at real listeners with the real agents behind: no wrong allow."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from netmail_common.certificates import LocalAuthority

from tests.e2e.address_tricks import BLOCKED, HOME, SHARED_CONFIG, Case, all_cases
from tests.e2e.proxy_headers import v1, v2
from tests.e2e.relaying import PLACES, Outcome, Relaying, relaying

CASES = all_cases()


@pytest.fixture(scope="module")
def agents(
    tmp_path_factory: pytest.TempPathFactory, authority: LocalAuthority, certificates: Path
) -> Iterator[Relaying]:
    folder = tmp_path_factory.mktemp("relaying")
    with relaying(folder, authority, certificates, manager=SHARED_CONFIG) as running:
        yield running


@pytest.fixture
def fresh(agents: Relaying) -> Iterator[Relaying]:
    """The agents, with nobody logged in."""
    yield agents
    agents.forget_logins()


def test_the_table_is_long_and_names_each_case_once() -> None:
    assert len(CASES) >= 500
    outcomes = [case.outcome for case in CASES]
    assert min(outcomes.count(one) for one in Outcome) >= 50


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_login_vouches_for_its_own_client_and_for_nobody_else(
    fresh: Relaying, case: Case
) -> None:
    reply = fresh.pop3_login(case.login)
    assert reply.startswith("+OK") is not case.login_cut
    fresh.replica_follows()
    for place in PLACES:
        assert fresh.relay(case.relay, place) is case.outcome


@pytest.mark.parametrize("address", BLOCKED)
def test_a_blocked_client_never_relays_whatever_it_logs_in_as(
    fresh: Relaying, address: str
) -> None:
    for login in (address, BLOCKED[0]):
        fresh.pop3_login(v2(login))
        for place in PLACES:
            assert fresh.relay(v2(address), place) is not Outcome.RELAYED


@pytest.mark.parametrize("place", PLACES)
def test_a_header_where_none_is_wanted_is_no_header(fresh: Relaying, place: str) -> None:
    fresh.pop3_login(v1(HOME))
    fresh.replica_follows()
    assert fresh.relay(v1(HOME), place) is Outcome.RELAYED
    assert fresh.relay(v1(HOME), place, proxied=False) is Outcome.REFUSED
