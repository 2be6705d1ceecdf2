"""TLS of outgoing connections: opportunistic, required, implicit; injected plain text."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from netmail_common.certificates import LocalAuthority

from tests.smtp.deliver_support import (
    delivered,
    failure,
    outbound,
    pools_closed,  # noqa: F401 - closes what tests open
)
from tests.support.dns_server import Zone, dns_server
from tests.support.scripted_smtp import FULL_EHLO, Script, ScriptedHost, scripted_host

BOB = "bob@example.net"


@pytest.fixture(scope="session")
def tls_for(
    authority: LocalAuthority, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ssl.SSLContext]:
    def make(name: str) -> ssl.SSLContext:
        folder = tmp_path_factory.mktemp("host")
        authority.issue_server(name, folder / "cert.pem", folder / "key.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return context

    return make


@pytest.fixture(scope="session")
def ca_file(authority: LocalAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    path.write_bytes(authority.certificate_pem)
    return path


def route(host: ScriptedHost, tls: str, **more: object) -> dict[str, object]:
    return {"hosts": [f"localhost:{host.port}"], "tls": tls, **more}


async def test_starttls_is_used_where_it_is_offered_and_the_session_begins_again(
    tls_for: Callable[[str], ssl.SSLContext],
) -> None:
    async with scripted_host(Script(tls=tls_for("anything.test"))) as host:
        assert delivered(await outbound(host.port).send(BOB)) == {BOB}
        assert host.messages[0].tls
        assert host.verbs()[:4] == ["EHLO", "STARTTLS", "EHLO", "MAIL"]


async def test_extensions_from_before_starttls_are_void(
    tls_for: Callable[[str], ssl.SSLContext],
) -> None:
    script = Script(tls=tls_for("anything.test"))
    async with scripted_host(script) as host:
        out = outbound(host.port)
        await out.send(BOB)
        first = host.commands[3]
        assert "SIZE=" in first
        await out.pool.close()
        replies = iter(["250-mx.test\r\n250-SIZE 5\r\n250 STARTTLS", "250-mx.test\r\n250 8BITMIME"])
        script.replies["EHLO"] = [next(replies), next(replies)]
        assert delivered(await outbound(host.port).send(BOB)) == {BOB}
        assert "SIZE=" not in host.commands[-4]


@pytest.mark.parametrize("level", ["opportunistic", "required"])
async def test_plain_text_behind_the_reply_to_starttls_is_an_attack(
    tls_for: Callable[[str], ssl.SSLContext], level: str
) -> None:
    script = Script(tls=tls_for("localhost"), inject=b"250-mx.test\r\n250 AUTH PLAIN\r\n")
    async with scripted_host(script) as host:
        out = outbound(host.port, route=route(host, level))
        outcome = failure(await out.send(BOB), BOB)
        assert (outcome.retryable, outcome.status) == (True, "4.7.0")
        assert host.messages == []
        assert host.connections == 1, "it is not tried in plain text"


async def test_opportunistic_tls_falls_back_to_plain_text_and_remembers_it() -> None:
    broken = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # no certificate: every handshake fails
    async with scripted_host(Script(tls=broken)) as host:
        out = outbound(host.port, config={"messages_per_connection": 1})
        assert delivered(await out.send(BOB)) == {BOB}
        assert not host.messages[0].tls
        assert host.connections == 2
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 3
        out.clock.now += 301
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.connections == 5, "TLS is tried again later"


async def test_opportunistic_tls_goes_on_when_starttls_is_refused(
    tls_for: Callable[[str], ssl.SSLContext],
) -> None:
    script = Script(tls=tls_for("x.test"), replies={"STARTTLS": "454 4.7.0 not now"})
    async with scripted_host(script) as host:
        assert delivered(await outbound(host.port).send(BOB)) == {BOB}
        assert host.connections == 1


async def test_opportunistic_tls_to_an_address_literal(
    tls_for: Callable[[str], ssl.SSLContext],
) -> None:
    async with scripted_host(Script(tls=tls_for("x.test"))) as host:
        out = outbound(config={"smtp_port": host.port})
        assert delivered(await out.send("bob@[127.0.0.1]", domain="[127.0.0.1]"))
        assert host.messages[0].tls


async def test_required_tls_is_verified(
    tls_for: Callable[[str], ssl.SSLContext], ca_file: Path
) -> None:
    async with scripted_host(Script(tls=tls_for("localhost"))) as host:
        out = outbound(host.port, route=route(host, "required", ca_file=ca_file))
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.messages[0].tls
        unknown_ca = outbound(host.port, route=route(host, "required"))
        outcome = failure(await unknown_ca.send(BOB), BOB)
        assert (outcome.retryable, outcome.status) == (True, "4.7.5")
        assert "does not verify" in outcome.diagnostic


async def test_required_tls_refuses_another_hosts_certificate(
    tls_for: Callable[[str], ssl.SSLContext], ca_file: Path
) -> None:
    zone = Zone({("mx.test", "A"): ["127.0.0.1"]})
    async with dns_server(zone), scripted_host(Script(tls=tls_for("other.test"))) as host:
        hosts = {"hosts": [f"mx.test:{host.port}"], "tls": "required", "ca_file": ca_file}
        out = outbound(host.port, route=hosts, dns=zone.address)
        assert failure(await out.send(BOB), BOB).status == "4.7.5"
        assert host.messages == []


@pytest.mark.parametrize(
    "script",
    [
        Script(),
        Script(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)),
        Script(ehlo=[*FULL_EHLO, "STARTTLS"], replies={"STARTTLS": "454 4.7.0 no"}),
    ],
    ids=["not offered", "handshake fails", "refused"],
)
async def test_required_tls_never_falls_back(script: Script) -> None:
    async with scripted_host(script) as host:
        outcome = failure(await outbound(host.port, route={"tls": "required"}).send(BOB), BOB)
        assert outcome.retryable
        assert outcome.status in ("4.7.5", "4.7.10")
        assert host.messages == []
        assert "MAIL" not in host.verbs()


async def test_verified_opportunistic_tls_does_not_fall_back_either(
    tls_for: Callable[[str], ssl.SSLContext],
) -> None:
    async with scripted_host(Script(tls=tls_for("localhost"))) as host:
        out = outbound(host.port, config={"tls_verify": True}, route=route(host, "opportunistic"))
        assert failure(await out.send(BOB), BOB).status == "4.7.5"
        assert host.messages == []


async def test_implicit_tls_with_a_smarthosts_password(
    tls_for: Callable[[str], ssl.SSLContext], ca_file: Path, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    script = Script(tls=tls_for("localhost"), implicit_tls=True, ehlo=[*FULL_EHLO, "AUTH PLAIN"])
    async with scripted_host(script) as host:
        more = {"ca_file": ca_file, "username": "relay", "password_file": password}
        out = outbound(host.port, route=route(host, "implicit", **more))
        assert delivered(await out.send(BOB)) == {BOB}
        assert host.verbs()[:3] == ["EHLO", "AUTH", "MAIL"]
        password.unlink()
        await out.pool.close()
        assert failure(await out.send(BOB), BOB).status == "4.3.5"


async def test_implicit_tls_to_a_plain_host_is_a_deferral() -> None:
    async with scripted_host() as host:
        assert failure(
            await outbound(host.port, route={"tls": "implicit"}).send(BOB), BOB
        ).retryable


async def test_no_tls_where_the_route_says_so(tls_for: Callable[[str], ssl.SSLContext]) -> None:
    async with scripted_host(Script(tls=tls_for("x.test"))) as host:
        assert delivered(await outbound(host.port, route={"tls": "none"}).send(BOB)) == {BOB}
        assert "STARTTLS" not in host.verbs()
