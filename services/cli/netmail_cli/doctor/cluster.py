"""The objects of a Kubernetes namespace that stand between clients and listeners."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from netmail_common.kubernetes_api import kubernetes_client

__all__ = ["Object", "Objects", "Refused", "read_objects"]

Object = Mapping[str, Any]
"""As it stands in the API's JSON."""

_TIMEOUT = 15.0
_ROUTES = "gateway.networking.k8s.io"
_ROUTE_VERSIONS = ("v1", "v1alpha2")


class Refused(Exception):
    """The API did not give what was asked for; its text says what."""


@dataclass(frozen=True, slots=True)
class Objects:
    """What a namespace has.

    Attributes:
        routes: TCPRoutes and UDPRoutes, with their kind.
        unread: what could not be read, in words.
    """

    services: Sequence[Object] = ()
    slices: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    routes: Sequence[Object] = ()
    unread: Sequence[str] = ()


def read_objects(namespace: str) -> Objects:
    """Asks the API.

    Raises: NoCluster; Refused, when it gives nothing at all.
    """
    client = kubernetes_client()
    core, discovery, custom = client.CoreV1Api(), client.DiscoveryV1Api(), client.CustomObjectsApi()
    unread: list[str] = []

    def listed(what: str, call: Any) -> list[Object]:
        try:
            response = call(namespace, _preload_content=False, _request_timeout=_TIMEOUT)
        except client.ApiException as error:
            unread.append(f"{what}: {_reason(error.status)}")
            return []
        except Exception as error:
            raise Refused(f"the cluster's API does not answer: {type(error).__name__}") from error
        items: list[Object] = json.loads(response.data)["items"]
        return items

    services = listed("Services", core.list_namespaced_service)
    slices = listed("EndpointSlices", discovery.list_namespaced_endpoint_slice)
    pods = listed("Pods", core.list_namespaced_pod)
    routes: list[Object] = []
    for plural, kind in (("tcproutes", "TCPRoute"), ("udproutes", "UDPRoute")):
        for version in _ROUTE_VERSIONS:
            try:
                found = custom.list_namespaced_custom_object(
                    _ROUTES, version, namespace, plural, _request_timeout=_TIMEOUT
                )
            except client.ApiException as error:
                if error.status != HTTPStatus.NOT_FOUND:  # else there is no such kind here
                    unread.append(f"{kind}s: {_reason(error.status)}")
                    break
                continue
            routes.extend({**one, "kind": kind} for one in found["items"])
            break
    return Objects(services, slices, pods, routes, unread)


def _reason(status: int | None) -> str:
    if status == HTTPStatus.FORBIDDEN:
        return "the service account may not list them"
    return f"the API answers {status}"
