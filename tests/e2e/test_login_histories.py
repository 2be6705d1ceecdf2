"""What happened to a login before its client wants to relay: age, revocation, renewal, repetition.

Registrations come as a POP/IMAP agent sends them, the client stands behind a real SMTP listener.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.certificates import LocalAuthority
from netmail_common.connmgr import UserKey

from tests.e2e.proxy_headers import v2
from tests.e2e.relaying import PLACES, Outcome, Relaying, relaying

LIFETIME = 900.0
RELAYED, REFUSED = Outcome.RELAYED, Outcome.REFUSED


@dataclass(frozen=True, slots=True)
class Client:
    """Who the case is about.

    Attributes:
        address: his own.
        user: of the case alone, as `other` is: marks of the cases before stay.
    """

    address: str
    user: str
    other: str

    def named(self, who: str) -> str:
        """The name of `user` or `other`."""
        return self.other if who == "other" else self.user


Step = Callable[[Relaying, Client], None]
"""Does something about a client."""


def login(
    age: float = 0.0,
    *,
    epoch: int = 1,
    session: str = "one",
    user: str = "user",
    at: str = "",
    renewal: bool = False,
) -> Step:
    """A login that was verified so many seconds ago; `at` another address."""

    def step(agents: Relaying, client: Client) -> None:
        agents.register(
            pb.LoginRegistration(
                user=pb.UserKey(name=client.named(user), context="users.demo"),
                addresses=[f"{client.named(user)}@example.org"],
                client_address=ip_address(at or client.address).packed,
                protocol=pb.PROTOCOL_POP3,
                messaging_server="mail1",
                agent="test",
                session_id=f"{session} {user} {at or client.address}",
                age_ms=round(age * 1000),
                credential_epoch=epoch,
                domains=["example.org"],
                renewal=renewal,
            )
        )

    return step


def revoke(user: str = "", *, at: str | None = None, epoch: int = 0) -> Step:
    """A revocation by user, by address (empty: the client's), or both."""

    def step(agents: Relaying, client: Client) -> None:
        what: dict[str, Any] = {"credential_epoch": epoch}
        if user:
            what["user"] = UserKey(client.named(user), "users.demo")
        if at is not None:
            what["client_address"] = ip_address(at or client.address).packed
        agents.revoke(**what)

    return step


def pause(seconds: float) -> Step:
    return lambda _agents, _client: time.sleep(seconds)


MILLISECOND = 0.001

HISTORIES: list[tuple[str, list[Step], Outcome]] = [
    ("a login", [login()], RELAYED),
    ("nothing", [], REFUSED),
    ("an old login that still counts", [login(LIFETIME - 30)], RELAYED),
    ("one that expires in a millisecond", [login(LIFETIME - 0.002), pause(0.003)], REFUSED),
    ("one that has expired by a millisecond", [login(LIFETIME + MILLISECOND)], REFUSED),
    ("one that has expired on the dot", [login(LIFETIME)], REFUSED),
    ("one of another life", [login(10 * 365 * 86_400.0)], REFUSED),
    ("one of the largest age", [login((2**63 - 1) / 1000)], REFUSED),
    ("an expired one renewed by its session", [login(LIFETIME + 1, renewal=True)], RELAYED),
    ("an expired one told again", [login(LIFETIME + 1), login(LIFETIME + 1)], REFUSED),
    ("one about to expire, told again", [login(899.95), login(899.95), pause(0.06)], REFUSED),
    ("one about to expire, told again as younger", [login(899.95), login(), pause(0.06)], REFUSED),
    ("a newer session", [login(899.95), login(session="two"), pause(0.06)], RELAYED),
    ("an older session", [login(session="two"), login(899.95), pause(0.06)], RELAYED),
    ("a renewal", [login(899.95), login(899.95, renewal=True), pause(0.06)], RELAYED),
    ("the user revoked", [login(), revoke("user")], REFUSED),
    ("the address revoked", [login(), revoke(at="")], REFUSED),
    ("both revoked", [login(), revoke("user", at="")], REFUSED),
    ("another user revoked", [login(), revoke("other")], RELAYED),
    ("another address revoked", [login(), revoke(at="192.0.2.200")], RELAYED),
    ("the user revoked elsewhere", [login(), revoke("user", at="192.0.2.200")], RELAYED),
    ("revoked by a mapped address", [login(at="192.0.2.50"), revoke(at="::ffff:192.0.2.50")],
     REFUSED),
    ("the password changed", [login(), revoke("user", epoch=2)], REFUSED),
    ("the password changed before that", [login(epoch=2), revoke("user", epoch=2)], RELAYED),
    ("told again after it was revoked", [login(), revoke("user"), login(0.2)], REFUSED),
    ("renewed after it was revoked", [login(), revoke("user"), login(0.2, renewal=True)], REFUSED),
    ("in flight while it was revoked", [revoke("user"), login(0.2)], REFUSED),
    ("in flight while its address was", [revoke(at=""), login(0.2)], REFUSED),
    ("in flight at another address", [revoke(at="192.0.2.200"), login(0.2)], RELAYED),
    ("in flight with the old password", [revoke("user", epoch=2), login()], REFUSED),
    ("in flight with the new password", [revoke("user", epoch=2), login(0.2, epoch=2)],
     RELAYED),
    ("a new session of the old password",
     [login(), revoke("user", epoch=2), login(session="two")], REFUSED),
    ("a renewal of the old password",
     [login(), revoke("user", epoch=2), login(session="two", renewal=True)], REFUSED),
    ("logged in again after a revocation",
     [login(), revoke("user"), pause(0.01), login(session="two")], RELAYED),
    ("logged in again with the new password",
     [login(), revoke("user", epoch=2), login(session="two", epoch=2)], RELAYED),
    ("revoked again after that",
     [login(), revoke("user"), pause(0.01), login(session="two"), revoke("user")], REFUSED),
    ("an older mark does not weaken",
     [revoke("user", epoch=3), revoke("user", epoch=2), login(epoch=2)], REFUSED),
    ("a mark by age beside one by epoch",
     [revoke("user", epoch=2), revoke("user"), login(0.2, epoch=3)], REFUSED),
    ("the right password at another address", [login(at="192.0.2.201")], REFUSED),
    ("another user's login", [login(user="other")], REFUSED),
    ("another user's login beside it", [login(user="other"), login()], RELAYED),
    ("another user's login is left", [login(user="other"), login(), revoke("user")], REFUSED),
    ("many networks push the oldest out",
     [login(), *(login(at=f"198.18.0.{n}") for n in range(64))], REFUSED),
    ("many networks, renewed in between",
     [login(), *(login(at=f"198.18.0.{n}") for n in range(63)), login(session="two"),
      login(at="198.18.0.63")], RELAYED),
]  # fmt: skip


@pytest.fixture(scope="module")
def agents(
    tmp_path_factory: pytest.TempPathFactory, authority: LocalAuthority, certificates: Path
) -> Iterator[Relaying]:
    folder = tmp_path_factory.mktemp("histories")
    rates = {"rates": {"after_login": {"recipients": 0}}}
    with relaying(folder, authority, certificates, manager=rates) as running:
        yield running


@pytest.mark.parametrize("number", range(len(HISTORIES)), ids=lambda n: HISTORIES[n][0])
def test_a_login_counts_as_long_as_its_history_lets_it(agents: Relaying, number: int) -> None:
    _, steps, outcome = HISTORIES[number]
    client = Client(f"192.0.2.{number + 1}", f"user{number}", f"user{number + 50}")
    for step in steps:
        step(agents, client)
    agents.replica_follows()
    for place in PLACES:
        assert agents.relay(v2(client.address), place, user=client.user) is outcome
    agents.forget_logins()
