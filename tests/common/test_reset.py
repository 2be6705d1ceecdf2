"""A reset connection leaves nothing behind in the kernel."""

import asyncio
import ssl
from typing import Any

from netmail_common.certificates import LocalAuthority
from netmail_common.reset import reset
from netmail_common.tls import ServerTls

from tests.loops import on_both_loops


class Flood(asyncio.Protocol):
    """Writes far more than a client that reads nothing can take, and is cut."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"x" * 20_000_000)
        asyncio.get_running_loop().call_later(0.1, reset, transport)


async def outcome(port: int) -> type[BaseException] | None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
    await asyncio.sleep(0.3)
    try:
        while await reader.read(65536):
            pass
    except ConnectionResetError as error:
        return type(error)
    finally:
        writer.close()
    return None


@on_both_loops
async def test_a_client_that_reads_nothing_is_reset() -> None:
    server = await asyncio.get_running_loop().create_server(Flood, "127.0.0.1", 0)
    assert await outcome(server.sockets[0].getsockname()[1]) is ConnectionResetError
    server.close()


@on_both_loops
async def test_the_same_under_tls(authority: LocalAuthority, tmp_path: Any) -> None:
    paths = tmp_path / "x.pem", tmp_path / "x.key"
    authority.issue_server("mail.example.org", *paths)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Flood, "127.0.0.1", 0, ssl=ServerTls(*paths, "1.2").context)
    context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        server.sockets[0].getsockname()[1],
        ssl=context,
        server_hostname="mail.example.org",
        limit=1000,
    )
    await asyncio.sleep(0.3)
    seen = b""
    try:
        while data := await reader.read(65536):
            seen += data
    except ConnectionResetError:
        seen += b"reset"
    assert seen.endswith(b"reset")
    writer.close()
    server.close()
