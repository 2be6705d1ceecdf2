"""Alerts about a shared store of logins, on a real Prometheus: once each, and they end."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.addons import causes
from tests.cluster.addons.conftest import NAMESPACE, TIMEOUT, needs
from tests.cluster.addons.monitoring import MONITORED, Diary, hurried, watching
from tests.cluster.conftest import values_for
from tests.cluster.ha.shared_stores import IMAGE, build_image
from tests.cluster.support import Cluster, Outside, Release, Sink
from tests.cluster.support.release import KEEP, default_values, merged, namespace

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * TIMEOUT)]

CONSEQUENCES = {"NetmailRegistrationsWaiting", "NetmailReplicaStale"}
"""Alerts that come too when no login can be registered or asked about."""
_STORE = "store"
_PORT = 6379


def _redis(namespace_name: str) -> list[dict[str, Any]]:
    """A Redis that forgets when it ends, and its Service."""
    labels = {"app": _STORE}
    container = {
        "name": _STORE,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            *("redis-server", "--port", str(_PORT), "--protected-mode", "no", "--save", ""),
            *("--dir", "/tmp", "--enable-debug-command", "local"),
        ],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 2},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    deployment = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    meta = {"name": _STORE, "namespace": namespace_name}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": labels, "ports": [{"port": _PORT}]},
        },
    ]


def _scale_store(release: Release, replicas: int) -> None:
    release.kubectl("scale", f"deploy/{_STORE}", f"--replicas={replicas}")
    release.kubectl("rollout", "status", f"deploy/{_STORE}")


def _ask_store(release: Release, *words: str) -> None:
    release.kubectl("exec", f"deploy/{_STORE}", "--", "redis-cli", *words)


@pytest.fixture(scope="module")
def watched(
    cluster: Cluster, sink: Sink, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Release]:
    """Default values, monitoring, logins in a Redis, and room for two registrations without it."""
    needs(cluster, "prometheus", "prometheuses.monitoring.coreos.com")
    values = merged(
        default_values(),
        values_for(sink),
        MONITORED,
        {
            "connectionManager": {"valkey": {"buffered_registrations": 2}},
            "connmgr": {"valkey": {"enabled": True, "addresses": [f"{_STORE}:{_PORT}"]}},
        },
    )
    with namespace(cluster, f"{NAMESPACE}-valkey") as name:
        release = Release(cluster, name)
        if not KEEP:
            build_image(cluster, Path(tmp_path_factory.mktemp("stores")))
        cluster.apply(*_redis(name))
        _scale_store(release, 1)
        release.install(values)
        yield release
        if not KEEP:
            release.sweep_away()


@pytest.fixture(scope="module")
def diary(watched: Release) -> Diary:
    """Empty; nothing was alerted when it began, and no alert waits long."""
    prometheus = watching(watched)
    prometheus.wait_for_silence(180)
    hurried(watched, prometheus)
    return Diary(prometheus)


def test_a_store_that_is_slow(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    slow = partial(_ask_store, watched, "DEBUG", "SLEEP", "0.4")
    with causes.again_and_again(slow, partial(causes.log_in, watched, hosts[0]), pause=0):
        diary.wait_for("NetmailLoginStoreSlow")


def test_a_store_that_is_full(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    guesses = partial(causes.guess, watched, hosts[3:], 1, 2)
    _ask_store(watched, "CONFIG", "SET", "maxmemory", "1mb")
    with causes.again_and_again(guesses):
        diary.wait_for("NetmailCountersUnavailable")
    _ask_store(watched, "CONFIG", "SET", "maxmemory", "0")


def test_no_store(watched: Release, diary: Diary, hosts: Sequence[Outside]) -> None:
    logins = [partial(causes.log_in, watched, host, user)
              for host in hosts for user in ("alice", "bob")]  # fmt: skip
    _scale_store(watched, 0)
    with causes.again_and_again(*logins):
        diary.wait_for("NetmailLoginStoreDown", "NetmailRegistrationsDropped")
    _scale_store(watched, 1)


def test_each_alert_fired_once_and_they_end(diary: Diary) -> None:
    began = time.monotonic()
    diary.prometheus.wait_for_silence(1200)
    print(f"\nno alert pending or firing {time.monotonic() - began:.0f} s after the last cause")
    diary.check(CONSEQUENCES)
