"""A Connection Manager whose table is full from the start: `python -m bench.filled_manager`.

Arguments: the folder of certificates, the port, how many logins. The gRPC service, mutual TLS and
the memory store are those of the real process; only the filling goes past gRPC.
"""

import asyncio
import functools
import gc
import os
import signal
import sys
from pathlib import Path

from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.certificates import Identity
from netmail_common.config import LogConfig
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health
from netmail_common.logging import configure_logging
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.roles import Role
from netmail_connmgr.adapters.grpc_service import SERVICE_NAME, ConnectionManagerService
from netmail_connmgr.adapters.memory_store import MemoryStore
from netmail_connmgr.domain.table import TableLimits

from bench.logins import LIFETIME, registration

_AT_ONCE = 1000


async def _serve(certificates: Path, port: int, count: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    store = MemoryStore(TableLimits(login_lifetime=LIFETIME, max_logins=count + 1_000_000))
    for first in range(0, count, _AT_ONCE):
        last = min(first + _AT_ONCE, count)
        await store.register([registration(number) for number in range(first, last)])
    gc.collect()
    gc.freeze()
    service = ConnectionManagerService(store, NetworkMap(AddressRules()), max_users_per_network=8)
    stalls = asyncio.create_task(service.watch_stalls())
    async with grpc_server(
        listen=[f"127.0.0.1:{port}"],
        identity=Identity.from_folder(certificates, Role.CONNMGR),
        role=Role.CONNMGR,
        installation="netmail",
        register=functools.partial(
            connmgr_pb2_grpc.add_ConnectionManagerServiceServicer_to_server, service
        ),
        health=Health(),
        service_names=[SERVICE_NAME],
        drain_timeout=1.0,
    ):
        os.write(int(os.environ["NETMAIL_READY_FD"]), b"ready\n")
        await stopped.wait()
        service.drain()
    stalls.cancel()


if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"), service="connmgr", instance="bench")
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
