"""Secrets of a Kubernetes namespace, as far as certificates need them."""

import base64
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar

from netmail_common.kubernetes_api import kubernetes_client

__all__ = ["ClusterSecrets"]


class ClusterSecrets:
    """Reads and writes Secrets, with the credentials of the pod or of a kubeconfig.

    Raises: NoCluster.
    """

    LABELS: ClassVar = {"app.kubernetes.io/managed-by": "netmail-certificates"}
    """Of what we made, or had made."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._client = kubernetes_client()
        self._api = self._client.CoreV1Api()

    def read(self, name: str) -> dict[str, bytes] | None:
        """What a Secret holds; None: there is none."""
        secret = self._get(name)
        if secret is None:
            return None
        return {key: base64.b64decode(text) for key, text in (secret.data or {}).items()}

    def is_ours(self, name: str) -> bool:
        """Whether it is absent, or was made by us."""
        secret = self._get(name)
        labels = secret.metadata.labels or {} if secret is not None else self.LABELS
        return self.LABELS.items() <= labels.items()

    def create(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> bool:
        """Makes a Secret; False: somebody was faster."""
        try:
            self._api.create_namespaced_secret(self._namespace, self._body(name, data, kind))
        except self._client.ApiException as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
            return False
        return True

    def write(self, name: str, data: Mapping[str, bytes], kind: str = "Opaque") -> None:
        """Makes a Secret, or replaces its data."""
        if not self.create(name, data, kind):
            self._api.patch_namespaced_secret(name, self._namespace, self._body(name, data, kind))

    def remove(self, name: str) -> bool:
        """Removes a Secret that we made; False: there is none, or it is somebody else's."""
        if self._get(name) is None or not self.is_ours(name):
            return False
        self._api.delete_namespaced_secret(name, self._namespace)
        return True

    def _get(self, name: str) -> Any | None:
        try:
            return self._api.read_namespaced_secret(name, self._namespace)
        except self._client.ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return None

    def _body(self, name: str, data: Mapping[str, bytes], kind: str) -> Any:
        return self._client.V1Secret(
            metadata=self._client.V1ObjectMeta(name=name, labels=dict(self.LABELS)),
            type=kind,
            data={key: base64.b64encode(octets).decode() for key, octets in data.items()},
        )
