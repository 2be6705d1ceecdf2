"""The Connection Manager is killed, stopped, cut off; agents are suspended; clocks are set.

Whatever happens, nobody relays whom the table did not allow within max_staleness, and decisions
are back within five seconds of its end.
"""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from netmail_common.certificates import LocalAuthority

from tests.e2e.apart import MAX_STALENESS, SLOW, Apart, apart
from tests.e2e.proxy_headers import v2
from tests.e2e.relaying import REMOTE, connection_to

BACK_WITHIN = 5.0
DAY = 86_400.0

NOT_KNOWN, NO_ANSWER = "550 5.7.1", "451"


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, authority: LocalAuthority, certificates: Path
) -> Iterator[Apart]:
    with apart(tmp_path_factory.mktemp("apart"), authority, certificates, skewed=True) as running:
        yield running


@pytest.fixture
def alice(world: Apart) -> tuple[str, str]:
    return world.known_client()


def test_a_connection_manager_that_was_killed(world: Apart, alice: tuple[str, str]) -> None:
    world.manager.kill()
    world.nobody_relays_too_long(alice, since=time.monotonic())
    world.manager.start()
    world.manager.wait_ready()
    ready = time.monotonic()
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    world.until(*alice, "250", BACK_WITHIN)  # the POP/IMAP agent has told it again
    assert time.monotonic() - ready < BACK_WITHIN + SLOW


def test_a_revocation_outlives_the_connection_manager(world: Apart, alice: tuple[str, str]) -> None:
    world.revoke(alice[1])
    world.until(*alice, NOT_KNOWN, MAX_STALENESS)
    world.manager.kill()
    world.manager.start()
    world.manager.wait_ready()
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    until = time.monotonic() + BACK_WITHIN
    while time.monotonic() < until:
        assert world.relay(*alice) == NOT_KNOWN
        time.sleep(0.2)


def test_a_connection_manager_that_is_stopped(world: Apart, alice: tuple[str, str]) -> None:
    world.manager.send(signal.SIGSTOP)
    try:
        world.nobody_relays_too_long(alice, since=time.monotonic())
        revoking = threading.Thread(target=world.revoke, args=(alice[1],))
        revoking.start()
        time.sleep(1.0)  # it lies in the socket of the stopped process
    finally:
        world.manager.send(signal.SIGCONT)
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    revoking.join(60)
    world.until(*alice, NOT_KNOWN, MAX_STALENESS)


def test_a_network_that_is_cut(world: Apart, alice: tuple[str, str]) -> None:
    world.host.cut()
    try:
        cut = time.monotonic()
        revoking = threading.Thread(target=world.revoke, args=(alice[1],))
        revoking.start()
        world.nobody_relays_too_long(alice, since=cut)
        revoking.join(60)
    finally:
        world.host.mend()
    while (reply := world.relay(*alice)) != NOT_KNOWN:
        assert reply == NO_ANSWER  # never yes
        assert time.monotonic() - cut < 60
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)


@pytest.mark.parametrize("seconds", [MAX_STALENESS + 1, 25.0])
def test_decisions_are_back_soon_after_the_network_is(
    world: Apart, alice: tuple[str, str], seconds: float
) -> None:
    """However long TCP and gRPC have waited before they try again."""
    world.host.cut()
    try:
        cut = time.monotonic()
        world.until(*alice, NO_ANSWER, MAX_STALENESS + 2 * SLOW)
        while time.monotonic() < cut + seconds:
            assert world.relay(*alice) == NO_ANSWER
    finally:
        world.host.mend()
    mended = time.monotonic()
    world.until(*alice, "250", BACK_WITHIN)
    world.until(*world.stranger(), NOT_KNOWN, BACK_WITHIN)
    assert time.monotonic() - mended < BACK_WITHIN + SLOW


def test_a_suspended_process_does_not_take_old_knowledge_for_new(
    world: Apart, alice: tuple[str, str]
) -> None:
    """Its first decision after it goes on is about a client that came while it was suspended."""
    user, address = alice
    smtp = world.agents["smtp"]
    with connection_to(world.ports["smtp"], v2(address)) as client:
        assert client.line().startswith("220")
        assert client.say("HELO client.example.net").startswith("250")
        assert client.say(f"MAIL FROM:<{user}@example.org>").startswith("250")
        smtp.send(signal.SIGSTOP)
        world.revoke(address)
        revoked = time.monotonic()
        client.send(f"RCPT TO:<{REMOTE}>")
        while time.monotonic() < revoked + MAX_STALENESS:
            time.sleep(0.05)
        smtp.send(signal.SIGCONT)
        assert client.line().startswith((NOT_KNOWN, "451"))
    world.until(user, address, NOT_KNOWN, BACK_WITHIN)


@pytest.mark.parametrize("ahead", [-DAY / 48, DAY, -3600.0 * 0.9])
def test_a_wall_clock_that_is_set_changes_nothing(
    world: Apart, alice: tuple[str, str], ahead: float
) -> None:
    try:
        world.set_wall_clock(ahead)
        assert world.relay(*alice) == "250"
        assert world.relay(*world.stranger()) == NOT_KNOWN
        world.revoke(alice[1])
        world.until(*alice, NOT_KNOWN, MAX_STALENESS)
        late = world.newcomer()
        world.log_in(*late)
        assert world.relay(*late) == "250"
    finally:
        world.set_wall_clock(0.0)
    assert world.relay(*late) == "250"
    assert world.relay(*alice) == NOT_KNOWN
