"""The API of the Kubernetes cluster that we are in, or that a kubeconfig names.

The client library is loaded here, when it is asked for: few processes need it.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

__all__ = ["NoCluster", "kubernetes_client", "lister"]


class NoCluster(Exception):
    """There are no credentials for a cluster's API."""


def kubernetes_client() -> Any:
    """The module `kubernetes.client`, with the credentials of the pod, else of a kubeconfig.

    Raises: NoCluster.
    """
    from kubernetes import client, config  # noqa: PLC0415 - see above

    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            config.load_kube_config()  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError, TypeError) as error:
            raise NoCluster("neither a pod's credentials nor a kubeconfig") from error
    return client


def lister(client: Any, path: str) -> Callable[..., Any]:
    """A function that lists or watches the objects of a path of the API; gives urllib3's response.

    Its arguments are the API's (`limit`, `resourceVersion`, ...), and `timeout`, for connecting
    and for what is read next, in seconds. The library has a method for each path, in classes that
    take 70 MiB and a second to load.

    Args:
        client: as kubernetes_client gives it.

    The function raises: client.ApiException; what urllib3 raises.
    """
    api = client.ApiClient()

    def call(*, timeout: tuple[float, float], **query: Any) -> Any:
        request = api.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        response = api.call_api(*request, _request_timeout=timeout)
        if response.status != HTTPStatus.OK:
            response.response.close()
            raise client.ApiException(status=response.status)
        return response.response

    return call
