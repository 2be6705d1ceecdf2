"""Two Messaging Servers' NMAP agents, and clients of theirs."""

import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netmail_common.certificates import Identity
from netmail_common.config import Installation, parse_config
from netmail_common.nmap import DirectoryClient, NmapChannels
from netmail_common.sasl import (
    AuthenticatedUser,
)
from netmail_nmap.domain.credentials import HashParameters
from scramp import ScramClient

from tests.support.installation import free_port

ADDRESS = ip_address("192.0.2.7")
CHEAP = {"time_cost": 1, "memory_kib": 8}
HASHING = HashParameters(time_cost=1, memory_kib=8)


def two_servers(state: Path, certificates: Path, **nmap: Any) -> Installation:
    def server(name: str, domain: str, context: str, users: dict[str, str]) -> dict[str, Any]:
        return {
            "name": name,
            "host_name": f"{name}.{domain}",
            "domains": [domain],
            "standalone": name == "mail2",
            "ube_relaying": {"smtp_after_pop": False},
            "contexts": [
                {
                    "name": context,
                    "initial_users": [{"name": n, "password": p} for n, p in users.items()],
                }
            ],
            "nmap": {"listen": [f"127.0.0.1:{free_port()}"], "argon2": CHEAP, **nmap},
        }

    return parse_config(
        {
            "grpc": {"certificates": str(certificates)},
            "messaging_servers": [
                server(
                    "mail1",
                    "example.org",
                    "users.demo",
                    {"alice": "wonderland", "bob": "builder"},
                ),
                server("mail2", "branch.example.org", "branch.demo", {"carol": "branch-office"}),
            ],
        },
        state=state,
    )


@contextlib.asynccontextmanager
async def client_of(
    installation: Installation, server: str, identity: Identity, **options: Any
) -> AsyncIterator[DirectoryClient]:
    channels = NmapChannels(installation, server, identity)
    client = DirectoryClient(channels, **options)
    try:
        yield client
    finally:
        await client.close()
        await channels.close()


async def login(client: DirectoryClient, name: str, password: str) -> AuthenticatedUser:
    return await client.authenticate_password(
        name, password, service="smtp", client_address=ADDRESS
    )


async def scram(client: DirectoryClient, name: str, password: str) -> AuthenticatedUser:
    """Logs in as a SCRAM client that checks the server's proof too."""
    theirs = ScramClient(["SCRAM-SHA-256"], name, password)
    exchange = await client.start_scram(
        theirs.get_client_first().encode(), service="imap", client_address=ADDRESS
    )
    theirs.set_server_first(exchange.server_first.decode())
    outcome = await exchange.finish(theirs.get_client_final().encode())
    theirs.set_server_final(outcome.server_final.decode())
    return outcome.user
