"""The UDP socket under both protocols: batches in, trains of datagrams out."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from netmail_connmgr.adapters import datagram_socket
from netmail_connmgr.adapters.datagram_socket import Datagram, DatagramSocket

_SIZE = 400


class _Ours:
    """A DatagramSocket and what it has received."""

    def __init__(self) -> None:
        bound = _bind()
        self.batches: list[Sequence[Datagram]] = []
        self._came = asyncio.Event()
        self.socket = DatagramSocket(bound, _SIZE, self._received)

    def _received(self, _socket: DatagramSocket, batch: Sequence[Datagram]) -> None:
        self.batches.append(batch)
        self._came.set()

    async def wait_for(self, count: int) -> list[Datagram]:
        """What has come, when it is so much."""
        async with asyncio.timeout(10):
            while sum(map(len, self.batches)) < count:
                self._came.clear()
                await self._came.wait()
        return [one for batch in self.batches for one in batch]


@pytest.fixture
async def ours() -> AsyncIterator[_Ours]:
    one = _Ours()
    yield one
    one.socket.close()


@pytest.fixture
def clients() -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_bind()) for _ in range(2)]


def _bind() -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.setblocking(False)
    return one


def _all_of(client: socket.socket) -> list[bytes]:
    """What has come; on loopback it has when it is sent."""
    came = []
    with contextlib.suppress(BlockingIOError):
        while True:
            came.append(client.recv(1000))
    return came


def _numbered(count: int, size: int = _SIZE) -> list[bytes]:
    return [number.to_bytes(2, "big") * (size // 2) for number in range(count)]


@pytest.mark.parametrize("segments", [True, False], ids=["in one piece", "one by one"])
async def test_every_datagram_arrives_by_itself_and_in_its_order(
    ours: _Ours, clients: list[socket.socket], monkeypatch: pytest.MonkeyPatch, segments: bool
) -> None:
    if not segments:
        monkeypatch.setattr(ours.socket, "_segments", False)
    to_first, to_second = _numbered(100), _numbered(30)
    first, second = (client.getsockname() for client in clients)
    mixed = [(data, first) for data in to_first]
    mixed[10:10] = [(data, second) for data in to_second]
    assert ours.socket.send(mixed) == 0
    assert _all_of(clients[0]) == to_first
    assert _all_of(clients[1]) == to_second


async def test_datagrams_of_several_sizes_keep_their_sizes(
    ours: _Ours, clients: list[socket.socket]
) -> None:
    target = clients[0].getsockname()
    sent = [*_numbered(3, 276), *_numbered(3), b"", *_numbered(2, 276), b""]
    assert ours.socket.send([(data, target) for data in sent]) == 0
    assert sorted(_all_of(clients[0])) == sorted(sent)


async def test_what_cannot_go_in_one_piece_goes_one_by_one(
    ours: _Ours, clients: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than an IPv4 packet holds: the kernel refuses it.
    monkeypatch.setattr(datagram_socket, "_MAX_SEGMENTS", 100)
    monkeypatch.setattr(datagram_socket, "_MAX_TRAIN", 100_000)
    sent = _numbered(70, 1000)
    assert ours.socket.send([(data, clients[0].getsockname()) for data in sent]) == 0
    assert _all_of(clients[0]) == sent


async def test_datagrams_without_a_route_are_counted_as_lost(ours: _Ours) -> None:
    # The kernel asks for SO_BROADCAST before it sends there.
    assert ours.socket.send([(data, ("255.255.255.255", 9)) for data in _numbered(5)]) == 5


async def test_a_batch_is_what_has_come(ours: _Ours, clients: list[socket.socket]) -> None:
    sent = _numbered(20)
    for data in sent:
        clients[0].sendto(data, ("127.0.0.1", ours.socket.port))
    assert await ours.wait_for(len(sent)) == [(data, clients[0].getsockname()) for data in sent]


async def test_a_socket_that_pauses_leaves_datagrams_with_the_kernel(
    ours: _Ours, clients: list[socket.socket]
) -> None:
    ours.socket.pause()
    clients[0].sendto(b"later", ("127.0.0.1", ours.socket.port))
    await asyncio.sleep(0.05)
    assert not ours.batches
    ours.socket.resume()
    assert await ours.wait_for(1) == [(b"later", clients[0].getsockname())]
