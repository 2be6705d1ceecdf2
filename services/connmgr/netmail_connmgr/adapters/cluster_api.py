"""Follows the Kubernetes API for the addresses that the cluster uses itself.

The client library blocks, so each kind of object is followed by a thread; it is loaded only here.
"""

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from netmail_common.kubernetes_api import NoCluster, kubernetes_client, lister
from netmail_common.logging import get_logger

from netmail_connmgr.domain.cluster_networks import (
    ClusterNetworks,
    Kind,
    Learnt,
    nodes_and_pods,
    services,
)

__all__ = ["ClusterApi"]

log = get_logger(__name__)

_WATCH = 240
"""Seconds that one watch lasts, at most; the server ends it."""
_CONNECT = 5.0
_LATE = 20.0
"""Seconds that an answer may be late."""
_PAUSE = 5.0
"""Seconds before the API is asked again that did not answer, about."""
_PAGE = 500
_KEPT = frozenset({"podCIDR", "podCIDRs", "cidrs"})
_GONE = "the cluster's API does not answer"

_Objects = dict[str, dict[str, Any]]
_Tell = Callable[[Mapping[Kind, Learnt]], None]


class ClusterApi:
    """What the API says, kept up to date. Belongs to the event loop that it is used in.

    Args:
        changed: called, in the loop, with what is known, whenever that has changed. What was
            learnt stays while the API is away.
    """

    def __init__(self, changed: Callable[[ClusterNetworks], None]) -> None:
        self._changed = changed
        self._known = ClusterNetworks()
        self._told = {kind: asyncio.Event() for kind in Kind}
        self._stop = threading.Event()

    @property
    def known(self) -> ClusterNetworks:
        """What is known now."""
        return self._known

    async def asked(self, seconds: float) -> None:
        """Waits until every kind was learnt or is known to be unknown, SECONDS at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for event in self._told.values():
                    await event.wait()

    def start(self) -> None:
        """Starts to follow. The threads end with the process, or soon after `stop`."""
        loop = asyncio.get_running_loop()

        def tell(learnt: Mapping[Kind, Learnt]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._take, learnt)

        for name, work in (("nodes", _follow_nodes), ("servicecidrs", _follow_services)):
            threading.Thread(
                target=work, args=(tell, self._stop), name=f"cluster {name}", daemon=True
            ).start()

    def stop(self) -> None:
        """Ends the following."""
        self._stop.set()

    def _take(self, learnt: Mapping[Kind, Learnt]) -> None:
        if self._stop.is_set():
            return
        new = {}
        for kind, one in learnt.items():
            earlier = self._known.of(kind)
            # The API is away: what it said holds, and is said to be old.
            new[kind] = one if one.networks else Learnt(earlier.networks, one.unknown)
            self._told[kind].set()
        known = ClusterNetworks({**self._known.learnt, **new})
        if known != self._known:
            self._known = known
            self._changed(known)


def _follow_nodes(tell: _Tell, stop: threading.Event) -> None:
    def read(objects: _Objects) -> Mapping[Kind, Learnt]:
        nodes, pods = nodes_and_pods(objects.values())
        return {Kind.NODES: nodes, Kind.PODS: pods}

    _follow("nodes", "/api/v1/nodes", read, tell, stop)


def _follow_services(tell: _Tell, stop: threading.Event) -> None:
    def read(objects: _Objects) -> Mapping[Kind, Learnt]:
        return {Kind.SERVICES: services(objects.values())}

    _follow("servicecidrs", "/apis/networking.k8s.io/v1/servicecidrs", read, tell, stop)


def _follow(
    what: str,
    path: str,
    read: Callable[[_Objects], Mapping[Kind, Learnt]],
    tell: _Tell,
    stop: threading.Event,
) -> None:
    """Lists, watches, and begins again, until STOP is set."""
    kinds = tuple(read({}))
    try:
        call = lister(client := kubernetes_client(), path)
    except NoCluster as error:
        tell(dict.fromkeys(kinds, Learnt(unknown=str(error))))
        return
    while not stop.is_set():
        try:
            for objects in _states(call, stop):
                tell(read(objects))
        except client.ApiException as error:
            if error.status == HTTPStatus.GONE:  # too old a version: listed anew at once
                continue
            tell(dict.fromkeys(kinds, Learnt(unknown=_refusal(what, error.status))))
        except Exception as error:  # noqa: BLE001 - whatever the connection or the answer was
            log.debug("cluster's API", what=what, error=type(error).__name__)
            tell(dict.fromkeys(kinds, Learnt(unknown=_GONE)))
        else:
            continue
        stop.wait(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - jitter


def _states(call: Callable[..., Any], stop: threading.Event) -> Iterator[_Objects]:
    """The objects as they were listed, and after each change of them that matters."""
    objects, version = _list(call)
    yield objects
    while not stop.is_set():
        stream = call(
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=version,
            timeoutSeconds=_WATCH,
            timeout=(_CONNECT, _WATCH + _LATE),
        )
        try:
            for line in stream:
                event = json.loads(line)
                if stop.is_set() or event["type"] == "ERROR":  # the version is too old
                    return
                name, version = _identity(event["object"])
                if event["type"] != "BOOKMARK" and _change(objects, name, event):
                    yield objects
        finally:
            stream.close()


def _list(call: Callable[..., Any]) -> tuple[_Objects, str]:
    """All objects by name, and the version that they are of."""
    objects: _Objects = {}
    following: dict[str, str] = {}
    while True:
        page = json.loads(call(limit=_PAGE, timeout=(_CONNECT, _LATE), **following).data)
        objects.update((_identity(one)[0], _essence(one)) for one in page["items"])
        following = {"continue": page["metadata"].get("continue", "")}
        if not following["continue"]:
            return objects, page["metadata"]["resourceVersion"]


def _change(objects: _Objects, name: str, event: Mapping[str, Any]) -> bool:
    """Takes over an event; whether it changes anything. Nodes tell of themselves all the time."""
    if event["type"] == "DELETED":
        return objects.pop(name, None) is not None
    essence = _essence(event["object"])
    changed = objects.get(name) != essence
    objects[name] = essence
    return changed


def _identity(one: Mapping[str, Any]) -> tuple[str, str]:
    return one["metadata"].get("name", ""), one["metadata"]["resourceVersion"]


def _essence(one: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an object; whole ones of thousands of nodes would be large."""
    return {
        "metadata": {"name": _identity(one)[0]},
        "spec": {name: value for name, value in one.get("spec", {}).items() if name in _KEPT},
        "status": {"addresses": one.get("status", {}).get("addresses") or []},
    }


def _refusal(what: str, status: int | None) -> str:
    if status == HTTPStatus.FORBIDDEN:
        return f"the service account may not list and watch {what}"
    if status == HTTPStatus.NOT_FOUND:
        return f"this cluster's API has no {what}"
    return f"the cluster's API answers {status} when asked for {what}"
