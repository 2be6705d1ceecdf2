"""Gateways that public listeners are reached by."""

from tests.cluster.support.release import Release
from tests.support.waiting import eventually

PODS = "10.244.0.0/16"
"""Where the proxies of Gateways speak from."""


def gateway_address(release: Release, listeners: int) -> str:
    """The address of the release's own Gateway, as soon as each listener has its route."""

    def look() -> str:
        status = release.get("gateway", release.name).get("status", {})
        attached = [one.get("attachedRoutes", 0) for one in status.get("listeners", [])]
        addresses = [str(one["value"]) for one in status.get("addresses", [])]
        return addresses[0] if addresses and len(attached) == listeners and all(attached) else ""

    return eventually(look, 300)
