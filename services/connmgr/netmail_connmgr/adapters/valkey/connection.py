"""Runs scripts at the primary of a partition, over failovers and redirections."""

import hashlib
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from netmail_common.config import ValkeyConfig
from netmail_common.logging import get_logger

from netmail_connmgr.adapters.valkey.routes import ClusterRoute, Route, SentinelRoute, SingleRoute
from netmail_connmgr.adapters.valkey.wire import (
    Command,
    Credentials,
    ErrorReply,
    Reply,
    Server,
    Wire,
    WireError,
)
from netmail_connmgr.domain.store import StoreUnavailable

__all__ = ["Argument", "Reply", "Script", "ScriptError", "Valkey", "boot_time"]

log = get_logger(__name__)

Argument = bytes | str | int
_ATTEMPTS = 4


def boot_time() -> float:
    """Seconds since the machine started, time asleep included; it never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Script:
    """Lua that the server runs as one step.

    It gets one key, KEYS[1]: the partition's prefix, to which it appends `:name`.
    Without the flag `no-writes` it runs only at a primary that may write, which is what a read
    must be sure of, too.
    """

    source: bytes
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


class ScriptError(StoreUnavailable):
    """A script refused, by an error of its own.

    Attributes:
        code: the first word of the error.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Valkey:
    """A Valkey or Redis by partitions: one, or in a cluster several, each on one server.

    Belongs to one event loop.

    Attributes:
        losses: grows whenever a server was lost; another may have taken its place since.
        route: to the primaries.
        timeout: seconds for an answer.

    Args:
        config: where it is and how to log in.
        clock: seconds that count while the process is stopped.

    Raises: ConfigError.
    """

    def __init__(self, config: ValkeyConfig, *, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self.timeout = config.timeout
        self._wire = Wire(
            config, Credentials(config.username, config.password_file), config.database
        )
        self.route = _route(self._wire, config)
        self._prefixes = [f"{config.prefix}:{{{tag}}}".encode() for tag in self.route.tags]
        self.losses = 0
        self._troubled: set[int] = set()

    @property
    def partitions(self) -> range:
        """Their numbers."""
        return range(len(self._prefixes))

    def partition_of(self, subject: bytes) -> int:
        """The partition in which everything about the subject is."""
        return zlib.crc32(subject) % len(self._prefixes)

    def key(self, partition: int, name: str) -> bytes:
        """A key of a partition, as scripts build it."""
        return self._prefixes[partition] + b":" + name.encode()

    async def run(
        self,
        script: Script,
        partition: int,
        args: Sequence[Argument] = (),
        *,
        replicas: int = 0,
        repeat: bool = True,
    ) -> Reply:
        """Runs a script at the partition's primary and gives its reply.

        Args:
            replicas: that must have what it wrote before this returns.
            repeat: try again when it is not known whether it ran.

        Raises: StoreUnavailable; as ScriptError, for an error that the script gave.
        """
        call: Command = ("EVALSHA", script.sha, 1, self._prefixes[partition], *args)
        wait = self._wait(replicas)
        try:
            replies = await self.send(partition, [call, *wait], repeat=repeat)
            if _code(replies[0]) == "NOSCRIPT":
                call = ("EVAL", script.source, 1, self._prefixes[partition], *args)
                replies = await self.send(partition, [call, *wait], repeat=repeat)
        except ScriptError:
            raise
        except StoreUnavailable as error:
            self._say(partition, str(error))
            raise
        self._say(partition, "")
        if wait and replies[-1] < replicas:
            raise StoreUnavailable(f"{replies[-1]} of {replicas} replicas have it")
        return replies[0]

    async def send(
        self,
        partition: int,
        commands: Sequence[Command],
        *,
        seconds: float | None = None,
        repeat: bool = True,
    ) -> list[Reply]:
        """Sends commands to the partition's primary; a reply for each, in the same order.

        Raises: StoreUnavailable; as ScriptError, for any other error.
        """
        end = self._clock() + (seconds or self.timeout)
        asking: Server | None = None
        for attempt in range(_ATTEMPTS):
            server = asking or await self.route.primary(partition)
            prefix: list[Command] = [("ASKING",)] if asking else []
            asking = None
            left = end - self._clock()
            try:
                replies = await self._wire.exchange(server, [*prefix, *commands], left)
            except WireError:
                self._lose(server)
                if not repeat or attempt == _ATTEMPTS - 1 or self._clock() >= end:
                    raise
                continue
            # A reply that lay about while this process was stopped says what was, not what is.
            if self._clock() > end:
                raise StoreUnavailable("the answer came too late")
            replies = replies[len(prefix) :]
            code = _code(replies[0])
            if code in ("MOVED", "ASK"):
                other = _redirected(replies[0], server)
                if code == "MOVED":
                    self.route.moved(partition, other)
                else:
                    asking = other
            elif code in _ELSEWHERE:
                self._lose(server)
            else:
                _check(replies)
                return replies
        raise StoreUnavailable("no server answers as the primary")

    async def replicas(self, partition: int) -> int:
        """How many replicas the partition's primary has that are up with it.

        Raises: StoreUnavailable.
        """
        (reply,) = await self.send(partition, [("INFO", "replication")])
        return int(reply.count(b",state=online,"))

    def replaced(self) -> None:
        """Another primary has taken over, and may have lost something."""
        self.losses += 1

    async def close(self) -> None:
        """Closes all connections."""
        await self.route.close()
        await self._wire.close()

    def _lose(self, server: Server) -> None:
        """A server did not answer as a primary does."""
        self.losses += 1
        self._wire.forget(server)
        self.route.look_again()

    def _wait(self, replicas: int) -> list[Command]:
        return [("WAIT", replicas, int(self.timeout * 500))] if replicas else []

    def _say(self, partition: int, trouble: str) -> None:
        """One line in the log when something goes away, and one when all is back."""
        before = bool(self._troubled)
        if trouble:
            self._troubled.add(partition)
            if not before:
                log.warning("the store does not answer", reason=trouble)
        elif before:
            self._troubled.discard(partition)
            if not self._troubled:
                log.info("the store answers again")


_ELSEWHERE = frozenset(
    {"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED"}
)
"""Error replies of a server that is not, or not yet, the primary of the slot."""
_UNABLE = frozenset({"NOREPLICAS", "OOM", "MISCONF", "NOAUTH", "WRONGPASS", "NOPERM", "BUSY"})
"""Error replies of one that cannot."""


def _route(wire: Wire, config: ValkeyConfig) -> Route:
    match config.mode:
        case "single":
            return SingleRoute(config)
        case "sentinel":
            return SentinelRoute(config)
        case "cluster":
            return ClusterRoute(wire, config)


def _code(reply: Reply) -> str:
    """The first word of an error reply; empty for any other. The library may cut it off."""
    if not isinstance(reply, ErrorReply):
        return ""
    return str(reply.status_code or str(reply).partition(" ")[0])


def _redirected(reply: ErrorReply, asked: Server) -> Server:
    """Reads `slot host:port`; no host means the one that was asked."""
    host, _, port = str(reply).split(" ")[-1].rpartition(":")
    return Server(host.strip("[]") or asked.host, int(port))


def _check(replies: Sequence[Reply]) -> None:
    for reply in replies:
        code = _code(reply)
        if code in _UNABLE:
            raise StoreUnavailable(f"{code}: {reply}")
        if code and code != "NOSCRIPT":
            raise ScriptError(code, str(reply))
