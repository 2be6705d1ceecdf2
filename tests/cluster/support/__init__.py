"""What every test on a cluster works with; see docs/kubernetes.md, "Tests on a cluster"."""

from tests.cluster.support.cluster import Cluster, CommandFailed
from tests.cluster.support.load import Finding, Ledger, SteadyLoad
from tests.cluster.support.outside import Outside
from tests.cluster.support.release import USERS, Pod, Release, image_values
from tests.cluster.support.sink import Sink

__all__ = [
    "USERS",
    "Cluster",
    "CommandFailed",
    "Finding",
    "Ledger",
    "Outside",
    "Pod",
    "Release",
    "Sink",
    "SteadyLoad",
    "image_values",
]
