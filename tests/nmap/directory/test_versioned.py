"""What is remembered of the directory holds only while it does not change."""

from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.domain.delivery import Expansion
from netmail_nmap.domain.versioned import VersionedCache


class Version:
    """A version that a test sets."""

    now: int | None = 1

    def __call__(self) -> int | None:
        return self.now


def test_a_value_holds_until_the_version_changes() -> None:
    version = Version()
    cache: VersionedCache[str] = VersionedCache(version)
    cache.put("a", "x", cache.version())
    assert cache.get("a") == "x"
    version.now = 2
    assert cache.get("a") is None
    cache.put("b", "y", cache.version())
    assert (cache.get("a"), cache.get("b")) == (None, "y")


def test_what_was_read_before_a_change_is_not_remembered() -> None:
    version = Version()
    cache: VersionedCache[str] = VersionedCache(version)
    before = cache.version()
    version.now = 2
    cache.put("a", "old", before)
    assert cache.get("a") is None


def test_nothing_is_remembered_where_others_change_it_unseen() -> None:
    version = Version()
    version.now = None
    cache: VersionedCache[str] = VersionedCache(version)
    cache.put("a", "x", cache.version())
    assert cache.get("a") is None


def test_the_cache_is_bounded() -> None:
    cache: VersionedCache[str] = VersionedCache(Version(), size=2)
    for key in "abc":
        cache.put(key, key, 1)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, None, "c")


async def test_every_change_of_users_is_seen_at_once(
    users: UserAdministration, directory: UserDirectory
) -> None:
    alice = await users.create("alice", "", "x")
    for _ in range(2):  # the second answer is remembered
        assert await directory.find_login("alice") == alice
        assert await directory.expand(["alice@example.org"]) == [Expansion(users=(alice.id,))]
        assert (await directory.resolve(["alice@example.org"], [5]))[0].user == alice
    changed = await users.set_forwarding("alice", "", ["al@example.net"], keep_copy=False)
    assert await directory.expand(["alice@example.org"]) == [Expansion(remote=("al@example.net",))]
    assert await directory.find_login("alice") == changed
    await users.set_quota("alice", "", 4)
    (resolved,) = await directory.resolve(["alice@example.org"], [5])
    assert resolved.outcome.name == "LOCAL"  # forwarded, so the quota does not matter
    await users.set_forwarding("alice", "", [], keep_copy=False)
    (resolved,) = await directory.resolve(["alice@example.org"], [5])
    assert resolved.outcome.name == "MAILBOX_FULL"
    await users.delete("alice", "")
    assert await directory.find_login("alice") is None
    assert await directory.expand(["alice@example.org"]) == [Expansion()]
