"""A process that stood still takes what it reads afterwards for older than it says."""

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr import UserKey
from netmail_common.roles import Role
from netmail_connmgr.domain.stall import TICK, StallGuard

from tests.connmgr.conftest import ServeFactory, login


def running(seconds: float) -> StallGuard:
    guard = StallGuard(0.0)
    for beat in range(1, int(seconds / TICK) + 1):
        guard.beat(beat * TICK)
    return guard


def test_a_process_that_runs_has_lost_nothing() -> None:
    guard = running(10)
    assert guard.lost(10.05) == 0
    guard.beat(10.4)  # a busy moment
    assert guard.lost(10.4) == 0


def test_what_is_read_before_the_first_beat_after_a_stall_is_old() -> None:
    assert running(10).lost(70) == pytest.approx(60, abs=0.2)


def test_what_is_read_soon_after_a_stall_is_old_and_later_it_is_not() -> None:
    guard = running(10)
    guard.beat(70.0)
    assert guard.lost(70.5) == pytest.approx(60, abs=0.2)
    for beat in range(1, 40):
        guard.beat(70 + beat * TICK)
    assert guard.lost(74.0) == 0


def test_a_second_stall_does_not_make_the_first_forgotten() -> None:
    guard = running(10)
    guard.beat(70.0)
    guard.beat(71.0)
    assert guard.lost(71.0) == pytest.approx(60, abs=0.2)


async def test_a_registration_that_waited_in_a_socket_is_refused_if_a_revocation_was_faster(
    serve: ServeFactory,
) -> None:
    async with serve() as server:
        server.clock.stand_still(30)  # a registration and a revocation wait meanwhile
        await server.client(Role.ADMIN).revoke(user=UserKey("alice", "users.demo"))
        result = await server.client(Role.POP_IMAP).register_one(login())
        assert result.outcome == pb.REGISTER_OUTCOME_REVOKED
        result = await server.client(Role.POP_IMAP).register_one(login("bob"))
        assert result.outcome == pb.REGISTER_OUTCOME_REGISTERED
        assert result.remaining_seconds in range(868, 872)
