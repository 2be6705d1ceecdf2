"""The access hash and the handshake."""

import hashlib

import pytest
from netmail_connmgr.protocol.legacy_udp import (
    CredentialError,
    Handshake,
    access_hash,
    parse_access_hash,
    tree_of,
)

from tests.connmgr.legacy_udp.vectors import (
    ACCESS_HASH,
    AGENT,
    CREDENTIAL,
    NOW,
    PASSWORD,
    SALT,
    TREE,
)

OTHER_AGENT = bytes([198, 51, 100, 8])


def test_the_access_hash_is_eight_md5_each_over_those_before() -> None:
    assert access_hash(CREDENTIAL.encode(), TREE.encode()) == ACCESS_HASH
    assert access_hash(CREDENTIAL.encode() + b"!\n", TREE.encode()) == ACCESS_HASH
    first = hashlib.md5(CREDENTIAL[:512].encode() + b"\\Tree", usedforsecurity=False).digest()
    assert ACCESS_HASH[:16] == first


def test_the_variant_without_the_backslash_is_another_hash() -> None:
    short = tree_of("\\" + "T" * 120, without_backslash=True)
    assert short == b"T" * 100
    assert access_hash(CREDENTIAL.encode(), short).hex().startswith("4610f92e721d4cbd7d7cf97679d6")
    whole = tree_of("\\" + "T" * 120, without_backslash=False)
    assert access_hash(CREDENTIAL.encode(), whole).hex().startswith("df9c1eb722c23269928ee74c3cad")
    plain = access_hash(CREDENTIAL.encode(), tree_of(TREE, without_backslash=True))
    assert plain.hex().startswith("f051b231b8766e634c96e83cf12ee181")


@pytest.mark.parametrize("name", ["\\Tree", "\\Tree\\", "\\Tree\\Org\\Server"])
def test_the_tree_ends_before_the_second_backslash(name: str) -> None:
    assert tree_of(name, without_backslash=False) == b"\\Tree"
    assert tree_of(name, without_backslash=True) == b"Tree"


@pytest.mark.parametrize("name", ["", "Tree", "\\", "\\\\Tree", "Tree\\Org", "O\\Tree\\Server"])
def test_a_tree_that_gave_a_hash_of_zeros_is_refused(name: str) -> None:
    for without in (False, True):
        with pytest.raises(CredentialError, match="backslash"):
            tree_of(name, without_backslash=without)


@pytest.mark.parametrize(
    ("credential", "why"),
    [
        (b"", "shorter"),
        (CREDENTIAL[:4095].encode(), "shorter"),
        (CREDENTIAL[:2048].encode() + b"\n" + CREDENTIAL[2048:].encode(), "characters"),
        (b"\xef\xbb\xbf" + CREDENTIAL.encode(), "characters"),
        (CREDENTIAL[:4095].encode() + b"\0", "characters"),
    ],
)
def test_a_credential_that_is_none_is_refused_without_repeating_it(
    credential: bytes, why: str
) -> None:
    with pytest.raises(CredentialError, match=why) as error:
        access_hash(credential, b"\\Tree")
    assert CREDENTIAL[:10] not in str(error.value)


def test_the_hash_itself_is_read_in_hex() -> None:
    assert parse_access_hash(f" {ACCESS_HASH.hex().upper()}\n") == ACCESS_HASH


@pytest.mark.parametrize(
    "text", ["", ACCESS_HASH.hex()[:-1], ACCESS_HASH.hex() + "00", "g" * 256, "00" * 128]
)
def test_a_file_that_holds_no_hash_is_refused(text: str) -> None:
    with pytest.raises(CredentialError):
        parse_access_hash(text)


def test_the_salt_is_the_same_in_every_process_and_another_for_every_address() -> None:
    one, other = Handshake(ACCESS_HASH), Handshake(ACCESS_HASH)
    assert one.salt(AGENT, NOW) == other.salt(AGENT, NOW) == SALT
    assert one.salt(OTHER_AGENT, NOW) != SALT
    assert Handshake(bytes(127) + b"\1").salt(AGENT, NOW) != SALT


def test_a_password_is_good_for_its_slot_and_the_next_from_its_own_address() -> None:
    handshake = Handshake(ACCESS_HASH)
    start = NOW // 300 * 300
    assert handshake.accepts(AGENT, PASSWORD, start)
    assert handshake.accepts(AGENT, PASSWORD.upper(), start + 299.9)
    assert handshake.accepts(AGENT, PASSWORD, start + 599.9)
    for source, password, now in (
        (AGENT, PASSWORD, start + 600),
        (AGENT, PASSWORD, start - 0.1),
        (OTHER_AGENT, PASSWORD, start),
        (AGENT, b"", start),
        (AGENT, bytes(32), start),
        (AGENT, SALT, start),
        (AGENT, b"0" + PASSWORD[1:], start),
        (AGENT, b"\xff" * 32, start),
    ):
        assert not handshake.accepts(source, password, now)
