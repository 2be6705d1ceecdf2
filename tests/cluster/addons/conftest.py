"""The charts beside other people's systems: each test needs its add-on."""

import os

import pytest

from tests.cluster.support import Cluster, CommandFailed

NAMESPACE = os.environ.get("NETMAIL_NAMESPACE", "netmail") + "-addons"
TIMEOUT = 1800
"""Seconds that a test may take, installing included, on two busy cores."""


def needs(cluster: Cluster, addon: str, definition: str) -> None:
    """Skips the test where an add-on is neither there nor can be brought up.

    Args:
        addon: its name in the machine's own cluster.
        definition: a CustomResourceDefinition of its.
    """
    try:
        cluster.kubectl("get", "customresourcedefinition", definition)
    except CommandFailed:
        if not cluster.is_own:
            pytest.skip(f"needs {addon}")
        cluster.addon(addon)
