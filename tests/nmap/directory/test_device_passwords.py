"""Passwords of single devices: what they open, where, how long, and how they end."""

from dataclasses import replace

import pytest
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.authenticator import Authenticator, AuthOutcome
from netmail_nmap.adapters.device_administration import (
    MAX_DEVICES,
    DeviceAdministration,
    DeviceUses,
    end_old_devices,
)
from netmail_nmap.adapters.device_passwords import DevicePasswords
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.domain.devices import digest, new_password
from netmail_nmap.domain.directory_errors import DeviceExists, DeviceNotFound, InvalidDevice
from netmail_nmap.domain.errors import UserNotFound
from netmail_nmap.domain.verified import VerifiedPasswords

from tests.nmap.directory.conftest import DEVICE_KEY
from tests.nmap.directory.test_verification import ASKER, Clock, CountingHasher, installation


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counting() -> CountingHasher:
    return CountingHasher()


@pytest.fixture
def administration(users: UserAdministration, clock: Clock) -> DeviceAdministration:
    return DeviceAdministration(users, DEVICE_KEY, clock)


@pytest.fixture
def uses(directory: UserDirectory, clock: Clock) -> DeviceUses:
    return DeviceUses(directory.store, clock)


@pytest.fixture
def authenticator(
    directory: UserDirectory, counting: CountingHasher, clock: Clock, uses: DeviceUses
) -> Authenticator:
    return Authenticator(
        installation(),
        directory,
        counting,
        VerifiedPasswords(60, clock),
        b"s" * 32,
        DevicePasswords(DEVICE_KEY, uses, clock),
    )


@pytest.fixture
async def copier(users: UserAdministration, administration: DeviceAdministration) -> str:
    """The password of alice's copier: SMTP from one network, for an hour."""
    await users.create("alice", "", "wonderland")
    _, password = await administration.create(
        "alice", "", "Copier", ["smtp"], ["192.0.2.0/24"], 3600
    )
    return password


async def judged(
    authenticator: Authenticator, password: str, service: str = "smtp", client: str = "192.0.2.1"
) -> AuthOutcome:
    asker = replace(ASKER, service=service, client_address=client)
    return (await authenticator.verify_password("alice", password, asker)).outcome


async def test_a_device_password_opens_its_service_from_its_network_and_nothing_else(
    authenticator: Authenticator, copier: str, counting: CountingHasher
) -> None:
    asker = replace(ASKER, service="smtp")
    answer = await authenticator.verify_password("alice@example.org", copier, asker)
    assert answer.outcome is AuthOutcome.OK
    assert answer.user is not None
    assert (answer.user.name, answer.device) == ("alice", "Copier")
    assert not counting.verified  # no Argon2 for it
    wrong = AuthOutcome.INVALID_CREDENTIALS
    assert await judged(authenticator, copier, service="imap") is wrong
    assert await judged(authenticator, copier, service="other") is wrong
    assert await judged(authenticator, copier, client="198.51.100.1") is wrong
    assert await judged(authenticator, copier, client="2001:db8::1") is wrong
    assert await judged(authenticator, copier, client="") is wrong
    assert await judged(authenticator, copier[:-1]) is wrong
    assert await judged(authenticator, "wonderland", service="imap") is AuthOutcome.OK


async def test_hyphens_spaces_and_case_of_it_do_not_matter(
    authenticator: Authenticator, copier: str
) -> None:
    for spelling in (copier.replace("-", ""), copier.replace("-", " "), copier.upper()):
        assert await judged(authenticator, spelling) is AuthOutcome.OK


async def test_it_is_over_at_its_end_and_so_are_the_logins_made_with_it(
    authenticator: Authenticator,
    directory: UserDirectory,
    users: UserAdministration,
    copier: str,
    clock: Clock,
) -> None:
    epoch = (await users.get("alice", "")).credential_epoch
    clock.now += 3599
    assert await judged(authenticator, copier) is AuthOutcome.OK
    assert await end_old_devices(directory.store, clock()) == 0
    clock.now += 1
    assert await judged(authenticator, copier) is AuthOutcome.INVALID_CREDENTIALS
    assert await end_old_devices(directory.store, clock()) == 1
    assert await end_old_devices(directory.store, clock()) == 0
    assert (await users.get("alice", "")).credential_epoch > epoch
    pending = await directory.store.pending_revocations(10)
    assert [one.name for one in pending] == ["alice"]


async def test_a_removed_one_opens_nothing_and_its_logins_are_revoked(
    authenticator: Authenticator,
    administration: DeviceAdministration,
    directory: UserDirectory,
    copier: str,
) -> None:
    assert await judged(authenticator, copier) is AuthOutcome.OK
    await administration.remove("alice", "", "COPIER")
    assert await judged(authenticator, copier) is AuthOutcome.INVALID_CREDENTIALS
    assert [one.name for one in await directory.store.pending_revocations(10)] == ["alice"]
    with pytest.raises(DeviceNotFound):
        await administration.remove("alice", "", "Copier")


async def test_the_last_use_is_listed_and_the_password_never(
    authenticator: Authenticator,
    administration: DeviceAdministration,
    uses: DeviceUses,
    copier: str,
    clock: Clock,
) -> None:
    (listed,) = await administration.list("alice", "")
    assert (listed.used_at, listed.used_from) == (None, "")
    assert copier.encode() not in listed.device.digest
    await judged(authenticator, copier, client="192.0.2.7")
    await judged(authenticator, copier, service="imap")  # was refused: no use
    await uses.write()
    (listed,) = await administration.list("alice", "")
    assert (listed.used_at, listed.used_from) == (int(clock()), "192.0.2.7")


async def test_a_use_voids_nothing_that_is_remembered_of_users(
    authenticator: Authenticator, directory: UserDirectory, uses: DeviceUses, copier: str
) -> None:
    await judged(authenticator, copier)
    version = directory.store.version
    await uses.write()
    assert directory.store.version == version


async def test_a_new_main_password_leaves_device_passwords_alone_and_removal_ends_them(
    authenticator: Authenticator, users: UserAdministration, copier: str
) -> None:
    await users.set_password("alice", "", "looking-glass")
    assert await judged(authenticator, copier) is AuthOutcome.OK
    await users.set_disabled("alice", "", disabled=True)
    assert await judged(authenticator, copier) is AuthOutcome.INVALID_CREDENTIALS
    await users.delete("alice", "")
    await users.create("alice", "", "wonderland")
    assert await judged(authenticator, copier) is AuthOutcome.INVALID_CREDENTIALS


async def test_a_device_password_is_its_users_only(
    authenticator: Authenticator, users: UserAdministration, copier: str
) -> None:
    await users.create("bob", "", "builder")
    asker = replace(ASKER, service="smtp")
    answer = await authenticator.verify_password("bob", copier, asker)
    assert answer.outcome is AuthOutcome.INVALID_CREDENTIALS


@pytest.mark.parametrize(
    ("name", "services", "networks", "expires_in"),
    [
        ("", [], [], None),
        ("a\nb", [], [], None),
        ("x", ["ftp"], [], None),
        ("x", [], ["192.0.2.1/24"], None),
        ("x", [], ["here"], None),
        ("x", [], ["192.0.2.0/24"] * 101, None),
        ("x", [], [], 0),
        ("x", [], [], 10**12),
    ],
)
async def test_what_cannot_be_a_device_password_is_refused(
    users: UserAdministration,
    administration: DeviceAdministration,
    name: str,
    services: list[str],
    networks: list[str],
    expires_in: int | None,
) -> None:
    await users.create("alice", "", "wonderland")
    with pytest.raises(InvalidDevice):
        await administration.create("alice", "", name, services, networks, expires_in)


async def test_names_are_unique_without_case_and_their_number_is_bounded(
    users: UserAdministration, administration: DeviceAdministration, copier: str
) -> None:
    assert copier
    with pytest.raises(DeviceExists):
        await administration.create("alice", "", "copier", [], [], None)
    for number in range(MAX_DEVICES - 1):
        await administration.create("alice", "", f"camera {number}", [], [], None)
    with pytest.raises(InvalidDevice):
        await administration.create("alice", "", "one more", [], [], None)
    with pytest.raises(UserNotFound):
        await administration.create("nobody", "", "copier", [], [], None)
    assert len((await users.get("alice", "")).devices) == MAX_DEVICES


def test_passwords_are_long_easily_read_and_never_the_same() -> None:
    made = {new_password() for _ in range(1000)}
    assert len(made) == 1000
    for password in made:
        assert len(password) == 24
        assert not set(password) & set("01lo")
    assert digest(b"1" * 32, "abcd") != digest(b"2" * 32, "abcd")
