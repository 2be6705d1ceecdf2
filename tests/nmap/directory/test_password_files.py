"""Contexts that are kept in htpasswd files."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import bcrypt
import passlib.hash
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.config import ConfigError
from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.adapters.htpasswd import PasswordFileSource
from netmail_nmap.adapters.sql import Store
from netmail_nmap.domain.credentials import is_known_hash, verify_password
from netmail_nmap.domain.delivery import Expansion
from netmail_nmap.domain.directory_errors import BackendReadOnly
from netmail_nmap.domain.errors import UserNotFound
from netmail_nmap.domain.password_file import parse_password_file

SHA = "{SHA}" + "W6ph5Mm5Pz8GgiULbPgzG37mj9g="  # "password"
HASHES = {
    "bcrypt": bcrypt.hashpw(b"wonderland", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
    "apr1": passlib.hash.apr_md5_crypt.hash("wonderland"),
    "sha": passlib.hash.ldap_sha1.hash("wonderland"),
    "sha256": passlib.hash.sha256_crypt.using(rounds=1000).hash("wonderland"),
    "sha512": passlib.hash.sha512_crypt.using(rounds=1000).hash("wonderland"),
}


@pytest.mark.parametrize("scheme", HASHES)
def test_the_usual_schemes_are_verified(scheme: str) -> None:
    assert is_known_hash(HASHES[scheme])
    assert verify_password(HASHES[scheme], "wonderland")
    assert not verify_password(HASHES[scheme], "Wonderland")
    assert not verify_password(HASHES[scheme], "")


@pytest.mark.parametrize(
    "stored",
    [
        "$apr1$mZ0MdfNk$NzcJ059GqEhUGbjUIs21b0",
        "$5$abcdefgh$v5FpjMljOAWlLx5fREBx9meM4WbUoriKAkzXNpPtmy9",
        (
            "$6$abcdefgh$e1o..VsKRS0O4M9J1Qb9u.strxNEAfDkCXcaYc5TsDrJFctQ"
            "CTMkPeis45vy3ZQtqt4dqG4vXTonFJKbQgR2Q1"
        ),
    ],
)
def test_what_openssl_passwd_wrote_is_verified(stored: str) -> None:
    assert verify_password(stored, "wonderland")
    assert not verify_password(stored, "wonderlanD")


def test_the_sha_of_the_word_password() -> None:
    assert verify_password(SHA, "password")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "*",
        "!",
        "$apr1$x",
        "$2y$10$short",
        "{SHA}x",
        "{SSHA}abcd",
        "$6$a$b",
        "$1$a$b",
        "$argon2id$v=19$m=8",
    ],
)
def test_a_hash_of_no_known_scheme_fits_nothing(text: str) -> None:
    assert not is_known_hash(text)
    assert not verify_password(text, text)


def test_bcrypt_looks_at_72_octets_as_htpasswd_does() -> None:
    long = "x" * 100
    stored = bcrypt.hashpw(long[:72].encode(), bcrypt.gensalt(4)).decode()
    assert verify_password(stored, long)


def test_a_broken_line_is_named_and_the_others_are_used() -> None:
    data = (
        f"# people\n\nalice:{SHA}\r\nno colon\nbob:plaintext\n\xff:{SHA}\n:{SHA}\n"
        f"a\x01b:{SHA}\nALICE:{SHA}\ncarol:{SHA}:extra field\n"
    ).encode("latin-1")
    content = parse_password_file(data, is_known_hash)
    assert [user.name for user in content.users.values()] == ["alice", "carol"]
    assert [(bad.number, bad.fault) for bad in content.bad_lines] == [
        (4, "no colon"),
        (5, "unknown hash scheme"),
        (6, "not UTF-8"),
        (7, "a user name is not empty"),
        (8, "a user name has no control characters"),
        (9, "the name is there already"),
    ]
    assert "plaintext" not in repr(content.bad_lines)


@given(st.binary(max_size=200))
def test_any_octets_are_a_file(data: bytes) -> None:
    content = parse_password_file(data, bool)
    assert len(content.users) + len(content.bad_lines) <= data.count(b"\n") + 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "staff.htpasswd"
    path.write_text(f"dave:{HASHES['sha']}\nerin:{HASHES['bcrypt']}\n", encoding="utf-8")
    return path


@pytest.fixture
async def source(path: Path) -> PasswordFileSource:
    made = PasswordFileSource("staff.demo", path)
    await made.load()
    return made


@pytest.fixture
def directory(
    directory_with: Callable[..., UserDirectory], source: PasswordFileSource
) -> UserDirectory:
    return directory_with(files={"staff.demo": source}, default_quota=5000)


async def test_a_listed_user_logs_in_and_gets_mail(
    directory: UserDirectory, users: UserAdministration, store: Store
) -> None:
    await users.create("alice", "users.demo", "x")
    dave = await directory.find_login("Dave")
    assert dave is not None
    assert (dave.context, dave.id) == ("staff.demo", 0)
    assert await directory.find_login("dave@example.com") == dave
    stored = await directory.ensure_stored(dave)
    assert stored.id
    assert stored.addresses == ("dave@example.org", "dave@example.com")
    assert stored.quota_bytes == 5000
    assert await directory.ensure_stored(dave) == stored
    assert await directory.expand(["DAVE+x@example.org"]) == [Expansion(users=(stored.id,))]
    assert await store.mail.list_mailboxes(stored.id)


async def test_mail_for_a_user_who_never_logged_in_makes_his_mailbox(
    directory: UserDirectory,
) -> None:
    (resolved,) = await directory.resolve(["erin@example.org"], [0])
    assert resolved.user is not None
    assert resolved.user.id
    assert await directory.expand(["erin@example.com"]) == [Expansion(users=(resolved.user.id,))]


async def test_postmaster_may_be_the_first_listed_user(
    directory_with: Callable[..., UserDirectory], source: PasswordFileSource, hasher: PasswordHasher
) -> None:
    directory = directory_with(files={"staff.demo": source})
    (resolved,) = await directory.resolve(["postmaster@example.org"], [0])
    assert resolved.user is not None
    assert resolved.user.name == "dave"
    await UserAdministration(directory, hasher).set_disabled("dave", "", disabled=True)
    (resolved,) = await directory.resolve(["postmaster@example.org"], [0])
    assert resolved.user is not None
    assert resolved.user.name == "erin"


async def test_a_listed_name_may_be_an_address(
    directory_with: Callable[..., UserDirectory], path: Path
) -> None:
    path.write_text(f"Dave@Example.org:{SHA}\nzoe@elsewhere.example:{SHA}\n", encoding="utf-8")
    source = PasswordFileSource("staff.demo", path)
    await source.load()
    directory = directory_with(files={"staff.demo": source})
    dave = await directory.find_login("dave@example.org")
    assert dave is not None
    assert dave.addresses == ("Dave@example.org",)
    (resolved,) = await directory.resolve(["dave@example.org"], [0])
    assert resolved.user is not None
    zoe = await directory.find_login("zoe@elsewhere.example")
    assert zoe is not None
    assert (await directory.ensure_stored(zoe)).addresses == ()


async def test_an_address_of_a_listed_user_is_taken(
    directory: UserDirectory, hasher: PasswordHasher
) -> None:
    users = UserAdministration(directory, hasher)
    namesake = await users.create("dave", "users.demo", "x")
    assert namesake.addresses == ()
    (resolved,) = await directory.resolve(["dave@example.org"], [0])
    assert resolved.user is not None
    assert resolved.user.context == "staff.demo"


async def test_the_file_s_users_are_administered_only_where_the_file_says_nothing(
    directory: UserDirectory, hasher: PasswordHasher
) -> None:
    users = UserAdministration(directory, hasher)
    for refused in (
        users.create("frank", "staff.demo", "x"),
        users.set_password("dave", "", "x"),
        users.delete("dave", ""),
    ):
        with pytest.raises(BackendReadOnly):
            await refused
    dave = await users.add_address("dave", "", "director@example.org")
    assert dave.addresses[-1] == "director@example.org"
    assert (await users.set_disabled("dave", "", disabled=True)).disabled
    assert await directory.find_login("dave") is None
    with pytest.raises(UserNotFound):
        await users.get("nobody", "staff.demo")


async def test_all_users_are_listed_internal_ones_first(
    directory: UserDirectory, hasher: PasswordHasher
) -> None:
    await UserAdministration(directory, hasher).create("alice", "users.demo", "x")
    names: list[str] = []
    token = ""
    while True:
        page, token = await directory.list_users(("users.demo", "staff.demo"), token, 1)
        names += [user.name for user in page]
        if not token:
            break
    assert names == ["alice", "dave", "erin"]


async def test_a_changed_or_removed_line_revokes(
    directory: UserDirectory, source: PasswordFileSource, path: Path
) -> None:
    await directory.take_in_file(source)
    for name in ("dave", "erin"):
        user = await directory.find_login(name)
        assert user is not None
        await directory.ensure_stored(user)
    await directory.take_in_file(source)
    assert await directory.store.pending_revocations(10) == []
    path.write_text(f"dave:{SHA}\n", encoding="utf-8")
    await source.load()
    await directory.take_in_file(source)
    pending = await directory.store.pending_revocations(10)
    assert sorted(p.name for p in pending) == ["dave", "erin"]
    assert await directory.find_login("erin") is None
    assert (await directory.resolve(["erin@example.org"], [0]))[0].user is None
    dave = await directory.find_login("dave")
    assert dave is not None
    assert dave.credentials.password_hash == SHA
    await directory.take_in_file(source)
    assert len(await directory.store.pending_revocations(10)) == 2


async def test_a_file_is_read_again_when_it_changes_and_kept_when_it_goes(
    source: PasswordFileSource, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netmail_nmap.adapters.htpasswd._POLL_SECONDS", 0.005)
    changes: asyncio.Queue[set[str]] = asyncio.Queue()

    async def changed(what: PasswordFileSource) -> None:
        await changes.put(set(what.current.users))

    watcher = asyncio.create_task(source.watch(changed))
    try:
        replacement = path.with_suffix(".new")
        replacement.write_text(f"frank:{SHA}\n", encoding="utf-8")
        os.replace(replacement, path)  # noqa: PTH105 - as editors do
        assert await asyncio.wait_for(changes.get(), 5) == {"frank"}
        path.unlink()
        await asyncio.sleep(0.05)
        assert set(source.current.users) == {"frank"}
        path.write_text(f"grace:{SHA}\n", encoding="utf-8")
        assert await asyncio.wait_for(changes.get(), 5) == {"grace"}
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"staff\.demo"):
        await PasswordFileSource("staff.demo", tmp_path / "none").load()
