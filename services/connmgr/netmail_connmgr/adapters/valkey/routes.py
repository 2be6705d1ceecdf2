"""Which server is the primary of a partition: one server, Sentinel's choice, or a cluster's."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Protocol

from netmail_common.config import ConfigError, ValkeyConfig
from redis.crc import key_slot

from netmail_connmgr.adapters.valkey.wire import (
    Credentials,
    ErrorReply,
    Reply,
    Server,
    Wire,
    WireError,
)

__all__ = ["ClusterRoute", "Route", "SentinelRoute", "SingleRoute", "partition_tags"]

CLUSTER_PARTITIONS = 16
_SLOTS = 16_384
_SOON = 0.2
"""Seconds within which a Sentinel answers that is as near as the first."""


def partition_tags(count: int) -> tuple[str, ...]:
    """Hash tags of so many partitions, whose slots are spread evenly over a cluster's."""
    tags = []
    for partition in range(count):
        candidate = 0
        while key_slot(str(candidate).encode()) * count // _SLOTS != partition:
            candidate += 1
        tags.append(str(candidate))
    return tuple(tags)


class Route(Protocol):
    """The way to each partition's primary, as far as it is known.

    Attributes:
        tags: the hash tag of each partition.
    """

    tags: tuple[str, ...]

    async def primary(self, partition: int) -> Server:
        """The primary of a partition.

        Raises: WireError.
        """

    def look_again(self) -> None:
        """Finds the primaries anew before the next call: the one that was called is none."""

    async def look(self) -> None:
        """Finds the primaries anew, while calls go on: one may have been replaced unnoticed.

        Raises: WireError.
        """

    def moved(self, partition: int, server: Server) -> None:
        """A server named another one for a partition."""

    async def close(self) -> None:
        """Closes the connections of its own."""


class SingleRoute:
    """One server, for everything."""

    def __init__(self, config: ValkeyConfig) -> None:
        """Raises: ConfigError."""
        if len(config.addresses) != 1:
            raise ConfigError(
                "valkey.addresses: mode single has one address; several servers are Sentinels"
                " or a cluster"
            )
        self.tags = partition_tags(1)
        self._server = Server.parse(config.addresses[0])

    async def primary(self, partition: int) -> Server:  # noqa: ARG002 - there is one
        """The server."""
        return self._server

    def look_again(self) -> None:
        """There is no other."""

    async def look(self) -> None:
        """There is no other."""

    def moved(self, partition: int, server: Server) -> None:
        """It is no cluster."""

    async def close(self) -> None:
        """Has no connections of its own."""


class _LearntRoute(ABC):
    """A route that is asked for, once for all who want it."""

    def __init__(self, wire: Wire, config: ValkeyConfig) -> None:
        self._wire = wire
        self._timeout = config.timeout / 2
        self._addresses = [Server.parse(address) for address in config.addresses]
        self._lock = asyncio.Lock()
        self._doubted = True

    def look_again(self) -> None:
        """Asks anew before the next call."""
        self._doubted = True

    async def look(self) -> None:
        """Asks anew, while calls go on.

        Raises: WireError.
        """
        async with self._lock:
            await self._learn()
            self._doubted = False

    async def _look_if_doubted(self) -> None:
        async with self._lock:
            if self._doubted:
                await self._learn()
                self._doubted = False

    @abstractmethod
    async def _learn(self) -> None:
        """Raises: WireError."""

    async def _ask(self, server: Server, *command: str) -> Reply:
        (reply,) = await self._wire.exchange(server, [command], self._timeout)
        if isinstance(reply, ErrorReply):
            raise WireError(str(reply))
        return reply


class SentinelRoute(_LearntRoute):
    """The primary that the Sentinels name."""

    def __init__(self, config: ValkeyConfig) -> None:
        credentials = Credentials(config.sentinel_username, config.sentinel_password_file)
        super().__init__(Wire(config, credentials), config)
        self.tags = partition_tags(1)
        self._service = config.service_name
        self._primary: Server | None = None

    async def primary(self, partition: int) -> Server:  # noqa: ARG002 - there is one
        """The primary by the newest word of all Sentinels that answer."""
        if self._doubted:
            await self._look_if_doubted()
        if self._primary is None:
            raise WireError("no Sentinel knows the primary")
        return self._primary

    def moved(self, partition: int, server: Server) -> None:
        """It is no cluster."""

    async def close(self) -> None:
        """Closes the connections to the Sentinels."""
        await self._wire.close()

    async def _learn(self) -> None:
        command = ("SENTINEL", "MASTER", self._service)
        answers = await _answers([self._ask(one, *command) for one in self._addresses])
        found = [_fields(answer) for answer in answers if isinstance(answer, list)]
        if not found:
            raise WireError(f"no Sentinel knows {self._service!r}: {answers[0]}")
        # One that was cut off still names the old primary, with the older epoch.
        newest = max(found, key=lambda fields: int(fields.get("config-epoch", "0")))
        self._primary = Server(newest["ip"], int(newest["port"]))


class ClusterRoute(_LearntRoute):
    """The cluster's own table of slots."""

    def __init__(self, wire: Wire, config: ValkeyConfig) -> None:
        super().__init__(wire, config)
        self.tags = partition_tags(CLUSTER_PARTITIONS)
        self._slots = [key_slot(tag.encode()) for tag in self.tags]
        self._primaries: dict[int, Server] = {}
        self._known: list[Server] = []

    async def primary(self, partition: int) -> Server:
        """The primary of a partition's slot."""
        if self._doubted:
            await self._look_if_doubted()
        try:
            return self._primaries[partition]
        except KeyError:
            self._doubted = True
            raise WireError("the cluster serves no such slot") from None

    def moved(self, partition: int, server: Server) -> None:
        """Takes a redirection's word."""
        self._primaries[partition] = server

    async def close(self) -> None:
        """Has no connections of its own."""

    async def _learn(self) -> None:
        reason: WireError | None = None
        for server in dict.fromkeys([*self._known, *self._addresses]):
            try:
                ranges = await self._ask(server, "CLUSTER", "SLOTS")
            except WireError as error:
                reason = error
                continue
            self._take(ranges, server)
            return
        raise reason or WireError("no node of the cluster is known")

    def _take(self, ranges: Sequence[Reply], asked: Server) -> None:
        """Reads a reply to CLUSTER SLOTS: first slot, last slot, primary, replicas."""
        nodes: dict[Server, None] = {}
        self._primaries = {}
        for first, last, *members in ranges:
            servers = [Server(_text(host) or asked.host, port) for host, port, *_ in members]
            nodes.update(dict.fromkeys(servers))
            for partition, slot in enumerate(self._slots):
                if first <= slot <= last:
                    self._primaries[partition] = servers[0]
        self._known = [asked, *nodes]


async def _answers(questions: Sequence[Coroutine[None, None, Reply]]) -> list[Reply]:
    """Answers and errors of all that answer soon after the first: one may never."""
    tasks = [asyncio.create_task(question) for question in questions]
    try:
        pending = set(tasks)
        while pending and not any(_has_answered(task) for task in tasks):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=_SOON)
    finally:
        for task in tasks:
            task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


def _has_answered(task: asyncio.Task[Reply]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _fields(reply: list[Reply]) -> dict[str, str]:
    texts = [_text(item) for item in reply]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _text(value: Reply) -> str:
    return value.decode() if isinstance(value, bytes) else ""
