"""A directory on a real store, with cheap password hashes."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from netmail_common.mail_address import parse_mail_address
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.device_administration import DeviceUses
from netmail_nmap.adapters.device_passwords import DevicePasswords
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.directory_store import SqlDirectoryStore
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.adapters.htpasswd import PasswordFileSource
from netmail_nmap.adapters.postgresql import open_postgresql
from netmail_nmap.adapters.sql import Store, open_store
from netmail_nmap.domain.credentials import HashParameters
from netmail_nmap.domain.recipients import DirectorySettings

from tests.nmap.databases import database

DEVICE_KEY = b"d" * 32
CHEAP = HashParameters(time_cost=1, memory_kib=8)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, to be copied: migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "store.db"

    async def make() -> None:
        async with open_store(f"sqlite:///{path}", readers=1):
            pass

    with asyncio.Runner() as runner:
        runner.run(make())
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
async def store(
    request: pytest.FixtureRequest, migrated: Path, tmp_path: Path
) -> AsyncIterator[Store]:
    if request.param == "postgresql":
        async with (
            database() as place,
            open_postgresql(place, readers=1, writers=2) as opened,
        ):
            yield opened
        return
    shutil.copy(migrated, tmp_path / "store.db")
    async with open_store(f"sqlite:///{tmp_path}/store.db", readers=1) as opened:
        yield opened


@pytest.fixture
async def hasher() -> AsyncIterator[PasswordHasher]:
    made = PasswordHasher(CHEAP, concurrency=1, queue=8)
    yield made
    await made.close()


@pytest.fixture
def directory_with(store: Store) -> Callable[..., UserDirectory]:
    """Makes a directory: settings to replace, password files by context."""

    def make(
        *,
        files: dict[str, PasswordFileSource] | None = None,
        default_quota: int = 0,
        catch_all: str | None = None,
        postmaster: str | None = None,
        separator: str = "+",
    ) -> UserDirectory:
        settings = DirectorySettings(
            server="mail1",
            contexts=("users.demo", "staff.demo"),
            domains=("example.org", "example.com"),
            catch_all=parse_mail_address(catch_all) if catch_all else None,
            postmaster=parse_mail_address(postmaster) if postmaster else None,
            separator=separator,
            other_domains=frozenset({"branch.example.org"}),
        )
        return UserDirectory(settings, SqlDirectoryStore(store.core), files or {}, default_quota)

    return make


@pytest.fixture
def directory(directory_with: Callable[..., UserDirectory]) -> UserDirectory:
    return directory_with()


@pytest.fixture
def users(directory: UserDirectory, hasher: PasswordHasher) -> UserAdministration:
    return UserAdministration(directory, hasher)


@pytest.fixture
def devices(directory: UserDirectory) -> DevicePasswords:
    return DevicePasswords(DEVICE_KEY, DeviceUses(directory.store))
