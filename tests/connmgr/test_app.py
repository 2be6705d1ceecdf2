"""The Connection Manager as a process of its own."""

import asyncio
import contextlib
import signal
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import ConfigError, Installation, parse_config
from netmail_common.connmgr import UserKey, WatchMode
from netmail_common.own_addresses import own_addresses
from netmail_common.roles import Role
from netmail_connmgr.app.manager import connection_manager

from tests.connmgr.conftest import IdentityFor, check, login
from tests.connmgr.one_manager import (
    client_of,
    listening_port,
    manager_config,
    manager_process,
)


def installation(certificates: Path, **manager: Any) -> Installation:
    return parse_config(manager_config(certificates, **manager))


async def test_it_serves_by_its_configuration_and_counts(
    certificates: Path, identity_for: IdentityFor
) -> None:
    settings = installation(certificates, login_lifetime="5m", loopback_grants=True)
    loopback = b"\x7f\x00\x00\x09"
    async with connection_manager(settings, "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        result = await client.register_one(login(address=loopback))
        assert result.remaining_seconds in {299, 300}
        decision = await client.check_sender(check("alice@example.org", address=loopback))
        assert decision.decision == pb.DECISION_ALLOWED
        async with aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{running.http_port}"
            async with session.get(f"{base}/healthz/ready") as response:
                assert response.status == 200
            async with session.get(f"{base}/metrics") as response:
                metrics = await response.text()
        await channel.close()
    assert 'netmail_connmgr_decisions_total{decision="allowed",reason="login"}' in metrics
    assert "netmail_connmgr_registrations_total{" in metrics
    assert "netmail_connmgr_logins 1.0" in metrics


async def test_a_revocation_outlives_the_process(
    certificates: Path, identity_for: IdentityFor
) -> None:
    data = manager_config(certificates, name="cm/1 \u00e4")
    data["messaging_servers"][0]["connection_manager"] = "cm/1 \u00e4"
    settings = parse_config(data)
    for age_ms, outcome in (
        (0, pb.REGISTER_OUTCOME_REGISTERED),
        (60_000, pb.REGISTER_OUTCOME_REVOKED),
    ):
        async with connection_manager(settings, "cm/1 \u00e4") as running:
            channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
            assert (await client.register_one(login(age_ms=age_ms))).outcome == outcome
            await client.revoke(user=UserKey("alice", "users.demo"))
            await channel.close()


async def test_without_a_place_for_the_journal_it_serves_and_says_so(
    tmp_path: Path, certificates: Path
) -> None:
    (tmp_path / "file").touch()
    settings = installation(certificates).model_copy(update={"state_dir": tmp_path / "file"})
    with structlog.testing.capture_logs() as lines:
        async with connection_manager(settings, "cm1"):
            pass
    assert "revocations are forgotten with the process" in [line["event"] for line in lines]


async def test_a_front_end_that_may_answer_nobody_stops_the_start(certificates: Path) -> None:
    settings = installation(certificates, legacy_udp={"listen": ["127.0.0.1:7689"]})
    with pytest.raises(ConfigError, match=r"legacy_udp\.listen needs legacy_udp\.allowed_sources"):
        async with connection_manager(settings, "cm1"):
            pass


async def test_a_name_that_nobody_has_and_a_bad_prefix_are_configuration_errors(
    certificates: Path,
) -> None:
    with pytest.raises(ConfigError, match="cm2"):
        async with connection_manager(installation(certificates), "cm2"):
            pass
    for prefix in ("2001:db8::/44", "192.0.2.0/24"):
        with pytest.raises(ConfigError, match=r"nat64_prefixes.*RFC 6052"):
            installation(certificates, nat64_prefixes=[prefix])


async def test_proxies_of_its_listeners_and_its_own_addresses_never_grant(
    certificates: Path, identity_for: IdentityFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, proxy, client_of_proxy = (ip_address(f"192.0.2.{n}") for n in (2, 130, 1))
    monkeypatch.setattr("netmail_connmgr.app.addresses.own_addresses", lambda: frozenset({own}))
    data = manager_config(certificates)
    data["messaging_servers"][0]["pop_imap"] = {
        "listeners": [
            {
                "name": "pop3",
                "protocol": "pop3",
                "listen": ["127.0.0.1:0"],
                "proxy_protocol": True,
                "proxy_trusted_networks": ["192.0.2.128/25"],
            }
        ]
    }
    async with connection_manager(parse_config(data), "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        for address, grants in ((own, False), (proxy, False), (client_of_proxy, True)):
            await client.register_one(login(address=address.packed))
            decision = await client.check_sender(check(address=address.packed))
            assert (decision.decision == pb.DECISION_ALLOWED) is grants
        await channel.close()


async def test_addresses_that_come_and_go_are_followed(
    certificates: Path, identity_for: IdentityFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = ip_address("192.0.2.1")
    own: set[object] = {ip_address("192.0.2.2")}
    monkeypatch.setattr("netmail_connmgr.app.addresses.own_addresses", lambda: frozenset(own))
    monkeypatch.setattr("netmail_connmgr.app.addresses._EVERY", 0.01)
    async with connection_manager(installation(certificates), "cm1") as running:
        channel, client = client_of(running.ports[0], identity_for(Role.ADMIN))
        await client.register_one(login())
        question = check(address=address.packed)
        assert (await client.check_sender(question)).decision == pb.DECISION_ALLOWED
        own.add(address)
        async with asyncio.timeout(10):
            while (await client.check_sender(question)).decision == pb.DECISION_ALLOWED:
                pass
        assert (await client.check_sender(question)).reason == pb.REASON_SHARED_NETWORK
        await channel.close()


def test_the_kernel_lists_our_own_addresses_but_loopback_and_link_local() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("198.51.100.1", 9))  # sends nothing
        used = ip_address(probe.getsockname()[0])
    found = own_addresses()
    assert not any(one.is_loopback or one.is_link_local for one in found)
    assert used in found or used.is_unspecified or used.is_loopback


async def test_the_command_serves_until_sigterm_with_watchers_connected(
    tmp_path: Path, certificates: Path, identity_for: IdentityFor
) -> None:
    settings = manager_config(certificates, http={})
    async with manager_process(settings, tmp_path, stderr=asyncio.subprocess.PIPE) as process:
        channel, client = client_of(listening_port(process.pid), identity_for(Role.POP_IMAP))
        events = client.watch(WatchMode.REVOCATIONS)
        async with asyncio.timeout(15):
            await anext(events)
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0, errors
        assert b"Traceback" not in errors
        await events.aclose()
        await channel.close()
