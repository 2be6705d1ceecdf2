"""Whether Services, node ports and routes let the clients' addresses arrive."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from netmail_common.config import Installation
from netmail_common.config._base import parse_host_port
from netmail_common.config.common import ListenerConfig

from netmail_cli.doctor.cluster import Object, Objects
from netmail_cli.doctor.findings import Finding, Level

__all__ = ["Door", "PublicPort", "doors_of", "judge_services", "public_ports"]

_GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
"""Label of what a Gateway's controller makes for it."""
_FROM_OUTSIDE = frozenset({"LoadBalancer", "NodePort"})
_PROXY = (
    "switch proxyProtocol on for the listeners, let whatever stands before them send the PROXY"
    " header, and name it in proxyProtocol.trustedNetworks"
)


@dataclass(frozen=True, slots=True)
class Door:
    """A public listener.

    Attributes:
        kind: smtp, pop3 or imap.
        port: that it listens on.
        vouches: whether a login from there, or mail to there, depends on the client's address.
    """

    name: str
    server: str
    kind: str
    port: int
    tls: str
    proxy_protocol: bool
    vouches: bool


@dataclass(frozen=True, slots=True)
class PublicPort:
    """Where a listener is reached from outside."""

    door: Door
    service: str
    port: int


def doors_of(installation: Installation) -> list[Door]:
    """All public listeners of an installation."""
    found: list[Door] = []
    for server in installation.messaging_servers:
        vouches = server.connection_manager is not None and server.ube_relaying.smtp_after_pop
        listeners: list[tuple[str, ListenerConfig, str]] = [
            *(("smtp", one, one.name) for one in server.smtp.listeners),
            *((one.protocol, one, one.name) for one in server.pop_imap.listeners),
        ]
        for kind, one, name in listeners:
            port = parse_host_port(one.listen[0]).port
            found.append(Door(name, server.name, kind, port, one.tls, one.proxy_protocol, vouches))
    return found


def public_ports(doors: list[Door], objects: Objects) -> Iterator[tuple[PublicPort, Object]]:
    """Which Service leads to which listener, by its selector and the ports of its pods."""
    for service in objects.services:
        spec = service["spec"]
        selector = spec.get("selector") or {}
        ports = _container_ports(objects, selector) if selector else {}
        for one in spec.get("ports") or []:
            target = one.get("targetPort", one["port"])
            number = ports.get(target, target) if isinstance(target, str) else target
            for door in doors:
                if door.port == number and one.get("protocol", "TCP") == "TCP":
                    port = one["nodePort"] if spec.get("type") == "NodePort" else one["port"]
                    yield PublicPort(door, service["metadata"]["name"], port), service


def judge_services(doors: list[Door], objects: Objects) -> Iterator[Finding]:
    """What each object does to the clients' addresses."""
    reached: set[tuple[str, str]] = set()
    for public, service in public_ports(doors, objects):
        if service["spec"].get("clusterIP") == "None":
            continue
        reached.add((public.door.server, public.door.name))
        yield _judge_service(public, service)
        if not _ready(objects, public.service):
            yield Finding(
                Level.BAD,
                _about(public),
                "no ready pod is behind it",
                "look at the pods: kubectl get pods, kubectl describe pod",
            )
    routed = list(_judge_routes(doors, objects))
    yield from routed
    yield from _judge_gateways(doors, objects)
    empty = list(_without_pods(objects))
    yield from empty
    for door in doors:
        if (door.server, door.name) not in reached and not routed and not empty:
            yield _unreached(door, objects)


def _without_pods(objects: Objects) -> Iterator[Finding]:
    """Services of ours whose pods are gone: nobody knows which listeners they lead to."""
    for service in objects.services:
        selector = service["spec"].get("selector") or {}
        if selector.get("app.kubernetes.io/name") != "netmail":
            continue
        if service["spec"].get("clusterIP") != "None" and not _selected(objects, selector):
            yield Finding(
                Level.BAD,
                f"Service {service['metadata']['name']}",
                "no pod is behind it",
                "look at the Deployment: kubectl get deployments, kubectl get events",
            )


def _judge_service(public: PublicPort, service: Object) -> Finding:
    spec, door, about = service["spec"], public.door, _about(public)
    if door.proxy_protocol:
        return Finding(
            Level.GOOD,
            about,
            "the address comes by PROXY protocol, from proxyProtocol.trustedNetworks only",
        )
    kind = spec.get("type", "ClusterIP")
    bad = Level.BAD if door.vouches else Level.WARNING
    if kind == "ClusterIP":
        return Finding(
            bad,
            about,
            "a ClusterIP is reached by what runs in the cluster: clients outside come through"
            " a proxy, whose address arrives instead of theirs",
            _PROXY,
        )
    if spec.get("externalTrafficPolicy", "Cluster") != "Local":
        return Finding(
            bad,
            about,
            "externalTrafficPolicy Cluster: a node may put its own address in place of"
            " the client's",
            f"set externalTrafficPolicy: Local at the Service {public.service}",
        )
    if kind == "LoadBalancer":
        return _judge_load_balancer(public, service, bad)
    return Finding(Level.GOOD, about, "node ports with externalTrafficPolicy Local keep it")


def _judge_load_balancer(public: PublicPort, service: Object, bad: Level) -> Finding:
    about = _about(public)
    given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    if any(one.get("ipMode") == "Proxy" for one in given):
        return Finding(
            bad,
            about,
            "the load balancer says that it opens connections of its own (ipMode Proxy):"
            " its address arrives",
            _PROXY,
        )
    if not given:
        return Finding(
            Level.WARNING,
            about,
            "no load balancer has taken the Service yet",
            "wait, or install one (MetalLB, kube-vip), or use node ports",
        )
    return Finding(
        Level.GOOD,
        about,
        "externalTrafficPolicy Local keeps it, if the load balancer passes packets on;"
        " ask from outside to be sure",
    )


def _judge_routes(doors: list[Door], objects: Objects) -> Iterator[Finding]:
    """Routes of Gateways: a Gateway opens connections of its own."""
    leads = {public.service: public.door for public, _ in public_ports(doors, objects)}
    for route in objects.routes:
        name = f"{route['kind']} {route['metadata']['name']}"
        backends = [
            ref["name"]
            for rule in route["spec"].get("rules") or []
            for ref in rule.get("backendRefs") or []
        ]
        if route["kind"] == "UDPRoute":
            yield Finding(
                Level.BAD,
                name,
                "a Gateway puts its own address in place of an agent's: UDP 689 and WHOSON"
                " answer only the agents in allowed_sources, and so nobody through it",
                "use a Service of type LoadBalancer with externalTrafficPolicy: Local for UDP",
            )
            continue
        for door in {leads[one] for one in backends if one in leads}:
            if door.proxy_protocol:
                yield Finding(
                    Level.GOOD, name, "the address comes by PROXY protocol, if the Gateway sends it"
                )
            else:
                yield Finding(
                    Level.BAD if door.vouches else Level.WARNING,
                    name,
                    "the Gateway's address arrives instead of the client's",
                    _PROXY,
                )


def _judge_gateways(doors: list[Door], objects: Objects) -> Iterator[Finding]:
    """The Gateways' own Services, where they stand in the namespace, as Istio's do."""
    gateways = {
        ref["name"]
        for route in objects.routes
        for ref in route["spec"].get("parentRefs") or []
        if ref.get("kind", "Gateway") == "Gateway"
    }
    bad = Level.BAD if any(door.vouches for door in doors) else Level.WARNING
    for service in objects.services:
        labels = service["metadata"].get("labels") or {}
        spec = service["spec"]
        if labels.get(_GATEWAY_NAME) not in gateways or spec.get("type") not in _FROM_OUTSIDE:
            continue
        about = f"Service {service['metadata']['name']} of Gateway {labels[_GATEWAY_NAME]}"
        if spec.get("externalTrafficPolicy", "Cluster") == "Local":
            yield Finding(Level.GOOD, about, "externalTrafficPolicy Local keeps the address")
            continue
        yield Finding(
            bad,
            about,
            "externalTrafficPolicy Cluster: a node may put its own address in place of the"
            " client's, and the Gateway passes that one on",
            "set externalTrafficPolicy: Local in what the Gateway's infrastructure.parametersRef"
            " names",
        )


def _unreached(door: Door, objects: Objects) -> Finding:
    about = f"{door.server} {door.name}"
    for pod in objects.pods:
        host_network = pod["spec"].get("hostNetwork", False)
        for port in _ports(pod):
            if port.get("containerPort") == door.port and (host_network or port.get("hostPort")):
                return Finding(
                    Level.GOOD,
                    f"{about}, hostPort {port.get('hostPort', door.port)}",
                    "a port of the node keeps it, with most network plug-ins; ask from outside",
                )
    return Finding(
        Level.WARNING,
        about,
        f"no Service, node port or route leads to its port {door.port}",
        "switch one on, if clients are to reach it",
    )


def _container_ports(objects: Objects, selector: Mapping[str, str]) -> dict[str, int]:
    """Ports by name, of the pods that a Service selects."""
    found: dict[str, int] = {}
    for pod in _selected(objects, selector):
        found |= {one["name"]: one["containerPort"] for one in _ports(pod) if "name" in one}
    return found


def _selected(objects: Objects, selector: Mapping[str, str]) -> list[Object]:
    return [
        pod
        for pod in objects.pods
        if selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]


def _ports(pod: Object) -> list[dict[str, Any]]:
    return [
        port for container in pod["spec"]["containers"] for port in container.get("ports") or []
    ]


def _ready(objects: Objects, service: str) -> bool:
    return any(
        endpoint.get("conditions", {}).get("ready", True)
        for one in objects.slices
        if (one["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service
        for endpoint in one.get("endpoints") or []
    )


def _about(public: PublicPort) -> str:
    return f"{public.door.server} {public.door.name}, Service {public.service}:{public.port}"
