"""`netmail doctor`: whether the clients' own addresses arrive, and what to change if not."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.nmap.v1 import directory_pb2
from netmail_common.config import Installation
from netmail_common.kubernetes_api import NoCluster

from netmail_cli.admin import Administrator, administrator
from netmail_cli.context import (
    ConfigOption,
    Failure,
    JsonOption,
    Output,
    StateOption,
    perform,
)
from netmail_cli.doctor.addresses import judge_addresses, judge_cluster
from netmail_cli.doctor.cluster import Objects, Refused, read_objects
from netmail_cli.doctor.findings import Finding, Level
from netmail_cli.doctor.mesh import judge_mesh
from netmail_cli.doctor.outside import Asked, BadToken, Target, ask, read_token, write_token
from netmail_cli.doctor.services import Door, doors_of, judge_services, public_ports
from netmail_cli.exit_codes import ExitCode

__all__ = ["doctor"]

_TIMEOUT = 10.0


def doctor(
    from_outside: Annotated[
        str | None,
        typer.Option(
            "--from-outside",
            metavar="TOKEN",
            help="Run where mail programs run: asks the listeners which address arrives. TOKEN is"
            " what doctor prints inside.",
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Host to ask, or to put into the token; default: host_name."),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            envvar="POD_NAMESPACE",
            help="Kubernetes namespace of the installation; default: none, this is one machine.",
        ),
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Says for each listener whether the client's real address arrives, and what to change if not.

    Ends with 1 if something is bad.
    """
    output = Output(json)
    if from_outside is not None:
        token = from_outside
        perform(output, lambda: _outside(output, token, host))
        return
    perform(output, lambda: _inside(output, config, state, host, namespace))


async def _outside(output: Output, token: str, host: str | None) -> None:
    try:
        targets, probe = read_token(token)
    except BadToken as error:
        raise Failure(ExitCode.USAGE, str(error)) from None
    if host is not None:
        targets = [replace(one, host=host) for one in targets]
    answers = [await asyncio.to_thread(ask, one, probe) for one in targets]
    output.records(
        "What arrives: compare it with your own address",
        ["listener", "host", "port", "arrived", "said"],
        [_asked(one) for one in answers],
    )
    if not all(one.arrived for one in answers):
        raise Failure(ExitCode.FAILED, "not every listener told which address arrived")
    if not all(one.grants for one in answers):
        raise Failure(ExitCode.FAILED, "a login from here never lets anybody relay")


def _asked(one: Asked) -> dict[str, Any]:
    return {
        "listener": one.target.name,
        "host": one.target.host,
        "port": one.target.port,
        "arrived": one.arrived,
        "grants": one.grants,
        "said": one.said,
    }


async def _inside(
    output: Output,
    config: Path | None,
    state: Path | None,
    host: str | None,
    namespace: str | None,
) -> None:
    async with administrator(config, state) as admin:
        installation = admin.installation
        doors = doors_of(installation)
        findings = [one async for one in _agents(admin)]
        objects = None
        if namespace is not None:
            objects, said = await asyncio.to_thread(_objects, namespace)
            findings += said
        if objects is not None:
            findings += judge_services(doors, objects)
            findings += judge_mesh(installation, doors, objects)
        else:
            findings += _machine(installation, doors)
        answers = await _described(admin)
        for name, answer in answers.items():
            findings += judge_cluster(name, answer, in_cluster=namespace is not None)
        findings += judge_addresses(doors, list(answers.values()))
    tokens = _tokens(installation, doors, objects, answers, host)
    if output.json:
        output.data({"findings": [asdict(one) for one in findings], "tokens": tokens})
    else:
        rows = [{**asdict(one), "level": one.level.value} for one in findings]
        output.records("netmail doctor", ["level", "about", "said", "do"], rows)
        for token in tokens.values():
            output.done(
                "Within 15 minutes, from outside, where mail programs run:\n"
                f"  netmail doctor --from-outside {token}"
            )
    if any(one.level is Level.BAD for one in findings):
        raise Failure(ExitCode.FAILED, "something is bad")


async def _agents(admin: Administrator) -> AsyncIterator[Finding]:
    """Whether the agents answer over gRPC."""
    for server in admin.installation.messaging_servers:
        request = directory_pb2.ListContextsRequest()
        call = admin.directory(server).ListContexts(request, timeout=_TIMEOUT)
        yield await _answers(f"NMAP agent of {server.name}", call)
    for manager in admin.installation.connection_managers:
        stub = admin.connection_manager(manager.name)
        logins = stub.ListLogins(pb.ListLoginsRequest(page_size=1), timeout=_TIMEOUT)
        yield await _answers(f"Connection Manager {manager.name}", logins)


async def _answers(about: str, call: Any) -> Finding:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        said = f"does not answer: {error.code().name}"
        return Finding(Level.BAD, about, said, "look at its pod or process, and its log")
    return Finding(Level.GOOD, about, "answers")


async def _described(admin: Administrator) -> dict[str, pb.DescribeAddressesResponse]:
    """What each Connection Manager that answers knows."""
    found = {}
    for manager in admin.installation.connection_managers:
        stub = admin.connection_manager(manager.name)
        try:
            found[manager.name] = await stub.DescribeAddresses(
                pb.DescribeAddressesRequest(), timeout=_TIMEOUT
            )
        except grpc.aio.AioRpcError:
            continue  # it was said that it does not answer
    return found


def _objects(namespace: str) -> tuple[Objects | None, list[Finding]]:
    try:
        objects = read_objects(namespace)
    except (NoCluster, Refused) as error:
        return None, [
            Finding(
                Level.UNKNOWN,
                "Kubernetes API",
                str(error),
                "set cli.doctor in the chart's values, or run it with a kubeconfig",
            )
        ]
    return objects, [
        Finding(Level.UNKNOWN, "Kubernetes API", text, "give the service account leave to list")
        for text in objects.unread
    ]


def _machine(installation: Installation, doors: list[Door]) -> list[Finding]:
    """What can be said of one machine by its configuration."""
    found = [
        Finding(
            Level.GOOD,
            f"{door.server} {door.name}",
            "the address comes by PROXY protocol, from proxy_trusted_networks only"
            if door.proxy_protocol
            else "the address is the connection's; ask from outside if anything stands before it",
        )
        for door in doors
    ]
    found += [
        Finding(
            Level.WARNING,
            f"Connection Manager {manager.name}",
            "loopback_grants is on: whoever comes through a tunnel or proxy on this machine may"
            " relay",
            "switch it off, unless this is a demonstration",
        )
        for manager in installation.connection_managers
        if manager.loopback_grants
    ]
    return found


def _tokens(
    installation: Installation,
    doors: list[Door],
    objects: Objects | None,
    answers: dict[str, pb.DescribeAddressesResponse],
    host: str | None,
) -> dict[str, str]:
    """For each Messaging Server what a person outside needs."""
    public = {} if objects is None else _outer_places(doors, objects)
    tokens = {}
    for server in installation.messaging_servers:
        answer = answers.get(server.connection_manager or "")
        if answer is None or not answer.probe_token:
            continue
        targets = []
        for one in doors:
            if one.server == server.name:
                place, port = public.get((one.server, one.name), ("", one.port))
                where = host or place or server.host_name
                targets.append(Target(where, one.name, one.kind, port, one.tls == "implicit"))
        tokens[server.name] = write_token(targets, answer.probe_token)
    return tokens


def _outer_places(doors: list[Door], objects: Objects) -> dict[tuple[str, str], tuple[str, int]]:
    """Where clients outside connect to: the address of the load balancer, if any, and the port."""
    found = {}
    for public, service in public_ports(doors, objects):
        if service["spec"].get("clusterIP") == "None":
            continue
        given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or [{}]
        address = given[0].get("hostname") or given[0].get("ip") or ""
        found[public.door.server, public.door.name] = address, public.port
    return found
