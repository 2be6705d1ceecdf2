"""gRPC between agents: mutual TLS, roles, errors, certificates that change."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc
from netmail_common.certificates import Identity, LocalAuthority
from netmail_common.grpc_client import CALL_TIMEOUT, Channel
from netmail_common.grpc_security import authority_options, security_of
from netmail_common.grpc_server import BoundServer, RpcError, error_reason, grpc_server, peer_role
from netmail_common.http_server import Health
from netmail_common.roles import Role

SERVICE = "netmail.connmgr.v1.ConnectionManagerService"
IdentityFor = Callable[[Role], Identity]


class Servicer(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    async def ListLogins(self, request: Any, context: Any) -> connmgr_pb2.ListLoginsResponse:  # noqa: N802
        if request.page_token == "bad":
            raise RpcError(grpc.StatusCode.INVALID_ARGUMENT, "BAD_PAGE_TOKEN", "no such page")
        if request.page_token == "bug":
            raise RuntimeError("secret of the server")
        if request.page_token == "who":
            return connmgr_pb2.ListLoginsResponse(next_page_token=str(id(self)))
        if request.page_token == "time":
            return connmgr_pb2.ListLoginsResponse(next_page_token=str(context.time_remaining()))
        return connmgr_pb2.ListLoginsResponse(next_page_token=peer_role().value)

    async def WatchLogins(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[connmgr_pb2.WatchLoginsResponse]:
        async for request in request_iterator:
            if request.nonce == 7:
                raise RpcError(grpc.StatusCode.ABORTED, "SEVEN", "seven")
            yield connmgr_pb2.WatchLoginsResponse(revision=request.nonce)


def server(
    identity: Identity,
    listen: str = "127.0.0.1:0",
    health: Health | None = None,
    max_connection_age: float = 0.0,
) -> Any:
    def register(target: grpc.aio.Server) -> None:
        connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server(
            Servicer(),  # type: ignore[abstract] # it serves two methods
            target,
        )

    return grpc_server(
        listen=[listen],
        identity=identity,
        role=Role.CONNMGR,
        installation="netmail",
        register=register,
        health=health or Health(),
        service_names=[SERVICE],
        drain_timeout=1,
        max_connection_age=max_connection_age,
    )


def channel_to(bound: BoundServer, identity: Identity, role: Role = Role.CONNMGR) -> Channel:
    return Channel(
        f"127.0.0.1:{bound.ports[0]}", identity, installation="netmail", expected_role=role
    )


def stub(channel: Channel) -> Any:
    return connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)


async def test_an_allowed_role_is_served_and_known(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.ADMIN))
        answer = await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest())
        assert answer.next_page_token == "admin"
        await channel.close()


async def test_another_role_is_denied_and_logged(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.POP_IMAP))
        with (
            structlog.testing.capture_logs() as logs,
            pytest.raises(grpc.aio.AioRpcError) as caught,
        ):
            await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert error_reason(caught.value) == "ROLE_NOT_ALLOWED"
        assert [(line["event"], line["method"]) for line in logs] == [
            ("call refused", f"/{SERVICE}/ListLogins")
        ]
        assert logs[0]["caller"][0] == "spiffe://netmail/pop_imap"
        await channel.close()


async def test_the_same_role_of_another_installation_is_denied(
    identity_for: IdentityFor, authority: LocalAuthority, tmp_path: Path
) -> None:
    other = LocalAuthority("elsewhere", authority._certificate, authority._key)
    other.issue(Role.ADMIN, tmp_path)
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, Identity.from_folder(tmp_path, Role.ADMIN))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await channel.close()


async def test_a_client_without_a_certificate_is_not_served(
    identity_for: IdentityFor, authority: LocalAuthority
) -> None:
    async with (
        server(identity_for(Role.CONNMGR)) as bound,
        grpc.aio.secure_channel(
            f"127.0.0.1:{bound.ports[0]}",
            grpc.ssl_channel_credentials(authority.certificate_pem),
            options=[("grpc.ssl_target_name_override", "connmgr.netmail")],
        ) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await connmgr_pb2_grpc.ConnectionManagerServiceStub(channel).ListLogins(
                connmgr_pb2.ListLoginsRequest(), timeout=5
            )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_does_not_talk_to_a_server_of_another_role(
    identity_for: IdentityFor,
) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.ADMIN), Role.NMAP)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await channel.close()


@pytest.mark.parametrize(
    ("role", "code"),
    [(Role.CONNMGR, grpc.StatusCode.OK), (Role.NMAP, grpc.StatusCode.UNAVAILABLE)],
)
async def test_the_certificate_names_the_role_whatever_calls_are_addressed_to(
    identity_for: IdentityFor, role: Role, code: grpc.StatusCode
) -> None:
    security = security_of(identity_for(Role.ADMIN), "netmail")
    async with server(identity_for(Role.CONNMGR)) as bound:
        address = f"127.0.0.1:{bound.ports[0]}"
        addressed = ("grpc.default_authority", "netmail-connmgr.netmail.svc.cluster.local")
        channel = security.channel(address, role, [addressed])
        call = connmgr_pb2_grpc.ConnectionManagerServiceStub(channel).ListLogins(
            connmgr_pb2.ListLoginsRequest(), timeout=5
        )
        assert await call.code() is code, await call.details()
        await channel.close(None)


def test_calls_by_xds_are_addressed_to_what_the_control_plane_knows() -> None:
    assert authority_options("xds:///connmgr.netmail:7700") == [
        ("grpc.default_authority", "connmgr.netmail")
    ]
    assert authority_options("dns:///connmgr.netmail:7700") == []


async def test_an_error_carries_its_reason(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.ADMIN))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest(page_token="bad"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_reason(caught.value) == "BAD_PAGE_TOKEN"
        assert caught.value.details() == "no such page"
        await channel.close()


async def test_a_bug_does_not_reach_the_caller_as_text(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.ADMIN))
        with (
            structlog.testing.capture_logs() as logs,
            pytest.raises(grpc.aio.AioRpcError) as caught,
        ):
            await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest(page_token="bug"))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in (caught.value.details() or "")
        assert logs[0]["event"] == "call failed"
        await channel.close()


async def test_a_stream_answers_and_fails_with_its_reason(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.SMTP))
        call = stub(channel).WatchLogins()
        await call.write(connmgr_pb2.WatchLoginsRequest(nonce=3))
        assert (await call.read()).revision == 3
        await call.write(connmgr_pb2.WatchLoginsRequest(nonce=7))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert error_reason(caught.value) == "SEVEN"
        await channel.close()


async def test_health_follows_readiness(identity_for: IdentityFor) -> None:
    health = Health()
    status = health_pb2.HealthCheckResponse
    async with server(identity_for(Role.CONNMGR), health=health) as bound:
        channel = channel_to(bound, identity_for(Role.SMTP))
        watch = health_pb2_grpc.HealthStub(channel.raw).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE), timeout=20
        )
        assert (await watch.read()).status == status.NOT_SERVING
        health.set_ready(True)
        assert (await watch.read()).status == status.SERVING
        health.set_ready(False)
        assert (await watch.read()).status == status.NOT_SERVING
        watch.cancel()
        await channel.close()


async def test_reflection_is_the_admins_alone(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.SMTP))
        assert await reflection_code(channel) is grpc.StatusCode.PERMISSION_DENIED
        await channel.close()
        admin = channel_to(bound, identity_for(Role.ADMIN))
        assert await reflection_code(admin) is grpc.StatusCode.OK
        await admin.close()


async def test_a_call_without_a_deadline_gets_one(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.ADMIN))
        answer = await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest(page_token="time"))
        assert 0 < float(answer.next_page_token) < CALL_TIMEOUT + 1
        answer = await stub(channel).ListLogins(
            connmgr_pb2.ListLoginsRequest(page_token="time"), timeout=5
        )
        assert 0 < float(answer.next_page_token) < 6
        await channel.close()


async def reflection_code(channel: Channel) -> grpc.StatusCode:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    call = reflection_pb2_grpc.ServerReflectionStub(channel.raw).ServerReflectionInfo()
    try:
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await call.done_writing()
        names = [s.name for s in (await call.read()).list_services_response.service]
    except grpc.aio.AioRpcError as error:
        return error.code()
    assert SERVICE in names
    return grpc.StatusCode.OK


async def test_new_certificates_are_taken_on_both_sides_without_a_restart(
    tmp_path: Path,
) -> None:
    clock = [0.0]
    first = LocalAuthority.open_or_create(tmp_path / "ca1", "netmail")
    folder = tmp_path / "tls"
    first.issue(Role.CONNMGR, folder)
    first.issue(Role.ADMIN, folder)
    theirs = Identity(folder, Role.CONNMGR, lambda: clock[0])
    ours = Identity(folder, Role.ADMIN, lambda: clock[0])
    async with server(theirs) as bound:
        channel = channel_to(bound, ours)
        calls = stub(channel)
        await calls.ListLogins(connmgr_pb2.ListLoginsRequest())
        second = LocalAuthority.open_or_create(tmp_path / "ca2", "netmail")
        second.issue(Role.CONNMGR, folder)
        second.issue(Role.ADMIN, folder)
        clock[0] += 5
        answer = await calls.ListLogins(connmgr_pb2.ListLoginsRequest())
        assert answer.next_page_token == "admin"
        assert (ours.generation, theirs.generation) == (2, 2)
        await channel.close()


async def test_a_taken_port_is_an_error_and_not_shared(identity_for: IdentityFor) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        from netmail_common.config import ConfigError

        with pytest.raises(ConfigError, match="cannot listen"):
            async with server(identity_for(Role.CONNMGR), f"127.0.0.1:{bound.ports[0]}"):
                pass


async def test_a_channel_comes_back_after_a_restart_of_the_server(
    identity_for: IdentityFor,
) -> None:
    async with server(identity_for(Role.CONNMGR)) as bound:
        channel = channel_to(bound, identity_for(Role.ADMIN))
        await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest())
        address = f"127.0.0.1:{bound.ports[0]}"
    with pytest.raises(grpc.aio.AioRpcError):
        await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest(), timeout=0.5)
    async with server(identity_for(Role.CONNMGR), address):
        async with asyncio.timeout(10):
            await stub(channel).ListLogins(connmgr_pb2.ListLoginsRequest(), wait_for_ready=True)
        await channel.close()


async def test_replicas_behind_one_name_share_the_calls(identity_for: IdentityFor) -> None:
    connmgr = identity_for(Role.CONNMGR)
    async with server(connmgr) as one, server(connmgr) as other:
        target = f"ipv4:127.0.0.1:{one.ports[0]},127.0.0.1:{other.ports[0]}"
        channel = Channel(
            target, identity_for(Role.ADMIN), installation="netmail", expected_role=Role.CONNMGR
        )
        assert await channel.wait_ready(10)
        answered: set[str] = set()
        async with asyncio.timeout(30):
            while len(answered) < 2:
                request = connmgr_pb2.ListLoginsRequest(page_token="who")
                answered.add((await stub(channel).ListLogins(request)).next_page_token)
        await channel.close()


async def test_an_old_connection_ends_and_its_stream_with_it_while_calls_go_on(
    identity_for: IdentityFor,
) -> None:
    async with server(identity_for(Role.CONNMGR), max_connection_age=1) as bound:
        channel = channel_to(bound, identity_for(Role.SMTP))
        call = stub(channel).WatchLogins()
        await call.write(connmgr_pb2.WatchLoginsRequest(nonce=1))
        assert (await call.read()).revision == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(30):
                await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        again = stub(channel).WatchLogins()
        await again.write(connmgr_pb2.WatchLoginsRequest(nonce=2))
        assert (await again.read()).revision == 2
        again.cancel()
        await channel.close()
