"""A bare uvloop server that answers each datagram with so many octets: `udp_echo PORT SIZE`."""

import asyncio
import sys
from typing import Any

import uvloop


class _Echo(asyncio.DatagramProtocol):
    def __init__(self, reply: bytes) -> None:
        self._reply = reply
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, _data: bytes, addr: Any) -> None:
        self._transport.sendto(self._reply, addr)


async def _serve(port: int, size: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Echo(bytes(size)), local_addr=("127.0.0.1", port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
