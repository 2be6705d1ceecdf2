"""The API of the Kubernetes cluster that we are in, or that a kubeconfig names.

The client library is loaded here, when it is asked for: few processes need it.
"""

from typing import Any

__all__ = ["NoCluster", "kubernetes_client"]


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
