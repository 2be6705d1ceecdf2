"""grpc.security mesh: callers are whom the proxy names, and only what comes through it counts."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc
from netmail_common.config import ConfigError, GrpcConfig, Installation, MeshConfig, parse_config
from netmail_common.grpc_client import Channel
from netmail_common.grpc_interceptor import peer_role
from netmail_common.grpc_security import agent_identity
from netmail_common.grpc_server import BoundServer, error_reason, grpc_server
from netmail_common.http_server import Health, http_server
from netmail_common.mesh import MeshIdentity, require_proxy
from netmail_common.own_addresses import own_addresses
from netmail_common.roles import Role
from pydantic import ValidationError

from tests.common.test_config import installation

SERVICE = "netmail.connmgr.v1.ConnectionManagerService"
ADMIN = "spiffe://cluster.local/ns/netmail/sa/netmail-cli"
SMTP = "spiffe://cluster.local/ns/netmail/sa/netmail-smtp"
OTHER = "spiffe://cluster.local/ns/other/sa/netmail-cli"
IDENTITIES = {Role.ADMIN: [ADMIN], Role.SMTP: [SMTP]}
ISTIO = MeshConfig(proxy="istio", identities=IDENTITIES)
PROXY = "ipv4:127.0.0.6:40000"
HEADER = "x-forwarded-client-cert"


def forwarded(uri: str = ADMIN, subject: str = "", dns: str = "") -> str:
    """What Envoy writes."""
    own = "spiffe://cluster.local/ns/netmail/sa/netmail-connmgr"
    return f'By={own};Hash={"0a" * 32};Subject="{subject}";URI={uri}{dns}'


def callers(header: str, peer: str = PROXY) -> tuple[bytes, ...]:
    return MeshIdentity(Role.CONNMGR, ISTIO).callers(peer, [("a", "b"), (HEADER, header)])


class Servicer(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    async def ListLogins(self, request: Any, context: Any) -> connmgr_pb2.ListLoginsResponse:  # noqa: N802
        return connmgr_pb2.ListLoginsResponse(next_page_token=peer_role().value)


@contextlib.asynccontextmanager
async def serving(listen: str = "127.0.0.1:0") -> AsyncIterator[BoundServer]:
    def register(target: grpc.aio.Server) -> None:
        connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(
            Servicer(),  # type: ignore[abstract] # it serves one method
            target,
        )

    async with grpc_server(
        listen=[listen],
        identity=MeshIdentity(Role.CONNMGR, ISTIO),
        role=Role.CONNMGR,
        installation="netmail",
        register=register,
        health=Health(),
        service_names=[SERVICE],
        drain_timeout=1,
    ) as bound:
        yield bound


async def ask(target: str, *headers: tuple[str, str]) -> str:
    identity = MeshIdentity(Role.ADMIN, ISTIO)
    channel = Channel(target, identity, installation="netmail", expected_role=Role.CONNMGR)
    try:
        stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
        request = connmgr_pb2.ListLoginsRequest()
        answer = await stub.ListLogins(request, metadata=headers, timeout=20)
    finally:
        await channel.close()
    return answer.next_page_token


async def test_whom_the_proxy_names_is_served_by_his_role() -> None:
    async with serving() as bound:
        target = f"127.0.0.1:{bound.ports[0]}"
        assert await ask(target, (HEADER, forwarded(ADMIN))) == "admin"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(HEADER, forwarded(SMTP))],
        [(HEADER, forwarded(OTHER))],
        [(HEADER, forwarded(ADMIN)), (HEADER, forwarded(ADMIN))],
        [("l5d-client-id", ADMIN)],
    ],
    ids=["nobody", "another role", "another namespace", "twice", "another mesh's header"],
)
async def test_whom_it_does_not_name_or_names_otherwise_is_denied(
    headers: list[tuple[str, str]],
) -> None:
    async with serving() as bound:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(f"127.0.0.1:{bound.ports[0]}", *headers)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error_reason(caught.value) == "ROLE_NOT_ALLOWED"


async def test_what_comes_past_the_proxy_is_denied_whatever_it_says() -> None:
    outside = next(iter(one for one in own_addresses() if one.version == 4))
    async with serving("0.0.0.0:0") as bound:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(f"{outside}:{bound.ports[0]}", (HEADER, forwarded(ADMIN)))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "header",
    [
        forwarded(),
        forwarded(subject="CN=a,O=b;c"),
        forwarded(subject=r"a\"b"),
        forwarded(dns=";DNS=a.example;DNS=b.example"),
    ],
)
def test_the_proxys_one_element_is_read(header: str) -> None:
    assert callers(header) == (ADMIN.encode(),)


@pytest.mark.parametrize(
    "header",
    [
        "",
        ADMIN,
        f"URI={ADMIN}",
        f"{forwarded(ADMIN)},{forwarded(SMTP)}",
        f"{forwarded(SMTP)},{forwarded(ADMIN)}",
        f'By=x;Hash=00;Subject="",URI={ADMIN};{forwarded(SMTP)}',
        f'By=x;Hash=00;Subject="{forwarded(SMTP)}',
        f"{forwarded(SMTP)};URI={ADMIN}",
        forwarded(subject=f'";URI={ADMIN};Subject="'),
        f"{forwarded(ADMIN)}\n",
        forwarded("a;b"),
        forwarded("a,b"),
    ],
)
def test_anything_else_names_nobody(header: str) -> None:
    assert callers(header) == ()


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:10.244.1.7:40000",
        "ipv6:%5B2001:db8::6%5D:40000",
        "ipv6:%5B::ffff:10.244.1.7%5D:40000",
        "ipv6:%5B::7%5D:40000",
        "unix:/tmp/127.0.0.1",
        "unix:127.0.0.1:1",
        "127.0.0.1:1",
        "",
    ],
)
def test_only_the_proxy_in_the_pod_is_believed(peer: str) -> None:
    assert callers(forwarded(), peer) == ()


@pytest.mark.parametrize(
    "peer",
    ["ipv6:%5B::1%5D:1", "ipv6:[::6]:1", "ipv6:%5B::ffff:127.0.0.6%5D:1", "ipv4:127.0.0.1:1"],
)
def test_it_is_known_by_its_address_in_every_spelling(peer: str) -> None:
    assert callers(forwarded(), peer) == (ADMIN.encode(),)


def test_linkerds_proxy_comes_from_the_pods_own_address_and_names_the_client() -> None:
    name = "netmail-cli.netmail.serviceaccount.identity.linkerd.cluster.local"
    config = MeshConfig(proxy="linkerd", identities={Role.ADMIN: [name]})
    identity = MeshIdentity(Role.CONNMGR, config)
    own = next(iter(one for one in own_addresses() if one.version == 4))
    header = [("l5d-client-id", name)]
    assert identity.callers(f"ipv4:{own}:1", header) == (name.encode(),)
    assert identity.callers("ipv4:127.0.0.1:1", header) == (name.encode(),)
    assert identity.callers("ipv4:192.0.2.1:1", header) == ()
    assert identity.names_of(Role.ADMIN) == {name.encode()}


def test_an_identity_of_two_roles_stops_the_start() -> None:
    with pytest.raises(ValidationError, match="2 times"):
        MeshConfig(proxy="istio", identities={Role.ADMIN: [ADMIN], Role.SMTP: [ADMIN]})


@pytest.mark.parametrize(
    "grpc_section",
    [{"security": "mesh"}, {"mesh": {"proxy": "istio", "identities": {}}}, {"security": "none"}],
)
def test_mesh_without_a_mesh_and_no_security_at_all_stop_the_start(
    grpc_section: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        GrpcConfig.model_validate(grpc_section)


async def test_an_agent_starts_once_its_proxy_is_ready() -> None:
    health = Health()
    async with http_server("127.0.0.1:0", health) as port:
        config = ISTIO.model_copy(update={"proxy_address": f"127.0.0.1:{port}"})
        waiting = asyncio.create_task(asyncio.to_thread(require_proxy, config))
        done, _ = await asyncio.wait({waiting}, timeout=0.7)
        assert not done
        health.set_ready(True)
        await asyncio.wait_for(waiting, 20)


def test_an_agent_without_its_proxy_does_not_start() -> None:
    slept: list[float] = []
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        config = ISTIO.model_copy(update={"proxy_address": address})
        with pytest.raises(ConfigError, match="no proxy of istio is ready"):
            require_proxy(config, timeout=3, clock=lambda: sum(slept), sleep=slept.append)
    assert sum(slept) == 3


def meshed(address: str, **more: Any) -> Installation:
    data = installation()
    data["messaging_servers"][0]["nmap"]["address"] = address
    return parse_config({**data, **more})


def test_an_xds_target_needs_grpcs_bootstrap_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_XDS_BOOTSTRAP", raising=False)
    monkeypatch.delenv("GRPC_XDS_BOOTSTRAP_CONFIG", raising=False)
    target = "xds:///netmail-nmap.netmail.svc.cluster.local:7710"
    installed = meshed(target)
    assert installed.messaging_servers[0].nmap.target == target
    with pytest.raises(ConfigError, match="GRPC_XDS_BOOTSTRAP"):
        agent_identity(installed, Role.SMTP)


@pytest.mark.parametrize("address", ["xds:///netmail-nmap", "dns:///a:1", "xds://a/b:1"])
def test_other_targets_are_refused(address: str) -> None:
    with pytest.raises(ConfigError):
        meshed(address)
