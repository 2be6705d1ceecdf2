"""NMAP agents for the commands: two Messaging Servers, in a thread of this process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netmail_common.config import load_config
from netmail_nmap.app import nmap_agent

from tests.support.installation import free_port


def settings(state: Path, certificates: Path) -> dict[str, object]:
    def server(name: str, domain: str, context: str, user: str) -> dict[str, object]:
        return {
            "name": name,
            "host_name": f"{name}.{domain}",
            "domains": [domain],
            "ube_relaying": {"smtp_after_pop": False},
            "contexts": [
                {"name": context, "initial_users": [{"name": user, "password": "secret"}]}
            ],
            "nmap": {
                "listen": [f"127.0.0.1:{free_port()}"],
                "argon2": {"time_cost": 1, "memory_kib": 8},
                "http": {"listen": None},
            },
        }

    return {
        "state_dir": str(state),
        "grpc": {"certificates": str(certificates)},
        "messaging_servers": [
            server("mail1", "example.org", "users.demo", "alice"),
            server("mail2", "branch.example.org", "branch.demo", "carol"),
        ],
    }


@contextmanager
def agents(config: Path) -> Iterator[None]:
    """Both NMAP agents, in a thread of their own."""
    ready, over = threading.Event(), threading.Event()

    async def main() -> None:
        installation = load_config(config)
        async with nmap_agent(installation, "mail1"), nmap_agent(installation, "mail2"):
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        over.set()
        thread.join()
