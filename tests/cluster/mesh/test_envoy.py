"""What a real Envoy, set up as Istio does, says of a caller, and what an agent makes of it.

It needs no cluster, only the proxy that the cluster's Istio was built with.
"""

import asyncio
import contextlib
import http.client
import json
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc
from netmail_common.certificates import LocalAuthority
from netmail_common.config import MeshConfig
from netmail_common.grpc_errors import error_reason
from netmail_common.grpc_interceptor import peer_role
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health
from netmail_common.mesh import MeshIdentity
from netmail_common.roles import Role

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

CACHE = Path(os.environ.get("NETMAIL_CLUSTER_CACHE", "~/.cache/netmail-cluster")).expanduser()
ACCOUNT = "spiffe://cluster.local/ns/netmail/sa/netmail-{}"
IDENTITIES = {Role.ADMIN: [ACCOUNT.format("cli")], Role.SMTP: [ACCOUNT.format("smtp")]}
HEADER = "x-forwarded-client-cert"


@pytest.fixture(scope="module")
def envoy() -> Path:
    """The proxy's program."""
    found = sorted(CACHE.glob("istio-*/envoy"))
    if not found:
        pytest.skip("needs the cluster's add-on istio to be built")
    return found[-1]


class Servicer(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    async def ListLogins(self, request: Any, context: Any) -> connmgr_pb2.ListLoginsResponse:  # noqa: N802
        return connmgr_pb2.ListLoginsResponse(next_page_token=peer_role().value)


@contextlib.asynccontextmanager
async def agent() -> AsyncIterator[int]:
    """An agent that leaves its security to the mesh."""

    def register(target: grpc.aio.Server) -> None:
        connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(
            Servicer(),  # type: ignore[abstract] # it serves one method
            target,
        )

    config = MeshConfig(proxy="istio", identities=IDENTITIES)
    async with grpc_server(
        listen=["127.0.0.1:0"],
        identity=MeshIdentity(Role.CONNMGR, config),
        role=Role.CONNMGR,
        installation="netmail",
        register=register,
        health=Health(),
        service_names=["netmail.connmgr.v1.ConnectionManagerService"],
        drain_timeout=1,
    ) as bound:
        yield bound.ports[0]


class Authority:
    """The mesh's CA: certificates as workloads of Istio have them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = LocalAuthority.open_or_create(folder / "ca", "cluster.local")
        (folder / "ca.pem").write_bytes(self._authority.certificate_pem)

    def issue(self, account: str, names: Sequence[x509.GeneralName] = ()) -> tuple[Path, Path]:
        """Certificate and key of a service account."""
        paths = self._folder / f"{account}.pem", self._folder / f"{account}.key"
        uri = x509.UniformResourceIdentifier(ACCOUNT.format(account))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        self._authority._issue(account, [uri, *names], usages, paths)
        return paths


def inbound(name: str, tls: dict[str, Any] | None) -> dict[str, Any]:
    """A listener with what Istio's inbound one has, in front of the agent."""
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "agent",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "agent"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    chain: dict[str, Any] = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if tls is not None:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [chain],
    }


def proxy_config(agent_port: int, authority: Authority, folder: Path) -> dict[str, Any]:
    """Two ways in: mutual TLS, and plain text as in a permissive mesh."""
    certificate, key = authority.issue("connmgr")
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
        ".DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": str(certificate)},
                    "private_key": {"filename": str(key)},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": str(folder / "ca.pem")}},
        },
    }
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [inbound("mutual", tls), inbound("plain", None)],
            "clusters": [
                {
                    "name": "agent",
                    "type": "STATIC",
                    "upstream_bind_config": {
                        "source_address": {"address": "127.0.0.6", "port_value": 0}
                    },
                    "typed_extension_protocol_options": {
                        options: {
                            "@type": f"type.googleapis.com/{options}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "agent",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {
                                        "endpoint": {
                                            "address": {
                                                "socket_address": {
                                                    "address": "127.0.0.1",
                                                    "port_value": agent_port,
                                                }
                                            }
                                        }
                                    }
                                ]
                            }
                        ],
                    },
                }
            ],
        },
    }


@dataclass(slots=True)
class Proxied:
    """An agent behind its proxy."""

    authority: Authority
    folder: Path
    ports: dict[str, int]

    async def ask(
        self, account: str, *headers: tuple[str, str], names: Sequence[x509.GeneralName] = ()
    ) -> str:
        """Asks by mutual TLS as a service account; the role that the agent saw."""
        certificate, key = self.authority.issue(account, names)
        credentials = grpc.ssl_channel_credentials(
            (self.folder / "ca.pem").read_bytes(), key.read_bytes(), certificate.read_bytes()
        )
        options = [("grpc.ssl_target_name_override", "connmgr")]
        target = f"127.0.0.1:{self.ports['mutual']}"
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            return await _list_logins(channel, headers)

    async def ask_plainly(self, *headers: tuple[str, str]) -> str:
        """The same in plain text."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.ports['plain']}") as channel:
            return await _list_logins(channel, headers)


async def _list_logins(channel: grpc.aio.Channel, headers: Sequence[tuple[str, str]]) -> str:
    stub = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel)
    request = connmgr_pb2.ListLoginsRequest()
    answer = await stub.ListLogins(request, metadata=headers, timeout=60)
    return answer.next_page_token


@contextlib.asynccontextmanager
async def behind_its_proxy(envoy: Path, folder: Path) -> AsyncIterator[Proxied]:
    """Starts both."""
    authority = Authority(folder)
    async with agent() as port:
        config, admin = folder / "envoy.json", folder / "admin"
        config.write_text(json.dumps(proxy_config(port, authority, folder)), encoding="utf-8")
        with (folder / "envoy.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                envoy, "-c", config, "--admin-address-path", admin,
                "--concurrency", "1", "--disable-hot-restart", stdout=log, stderr=log,
            )  # fmt: skip
        try:
            yield Proxied(authority, folder, await _ports(admin))
        finally:
            process.terminate()
            await process.wait()


async def _ports(admin: Path) -> dict[str, int]:
    """The listeners' ports, as the proxy's administration lists them."""
    async with asyncio.timeout(120):
        while True:
            await asyncio.sleep(0.1)
            with contextlib.suppress(OSError, ValueError):
                address = admin.read_text(encoding="utf-8")
                text = await asyncio.to_thread(_get, address, "/listeners?format=json")
                statuses = json.loads(text).get("listener_statuses", [])
                if len(statuses) == 2:
                    return {
                        one["name"]: one["local_address"]["socket_address"]["port_value"]
                        for one in statuses
                    }


def _get(address: str, path: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def denied(call: Any) -> None:
    """The agent refuses it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert error_reason(caught.value) == "ROLE_NOT_ALLOWED"


async def test_an_agent_believes_what_its_proxy_proved_and_nothing_else(
    envoy: Path, tmp_path: Path
) -> None:
    claim = (HEADER, f'By=x;Hash=00;Subject="";URI={ACCOUNT.format("cli")}')
    open_quote = (HEADER, 'By=x;Hash=00;Subject="')
    async with behind_its_proxy(envoy, tmp_path) as proxied:
        assert await proxied.ask("cli") == "admin"
        more = [x509.DNSName("a.example"), x509.DNSName("b.example")]
        assert await proxied.ask("cli", names=more) == "admin"
        await denied(proxied.ask("smtp"))
        await denied(proxied.ask("stranger"))
        for header in (claim, open_quote):
            await denied(proxied.ask("smtp", header))
            await denied(proxied.ask("smtp", header, header))
            # Not even who may: nobody of ours sends such a header.
            await denied(proxied.ask("cli", header))
            await denied(proxied.ask_plainly(header))
        await denied(proxied.ask_plainly())
