"""UDP port 689 starts with a list of sources and a credential or `plain: true`, or not at all."""

from pathlib import Path
from typing import Any

import pytest
from netmail_common.config import ConfigError
from netmail_connmgr.adapters import legacy_udp

from tests.connmgr.legacy_udp.agents import agent
from tests.connmgr.legacy_udp.conftest import Serve, installation, setup_for
from tests.connmgr.legacy_udp.vectors import ACCESS_HASH, CREDENTIAL, TREE

SOURCES = {"allowed_sources": ["192.0.2.0/24"]}


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"plain": True}, "needs legacy_udp.allowed_sources"),
        (SOURCES, "needs access_hash_file, or credential_file and tree, or plain: true"),
        ({**SOURCES, "tree": TREE, "plain": True}, "credential_file and tree come together"),
        ({"allowed_sources": ["2001:db8::/32"], "plain": True}, "IPv4 only"),
        ({"allowed_sources": ["100.64.7.0/24"], "plain": True}, "overlaps the shared network"),
        ({"allowed_sources": ["0.0.0.0/0"], "plain": True}, "overlaps the shared network"),
        ({**SOURCES, "access_hash_file": "/nowhere/x"}, "access_hash_file: /nowhere/x: No such"),
        ({**SOURCES, "credential_file": "/nowhere/x", "tree": TREE}, "credential_file: /nowhere/x"),
        ({**SOURCES, "tree_without_backslash": True, "plain": True}, "needs tree"),
    ],
)
def test_what_is_missing_is_said(section: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"'cm1'.*legacy_udp.*{why}"):
        legacy_udp.prepare(setup_for(installation(**section)))


@pytest.mark.parametrize(
    ("key", "text", "why"),
    [
        ("credential_file", CREDENTIAL[:4000], "shorter than 4096"),
        ("credential_file", CREDENTIAL.replace("k", "-"), "other than a-z"),
        ("access_hash_file", "00" * 128, "all zeros"),
        ("access_hash_file", "\u00e4" * 256, "256 hex digits"),
        ("access_hash_file", "0" * 100_000, "256 hex digits"),
    ],
)
def test_a_file_that_is_not_usable_is_refused_without_repeating_it(
    tmp_path: Path, key: str, text: str, why: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(text, encoding="utf-8")
    section = {**SOURCES, key: str(file)}
    if key == "credential_file":
        section["tree"] = TREE
    with pytest.raises(ConfigError, match=rf"legacy_udp.{key}: .*{why}") as error:
        legacy_udp.prepare(setup_for(installation(**section)))
    assert text[:16] not in str(error.value)


@pytest.mark.parametrize("tree", ["Tree", "\\", "", "Tree\\Org"])
def test_a_tree_without_its_backslash_is_refused(credential: dict[str, Any], tree: str) -> None:
    with pytest.raises(ConfigError, match=r"legacy_udp\.tree"):
        legacy_udp.prepare(setup_for(installation(**SOURCES, **{**credential, "tree": tree})))


def test_a_credential_and_a_hash_are_one_too_many(
    credential: dict[str, Any], hash_file: Path
) -> None:
    section = {**SOURCES, **credential, "access_hash_file": str(hash_file)}
    with pytest.raises(ConfigError, match="not both"):
        legacy_udp.prepare(setup_for(installation(**section)))


@pytest.mark.parametrize("tree", [TREE, f"{TREE}\\Org\\Server"])
async def test_a_credential_and_its_tree_are_the_same_as_their_hash(
    serve: Serve, credential: dict[str, Any], tree: str
) -> None:
    settings = {**credential, "tree": tree, "access_hash_file": None}
    async with serve(**settings) as served, agent(served.port) as host:
        assert (await host.relay("192.0.2.1")).result == 1


async def test_the_other_variant_of_the_hash_is_another_secret(
    serve: Serve, credential: dict[str, Any]
) -> None:
    settings = {**credential, "access_hash_file": None, "tree_without_backslash": True}
    async with serve(**settings) as served, agent(served.port) as host:
        assert (await host.relay("192.0.2.1")).result == 4
        assert len(ACCESS_HASH) == 128


async def test_a_taken_port_stops_the_start(serve: Serve) -> None:
    async with serve() as served:
        settings = installation(
            listen=[f"127.0.0.1:{served.port}"], allowed_sources=["127.0.0.1/32"], plain=True
        )
        with pytest.raises(OSError, match="in use"):
            async with legacy_udp.prepare(setup_for(settings)):
                pass


def test_an_address_of_ipv6_stops_the_start() -> None:
    settings = installation(listen=["[::1]:0"], allowed_sources=["127.0.0.1/32"], plain=True)
    with pytest.raises(ConfigError, match=r"\[::1\]:0: UDP port 689 is IPv4 only"):
        legacy_udp.prepare(setup_for(settings))
