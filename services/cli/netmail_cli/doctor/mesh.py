"""Whether pods are in a mesh, and whether it lets the listeners' clients through as they are."""

from collections.abc import Iterator

from netmail_common.config import Installation

from netmail_cli.doctor.cluster import Object, Objects
from netmail_cli.doctor.findings import Finding, Level
from netmail_cli.doctor.services import Door

__all__ = ["judge_mesh"]

_PROXIES = {"istio-proxy": "Istio", "linkerd-proxy": "Linkerd"}
_LEFT_OUT = {
    "Istio": "traffic.sidecar.istio.io/excludeInboundPorts",
    "Linkerd": "config.linkerd.io/skip-inbound-ports",
}


def judge_mesh(
    installation: Installation, doors: list[Door], objects: Objects
) -> Iterator[Finding]:
    """Says how the agents' calls are secured, and which listeners a sidecar stands before."""
    meshes: set[str] = set()
    bare: list[str] = []
    for pod in objects.pods:
        labels = pod["metadata"].get("labels") or {}
        if labels.get("app.kubernetes.io/name") != "netmail" or _over(pod):
            continue
        mesh = _mesh_of(pod)
        name = pod["metadata"]["name"]
        if mesh is None:
            bare.append(name)
            continue
        meshes.add(mesh)
        yield from _judge_pod(pod, mesh, doors)
    yield _judge_security(installation, meshes, bare)


def _judge_security(installation: Installation, meshes: set[str], bare: list[str]) -> Finding:
    if installation.grpc.security == "mesh":
        if not meshes:
            return Finding(
                Level.BAD,
                "gRPC",
                "grpc.security is mesh, and no pod has a mesh's proxy",
                "switch injection on for the namespace, or say grpc.security: mtls",
            )
        if bare:
            return Finding(
                Level.WARNING,
                "gRPC",
                f"grpc.security is mesh, and these pods have no proxy: {', '.join(sorted(bare))}",
                "restart them with injection on",
            )
        return Finding(Level.GOOD, "gRPC", f"secured by the mesh ({', '.join(sorted(meshes))})")
    where = f", inside {' and '.join(sorted(meshes))} too" if meshes else ""
    return Finding(Level.GOOD, "gRPC", f"mutual TLS of the installation's own{where}")


def _judge_pod(pod: Object, mesh: str, doors: list[Door]) -> Iterator[Finding]:
    annotations = pod["metadata"].get("annotations") or {}
    left_out = {text.strip() for text in annotations.get(_LEFT_OUT[mesh], "").split(",")}
    own = {
        port["containerPort"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
    }
    caught = sorted(
        f"{door.name} ({door.port})"
        for door in doors
        if door.port in own and str(door.port) not in left_out and not left_out & {"*", "1-65535"}
    )
    if caught:
        yield Finding(
            Level.BAD,
            f"pod {pod['metadata']['name']}",
            f"{mesh}'s sidecar takes connections to {', '.join(caught)}: clients seem to come"
            " from 127.0.0.6 or the pod itself",
            f"name these ports in the annotation {_LEFT_OUT[mesh]}",
        )


def _mesh_of(pod: Object) -> str | None:
    spec = pod["spec"]
    for container in (*spec["containers"], *(spec.get("initContainers") or [])):
        if container["name"] in _PROXIES:
            return _PROXIES[container["name"]]
    return None


def _over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}
