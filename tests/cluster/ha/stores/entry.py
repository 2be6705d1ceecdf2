"""What runs in the pods of the stores: `entry.py postgresql|redis|sentinel`.

Environment: POD_NAME, POD_IP, POD_NAMESPACE, NETMAIL_PASSWORD. Data in /data. Redis and Sentinel
know each other by the addresses of a Service for each pod: a Sentinel that looks names up stands
still while the DNS server is on the node that was lost, and finds no replica good enough then.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

DATA = Path("/data")
NAME, PASSWORD = os.environ["POD_NAME"], os.environ["NETMAIL_PASSWORD"]


def _address(pod: str) -> str:
    """Of the pod's Service, as Kubernetes tells it."""
    return os.environ[f"{pod.upper().replace('-', '_')}_SERVICE_HOST"]


REDIS = tuple(_address(f"redis-{number}") for number in range(2))
SENTINELS = tuple(_address(f"sentinel-{number}") for number in range(3))


def postgresql() -> list[str]:
    """Patroni, with the Kubernetes API as the place where the leader's lock is."""
    trusted = "host all all 0.0.0.0/0 scram-sha-256"
    address = os.environ["POD_IP"]
    dynamic = {
        "ttl": 30,
        "loop_wait": 5,
        "retry_timeout": 10,
        "maximum_lag_on_failover": 1 << 20,
        # What was answered is on two disks, as long as there are two.
        "synchronous_mode": True,
        "postgresql": {
            "use_pg_rewind": True,
            "parameters": {
                "max_connections": 100,
                "shared_buffers": "32MB",
                "unix_socket_directories": "/tmp",
                "jit": "off",
                "wal_keep_size": "128MB",
                "tcp_keepalives_idle": 5,
                "tcp_keepalives_interval": 2,
                "tcp_keepalives_count": 3,
            },
        },
    }
    settings = {
        "scope": "database",
        "name": NAME,
        "kubernetes": {
            "namespace": os.environ["POD_NAMESPACE"],
            "labels": {"app": "database"},
            "scope_label": "app",
            "role_label": "role",
            "pod_ip": address,
        },
        "restapi": {"listen": "0.0.0.0:8008", "connect_address": f"{address}:8008"},
        "bootstrap": {
            "dcs": dynamic,
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            "pg_hba": [trusted, "host replication all 0.0.0.0/0 scram-sha-256"],
            "post_init": "/opt/stores/post_init",
        },
        "postgresql": {
            "listen": "0.0.0.0:5432",
            "connect_address": f"{address}:5432",
            "data_dir": str(DATA / "postgresql"),
            "bin_dir": "/usr/lib/postgresql/15/bin",
            "basebackup": [{"checkpoint": "fast"}],
            "pgpass": "/tmp/pgpass",
            "authentication": {
                what: {"username": name, "password": PASSWORD}
                for what, name in (
                    ("superuser", "postgres"),
                    ("replication", "replicator"),
                    ("rewind", "rewinder"),
                )
            },
        },
    }
    if (DATA / "postgresql").exists():
        # The kubelet gives a volume's files to the pod's group, which PostgreSQL does not like.
        (DATA / "postgresql").chmod(0o700)
    file = Path("/tmp/patroni.yml")
    file.write_text(json.dumps(settings))
    return ["patroni", str(file)]


def redis() -> list[str]:
    """A primary, or a replica of the one that the Sentinels name."""
    primary, own = _find_primary(fresh=not (DATA / "appendonlydir").exists()), _address(NAME)
    options = {
        "port": 6379,
        "bind": "0.0.0.0",
        "dir": DATA,
        "requirepass": PASSWORD,
        "masterauth": PASSWORD,
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "replica-announce-ip": own,
        "repl-diskless-sync-delay": 0,
        "repl-timeout": 10,
        "tcp-keepalive": 10,
    }
    file = DATA / "redis.conf"
    lines = [f'{key} "{value}"' for key, value in options.items()]
    if primary != own:
        lines.append(f"replicaof {primary} 6379")
    file.write_text("\n".join(lines) + "\n")
    return ["redis-server", str(file)]


def _find_primary(*, fresh: bool) -> str:
    """What the Sentinels say; the first at the very beginning, when there are none that know."""
    deadline = time.monotonic() + 10
    while True:
        for sentinel in SENTINELS:
            words = _ask(sentinel, 26379, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "netmail").split()
            if words:
                return words[0]
        for other in REDIS:
            if "role:master" in _ask(other, 6379, "INFO", "replication"):
                return other
        if fresh and time.monotonic() > deadline:
            return REDIS[0]
        time.sleep(1)


def _ask(host: str, port: int, *words: str) -> str:
    login = ["-a", PASSWORD, "--no-auth-warning"] if port == 6379 else []
    command = ["redis-cli", "-h", host, "-p", str(port), *login, *words]
    try:
        return subprocess.run(command, check=True, capture_output=True, timeout=2, text=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ""


def sentinel() -> list[str]:
    """Watches the primary; begins anew with each start, under the same id."""
    primary = _find_primary(fresh=True)
    file = DATA / "sentinel.conf"
    lines = [
        "port 26379",
        "bind 0.0.0.0",
        f"dir {DATA}",
        f"sentinel myid {hashlib.sha1(NAME.encode()).hexdigest()}",
        f"sentinel announce-ip {_address(NAME)}",
        f"sentinel monitor netmail {primary} 6379 2",
        f"sentinel auth-pass netmail {PASSWORD}",
        "sentinel down-after-milliseconds netmail 3000",
        "sentinel failover-timeout netmail 10000",
        "sentinel parallel-syncs netmail 1",
    ]
    file.write_text("\n".join(lines) + "\n")
    return ["redis-server", str(file), "--sentinel"]


if __name__ == "__main__":
    command = {"postgresql": postgresql, "redis": redis, "sentinel": sentinel}[sys.argv[1]]()
    os.execvp(command[0], command)
