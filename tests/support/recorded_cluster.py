"""A Kubernetes API that lists and watches objects as a recorded one did, and refuses as told."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

_PATHS = {
    "/api/v1/nodes": "nodes",
    "/apis/networking.k8s.io/v1/servicecidrs": "servicecidrs",
}
_REASONS = {403: "Forbidden", 404: "NotFound"}


def node(name: str, *addresses: str, pod_cidrs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A node as API server 1.36 gives it, without what nobody asks for."""
    spec = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
    return {
        "metadata": {
            "name": name,
            "uid": "6955ebac-e58d-44c6-be56-7010297d2fe8",
            "resourceVersion": "1098",
            "creationTimestamp": "2026-11-25T19:24:46Z",
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "spec": spec,
        "status": {
            "capacity": {"cpu": "2", "memory": "24683656Ki", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [
                *({"type": "InternalIP", "address": address} for address in addresses),
                {"type": "Hostname", "address": name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    }


def service_cidr(*cidrs: str) -> dict[str, Any]:
    """The ServiceCIDR object that every cluster has."""
    return {
        "metadata": {
            "name": "kubernetes",
            "uid": "9b8dff6c-9126-47b6-958a-4e612f5330be",
            "resourceVersion": "333",
            "finalizers": ["networking.k8s.io/service-cidr-finalizer"],
        },
        "spec": {"cidrs": list(cidrs)},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": ""}]},
    }


class RecordedCluster:
    """What the API has; changes reach those who watch.

    Attributes:
        refused: HTTP status by resource, for those that are not given.
        lists: how often each resource was listed.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"nodes": {}, "servicecidrs": {}}
        self.refused: dict[str, int] = {}
        self.lists = {"nodes": 0, "servicecidrs": 0}
        self._version = 1000
        self._events: list[tuple[int, str, bytes]] = []
        self._changed = threading.Condition()
        self._ended = False

    def put(self, resource: str, one: dict[str, Any]) -> None:
        """Adds an object or replaces it."""
        name = one["metadata"]["name"]
        kind = "MODIFIED" if name in self.objects[resource] else "ADDED"
        self._tell(resource, kind, one)
        self.objects[resource][name] = one

    def remove(self, resource: str, name: str) -> None:
        """Deletes an object."""
        self._tell(resource, "DELETED", self.objects[resource].pop(name))

    def forget(self, resource: str) -> None:
        """Ends the watches: what they knew is too old a version."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "metadata": {}}
        self._tell(resource, "ERROR", status)

    def end(self) -> None:
        """Ends all watches, for good."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def listed(self, resource: str) -> bytes:
        """Answer to a list, in one page."""
        with self._changed:
            self.lists[resource] += 1
            metadata = {"resourceVersion": str(self._version)}
            items = list(self.objects[resource].values())
        return json.dumps({"kind": "List", "metadata": metadata, "items": items}).encode()

    def watched(self, resource: str, version: int) -> Iterator[bytes]:
        """Lines of a watch from a version on."""
        told = version
        while True:
            with self._changed:
                while not self._ended and self._version == told:
                    self._changed.wait()
                if self._ended:
                    return
                new = [one for one in self._events if one[0] > told]
                told = self._version
            for _, where, line in new:
                if where == resource:
                    yield line
                    if b'"ERROR"' in line:
                        return

    def _tell(self, resource: str, kind: str, one: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            one["metadata"]["resourceVersion"] = str(self._version)
            line = json.dumps({"type": kind, "object": one}).encode() + b"\n"
            self._events.append((self._version, resource, line))
            self._changed.notify_all()


@contextlib.contextmanager
def served(cluster: RecordedCluster, folder: Path) -> Iterator[Path]:
    """Serves it; gives a kubeconfig that leads there."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            resource = _PATHS[url.path]
            query = parse_qs(url.query)
            status = cluster.refused.get(resource)
            if status is not None:
                reason = _REASONS.get(status, "InternalError")
                body = json.dumps({"kind": "Status", "code": status, "reason": reason}).encode()
                self._answer(status, body)
            elif query.get("watch", [""])[0].lower() == "true":
                self._stream(cluster.watched(resource, int(query["resourceVersion"][0])))
            else:
                self._answer(200, cluster.listed(resource))

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, lines: Iterator[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for line in lines:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    kubeconfig = folder / "kubeconfig"
    address = f"http://127.0.0.1:{server.server_port}"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "recorded", "cluster": {"server": address}}],
                "users": [{"name": "nobody", "user": {}}],
                "contexts": [
                    {"name": "only", "context": {"cluster": "recorded", "user": "nobody"}}
                ],
                "current-context": "only",
            }
        )
    )
    try:
        yield kubeconfig
    finally:
        cluster.end()
        server.shutdown()
        server.server_close()
        thread.join()
