"""Passwords: hashing off the loop, the cache, SCRAM, and what a stranger can learn."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from netmail_common.config import Installation, parse_config
from netmail_common.sasl import parse_client_first
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.authenticator import Asker, Authenticator, AuthOutcome
from netmail_nmap.adapters.device_passwords import DevicePasswords
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.domain.credentials import fake_verifier, make_credentials, verify_password
from netmail_nmap.domain.directory_errors import HashingBusy
from netmail_nmap.domain.scram import ScramExchange, ScramMalformed, ScramProofWrong
from netmail_nmap.domain.users import Credentials, UserRecord
from netmail_nmap.domain.verified import VerifiedPasswords
from scramp import ScramClient

from tests.nmap.directory.conftest import CHEAP

ASKER = Asker("mail1", "imap", "192.0.2.1", last=True)
NOT_LAST = replace(ASKER, last=False)


class CountingHasher(PasswordHasher):
    """Counts verifications, and fails like a full queue when told so."""

    def __init__(self) -> None:
        super().__init__(CHEAP, concurrency=1, queue=8)
        self.verified: list[str] = []
        self.busy = False

    async def verify(self, password_hash: str, password: str) -> bool:
        self.verified.append(password_hash)
        if self.busy:
            raise HashingBusy
        return await super().verify(password_hash, password)


class Clock:
    """Seconds that pass when told so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def installation(*, backend: str = "internal") -> Installation:
    contexts: list[dict[str, object]] = [{"name": "users.demo"}, {"name": "staff.demo"}]
    if backend == "htpasswd":
        contexts[1] |= {"backend": "htpasswd", "file": "staff.htpasswd"}
    return parse_config(
        {
            "messaging_servers": [
                {
                    "name": "mail1",
                    "host_name": "mail1.example.org",
                    "domains": ["example.org", "example.com"],
                    "ube_relaying": {"smtp_after_pop": False},
                    "contexts": contexts,
                    "nmap": {"listen": ["127.0.0.1:0"]},
                },
                {
                    "name": "mail2",
                    "host_name": "mail2.example.org",
                    "standalone": True,
                    "domains": ["branch.example.org"],
                    "ube_relaying": {"smtp_after_pop": False},
                    "contexts": [{"name": "branch.demo"}],
                    "nmap": {"listen": ["127.0.0.1:0"]},
                },
            ]
        },
        state=Path("var"),
    )


@pytest.fixture
def counting() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(
    directory: UserDirectory, counting: CountingHasher, clock: Clock, devices: DevicePasswords
) -> Authenticator:
    return Authenticator(
        installation(), directory, counting, VerifiedPasswords(60, clock), b"s" * 32, devices
    )


async def outcome(authenticator: Authenticator, name: str, password: str) -> AuthOutcome:
    return (await authenticator.verify_password(name, password, ASKER)).outcome


async def test_the_right_password_opens_and_any_other_does_not(
    users: UserAdministration, authenticator: Authenticator
) -> None:
    alice = await users.create("alice", "", "wonderland")
    answer = await authenticator.verify_password("alice", "wonderland", ASKER)
    assert (answer.outcome, answer.user) == (AuthOutcome.OK, alice)
    for wrong in ("Wonderland", "", "wonder\0land", "x" * 2000):
        assert await outcome(authenticator, "alice", wrong) is AuthOutcome.INVALID_CREDENTIALS


async def test_a_verified_password_costs_no_second_hash_until_its_time_is_over(
    users: UserAdministration, authenticator: Authenticator, counting: CountingHasher, clock: Clock
) -> None:
    await users.create("alice", "", "wonderland")
    for _ in range(3):
        assert await outcome(authenticator, "alice@example.org", "wonderland") is AuthOutcome.OK
    assert len(counting.verified) == 1
    clock.now += 61
    assert await outcome(authenticator, "alice", "wonderland") is AuthOutcome.OK
    assert len(counting.verified) == 2


async def test_a_password_is_hashed_anew_when_the_parameters_have_changed(
    users: UserAdministration, directory: UserDirectory, clock: Clock, devices: DevicePasswords
) -> None:
    alice = await users.create("alice", "", "wonderland")
    stronger = CountingHasher()
    stronger.parameters = replace(CHEAP, time_cost=2, scram_iterations=5000)
    authenticator = Authenticator(
        installation(), directory, stronger, VerifiedPasswords(60, clock), b"s" * 32, devices
    )
    for wrong in ("x", ""):
        await outcome(authenticator, "alice", wrong)
    assert await users.get("alice", "") == alice
    assert await outcome(authenticator, "alice", "wonderland") is AuthOutcome.OK
    renewed = await users.get("alice", "")
    assert renewed.credentials.password_hash.startswith("$argon2id$v=19$m=8,t=2,p=1$")
    assert renewed.credentials.scram is not None
    assert renewed.credentials.scram.iterations == 5000
    assert renewed.credential_epoch == alice.credential_epoch
    assert await directory.store.pending_revocations(1) == []
    assert (await scram(authenticator, "alice", "wonderland"))[0] is AuthOutcome.OK
    assert await outcome(authenticator, "alice", "wonderland") is AuthOutcome.OK
    assert (await users.get("alice", "")) == renewed
    await stronger.close()


async def test_a_wrong_password_is_hashed_each_time(
    users: UserAdministration, authenticator: Authenticator, counting: CountingHasher
) -> None:
    await users.create("alice", "", "wonderland")
    await outcome(authenticator, "alice", "wonderland")
    for _ in range(2):
        assert await outcome(authenticator, "alice", "x") is AuthOutcome.INVALID_CREDENTIALS
    assert len(counting.verified) == 3


async def test_a_changed_password_voids_the_cache_at_once(
    users: UserAdministration, authenticator: Authenticator
) -> None:
    await users.create("alice", "", "wonderland")
    assert await outcome(authenticator, "alice", "wonderland") is AuthOutcome.OK
    await users.set_password("alice", "", "looking-glass")
    assert await outcome(authenticator, "alice", "wonderland") is AuthOutcome.INVALID_CREDENTIALS
    assert await outcome(authenticator, "alice", "looking-glass") is AuthOutcome.OK
    await users.set_disabled("alice", "", disabled=True)
    assert await outcome(authenticator, "alice", "looking-glass") is AuthOutcome.INVALID_CREDENTIALS


async def test_an_unknown_user_costs_a_hash_of_the_same_strength(
    users: UserAdministration, authenticator: Authenticator, counting: CountingHasher
) -> None:
    alice = await users.create("alice", "", "wonderland")
    assert await outcome(authenticator, "alice", "x") is AuthOutcome.INVALID_CREDENTIALS
    assert await outcome(authenticator, "nobody", "x") is AuthOutcome.INVALID_CREDENTIALS
    of_alice, of_nobody = counting.verified
    assert of_alice == alice.credentials.password_hash
    assert of_nobody.rsplit("$", 2)[0] == of_alice.rsplit("$", 2)[0]


async def test_an_unknown_user_is_said_at_once_when_others_are_asked_too(
    authenticator: Authenticator, counting: CountingHasher
) -> None:
    answer = await authenticator.verify_password("nobody", "x", NOT_LAST)
    assert answer.outcome is AuthOutcome.UNKNOWN_USER
    assert counting.verified == []


async def test_who_does_not_know_our_contexts_finds_nobody(
    users: UserAdministration, authenticator: Authenticator
) -> None:
    await users.create("alice", "", "wonderland")
    for server in ("mail2", "no such server", ""):  # mail2 is standalone
        asker = replace(ASKER, messaging_server=server)
        answer = await authenticator.verify_password("alice", "wonderland", asker)
        assert answer.outcome is AuthOutcome.INVALID_CREDENTIALS


async def test_too_many_at_once_are_a_temporary_failure(
    users: UserAdministration, authenticator: Authenticator, counting: CountingHasher
) -> None:
    await users.create("alice", "", "wonderland")
    counting.busy = True
    assert await outcome(authenticator, "alice", "wonderland") is AuthOutcome.TEMPORARY_FAILURE
    assert await outcome(authenticator, "nobody", "wonderland") is AuthOutcome.TEMPORARY_FAILURE


async def test_the_queue_of_hashes_is_bounded() -> None:
    hasher = PasswordHasher(CHEAP, concurrency=1, queue=2)
    stored = make_credentials("x", CHEAP).password_hash
    results = await asyncio.gather(
        *(hasher.verify(stored, "x") for _ in range(10)), return_exceptions=True
    )
    assert results.count(True) == 3
    assert sum(isinstance(result, HashingBusy) for result in results) == 7
    assert await hasher.verify(stored, "x")
    await hasher.close()


def test_passwords_with_the_same_meaning_are_one() -> None:
    record = UserRecord(1, "c", "n", "n", Credentials("hash"), credential_epoch=5)
    cache = VerifiedPasswords(60, lambda: 0.0)
    cache.remember(record, "secret")
    assert cache.has(record, "secret")
    assert not cache.has(record, "secre")
    assert not cache.has(replace(record, credential_epoch=6), "secret")
    assert not cache.has(replace(record, credentials=Credentials("hashs")), "ecret")
    assert not cache.has(replace(record, context="d"), "secret")


def test_the_cache_is_bounded_and_may_be_off() -> None:
    records = [UserRecord(n, "c", f"n{n}", f"n{n}", Credentials("hash")) for n in range(1, 4)]
    cache = VerifiedPasswords(60, lambda: 0.0, size=2)
    for record in records:
        cache.remember(record, "secret")
    assert [cache.has(record, "secret") for record in records] == [False, True, True]
    off = VerifiedPasswords(0, lambda: 0.0)
    off.remember(records[0], "secret")
    assert not off.has(records[0], "secret")


async def scram(
    authenticator: Authenticator, name: str, password: str, asker: Asker = ASKER
) -> tuple[AuthOutcome, str]:
    """Outcome, and the salt and iterations that the server said."""
    client = ScramClient(["SCRAM-SHA-256"], name, password)
    answer, under_way = await authenticator.start_scram(client.get_client_first().encode(), asker)
    if under_way is None:
        return answer.outcome, ""
    client.set_server_first(answer.data.decode())
    challenge = answer.data.decode().partition(",")[2]
    answer = await authenticator.finish_scram(under_way, client.get_client_final().encode())
    if answer.outcome is AuthOutcome.OK:
        client.set_server_final(answer.data.decode())
    return answer.outcome, challenge


async def test_scram_proves_both_sides(
    users: UserAdministration, authenticator: Authenticator
) -> None:
    await users.create("alice", "", "wonder\u00adland")
    assert (await scram(authenticator, "alice", "wonderland"))[0] is AuthOutcome.OK
    assert (await scram(authenticator, "Alice@example.org", "wonderland"))[0] is AuthOutcome.OK
    wrong, _ = await scram(authenticator, "alice", "x")
    assert wrong is AuthOutcome.INVALID_CREDENTIALS


async def test_scram_shows_a_stranger_no_difference_between_users_and_nobody(
    users: UserAdministration, authenticator: Authenticator
) -> None:
    await users.create("alice", "", "wonderland")
    known = await scram(authenticator, "alice", "x")
    nobody = await scram(authenticator, "nobody", "x")
    assert known[0] is nobody[0] is AuthOutcome.INVALID_CREDENTIALS
    assert len(known[1]) == len(nobody[1])
    assert (await scram(authenticator, "NOBODY", "y"))[1] == nobody[1]
    assert (await scram(authenticator, "nobody2", "x"))[1] != nobody[1]


async def test_scram_for_a_user_of_somebody_else_is_passed_on(
    authenticator: Authenticator,
) -> None:
    result, _ = await scram(authenticator, "carol", "x", NOT_LAST)
    assert result is AuthOutcome.UNKNOWN_USER


async def test_scram_is_refused_where_a_context_keeps_no_verifiers(
    users: UserAdministration,
    directory: UserDirectory,
    counting: CountingHasher,
    devices: DevicePasswords,
) -> None:
    await users.create("alice", "", "wonderland")
    authenticator = Authenticator(
        installation(backend="htpasswd"),
        directory,
        counting,
        VerifiedPasswords(60, lambda: 0.0),
        b"s" * 32,
        devices,
    )
    assert await scram(authenticator, "alice", "wonderland") == (
        AuthOutcome.INVALID_CREDENTIALS,
        "",
    )


async def test_scram_messages_that_are_none(
    users: UserAdministration, authenticator: Authenticator
) -> None:
    await users.create("alice", "", "wonderland")
    answer, _ = await authenticator.start_scram(b"n,,garbage", ASKER)
    assert answer.outcome is AuthOutcome.MALFORMED
    for final in (b"", b"\xff", b"c=biws,r=other,p=AAAA", b"x" * 10_000):
        _, under_way = await authenticator.start_scram(b"n,,n=alice,r=abc", ASKER)
        assert under_way is not None
        answer = await authenticator.finish_scram(under_way, final)
        assert answer.outcome is AuthOutcome.MALFORMED


def test_a_proof_for_another_exchange_is_wrong() -> None:
    verifier = make_credentials("x", CHEAP).scram
    assert verifier is not None
    client = ScramClient(["SCRAM-SHA-256"], "alice", "x", c_nonce="abc")
    first = parse_client_first(client.get_client_first().encode())
    one, other = ScramExchange(first, verifier), ScramExchange(first, verifier)
    client.set_server_first(one.server_first.decode())
    final = client.get_client_final().encode()
    with pytest.raises(ScramMalformed):
        other.finish(final)
    forged = final.decode().rpartition(",p=")[0] + ",p=" + "A" * 43 + "="
    with pytest.raises(ScramProofWrong):
        one.finish(forged.encode())


def test_nobody_s_verifier_fits_no_password() -> None:
    one, same = (fake_verifier(b"s" * 32, "nobody", 4096) for _ in range(2))
    assert (one.salt, one.iterations) == (same.salt, same.iterations)
    assert one.salt != fake_verifier(b"t" * 32, "nobody", 4096).salt


def test_each_hash_has_a_salt_of_its_own() -> None:
    one, other = make_credentials("x", CHEAP), make_credentials("x", CHEAP)
    assert one.password_hash != other.password_hash
    assert one.scram is not None
    assert other.scram is not None
    assert one.scram.salt != other.scram.salt
    assert one.password_hash.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert verify_password(one.password_hash, "x")


async def test_the_directory_is_not_asked_twice_in_vain(
    directory_with: Callable[..., UserDirectory],
) -> None:
    assert await directory_with().find_login("x" * 300) is None
