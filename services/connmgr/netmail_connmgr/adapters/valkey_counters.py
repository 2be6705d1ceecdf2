"""Counters and suspicions that all replicas share, in a Valkey or Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from netmail_common.connmgr.model import UserKey
from netmail_common.logging import get_logger

from netmail_connmgr.adapters.valkey.connection import (
    Argument,
    Reply,
    Script,
    ScriptError,
    Valkey,
)
from netmail_connmgr.domain.counters import Count, Counted, CountersUnavailable
from netmail_connmgr.domain.store import StoreUnavailable
from netmail_connmgr.domain.suspicions import Suspect, SuspicionBook

__all__ = ["SharedSuspicions", "ValkeyCounters"]

log = get_logger(__name__)
T = TypeVar("T")

# As netmail_common.sliding_windows counts, by the server's clock. A part that seems to be still to
# come (the clock was set back) counts.
_COUNT = Script(b"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for at = 1, #ARGV, 4 do
  local key = KEYS[1] .. ':' .. ARGV[at]
  local amount, window = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local limit = tonumber(ARGV[at + 3])
  local width = window / 60
  local part = math.floor(now / width)
  local total, kept = 0, {}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if tonumber(fields[i]) < part - 60 then
      redis.call('HDEL', key, fields[i])
    else
      total = total + tonumber(fields[i + 1])
      kept[#kept + 1] = {tonumber(fields[i]), tonumber(fields[i + 1])}
    end
  end
  if total < 0 then total = 0 end
  local admitted, wait = 1, 0
  local excess = total + (amount == 0 and 1 or amount) - limit
  if limit >= 0 and amount >= 0 and excess > 0 then
    if amount > 0 then admitted = 0 end
    wait = -1
    table.sort(kept, function(one, other) return one[1] < other[1] end)
    for _, one in ipairs(kept) do
      excess = excess - one[2]
      if excess <= 0 then
        wait = math.max(0, math.ceil((one[1] + 61) * width - now))
        break
      end
    end
  elseif amount ~= 0 then
    redis.call('HINCRBY', key, string.format('%d', part), amount)
    redis.call('PEXPIRE', key, math.ceil(window + width))
    total = math.max(0, total + amount)
  end
  answers[#answers + 1] = {total, admitted, wait}
end
return answers
""")
_NOTE = Script(b"""
for at = 2, #ARGV do
  redis.call('SET', KEYS[1] .. ':' .. ARGV[at], '', 'PX', ARGV[1])
end
return 0
""")
_NOTED = Script(b"""
local answers = {}
for at = 1, #ARGV do
  answers[at] = redis.call('EXISTS', KEYS[1] .. ':' .. ARGV[at])
end
return answers
""")
_FORGET = Script(b"""
local gone = 0
for at = 1, #ARGV do
  gone = gone + redis.call('DEL', KEYS[1] .. ':' .. ARGV[at])
end
return gone
""")


class ValkeyCounters:
    """Counters in a store that replicas share; each key is in the partition of its own."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    async def count(self, counts: Sequence[Count]) -> Sequence[Counted]:
        """Answers each by the result of the same index.

        What was lost in a failover may be counted twice.

        Raises: CountersUnavailable.
        """
        found = await self._spread(_COUNT, [one.key for one in counts], _count_arguments(counts))
        return [
            Counted(float(total), bool(admitted), wait / 1000 if wait >= 0 else float("inf"))
            for total, admitted, wait in found
        ]

    async def note(self, keys: Sequence[str], seconds: float) -> None:
        """Remembers the keys for so long from now.

        Raises: CountersUnavailable.
        """
        milliseconds = max(1, int(seconds * 1000))
        groups = self._by_partition(keys)
        await _gather(
            self._valkey.run(_NOTE, partition, [milliseconds, *(keys[index] for index in indexes)])
            for partition, indexes in groups.items()
        )

    async def noted(self, keys: Sequence[str]) -> Sequence[bool]:
        """Which of them are remembered.

        Raises: CountersUnavailable.
        """
        found = await self._spread(_NOTED, keys, [[key] for key in keys])
        return [bool(one) for one in found]

    async def forget(self, keys: Sequence[str]) -> int:
        """Sets counters to zero and forgets notes; how many there were.

        Raises: CountersUnavailable.
        """
        groups = self._by_partition(keys)
        gone = await _gather(
            self._valkey.run(_FORGET, partition, [keys[index] for index in indexes])
            for partition, indexes in groups.items()
        )
        return sum(int(one) for one in gone)

    async def _spread(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Sequence[Argument]]
    ) -> list[Reply]:
        """Runs a script once in each partition; its answers in the order of the keys."""
        groups = self._by_partition(keys)
        replies = await _gather(
            self._valkey.run(
                script, partition, [one for index in indexes for one in arguments[index]]
            )
            for partition, indexes in groups.items()
        )
        found: dict[int, Reply] = {}
        for indexes, reply in zip(groups.values(), replies, strict=True):
            found.update(zip(indexes, reply, strict=True))
        return [found[index] for index in range(len(keys))]

    def _by_partition(self, keys: Sequence[str]) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        for index, key in enumerate(keys):
            groups.setdefault(self._valkey.partition_of(key.encode()), []).append(index)
        return groups


def _count_arguments(counts: Sequence[Count]) -> list[list[Argument]]:
    return [
        [
            one.key,
            one.amount,
            int(one.window * 1000),
            -1 if one.limit == float("inf") else int(one.limit),
        ]
        for one in counts
    ]


async def _gather(calls: Iterable[Awaitable[T]]) -> list[T]:
    try:
        return await asyncio.gather(*calls)
    except (StoreUnavailable, ScriptError) as error:
        raise CountersUnavailable(str(error)) from None


_SUSPICIONS = "suspicions"
_TELL = Script(b"""
redis.call('XADD', KEYS[1] .. ':suspicions', 'MAXLEN', '~', ARGV[1], '*',
  'kind', ARGV[2], 'name', ARGV[3], 'context', ARGV[4], 'seconds', ARGV[5])
redis.call('PEXPIRE', KEYS[1] .. ':suspicions', 172800000)
return 0
""")
_HEAR = Script(b"""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local from = ARGV[1]
if from == '' then from = string.format('%d', now - 90000000) end
local entries = redis.call('XRANGE', KEYS[1] .. ':suspicions', from, '+', 'COUNT', ARGV[2])
return {now, entries}
""")
_MAX_KEPT = 200_000
_AT_ONCE = 1000
_EVERY = 0.5
_MAX_OUTGOING = 100_000


class SharedSuspicions:
    """Tells other replicas whom this one suspects, and suspects whom they suspect.

    A suspicion is known everywhere after half a second, about. While the store is away each
    replica knows its own.

    Args:
        valkey: the store.
        book: of this replica.
        clock: seconds, never going back.
    """

    def __init__(self, valkey: Valkey, book: SuspicionBook, *, clock: Callable[[], float]) -> None:
        self._valkey = valkey
        self._book = book
        self._clock = clock
        self._told: dict[Suspect, float] = {}
        self._outgoing: dict[Suspect, float] = {}
        self._partition = valkey.partition_of(_SUSPICIONS.encode())
        self._last = ""

    def suspect(self, who: Suspect, seconds: float) -> bool:
        """Suspects somebody for so long; whether that is new."""
        now = self._clock()
        if self._told.get(who, 0.0) < now + seconds * 0.9:
            if len(self._told) >= _MAX_OUTGOING:
                self._told.clear()
            self._told[who] = now + seconds
            self._tell(who, seconds)
        return self._book.suspect(who, seconds)

    def acquit(self, who: Suspect) -> None:
        """Suspects somebody no more."""
        self._told.pop(who, None)
        self._tell(who, 0.0)
        self._book.acquit(who)

    async def run(self) -> None:
        """Tells and hears until cancelled."""
        while True:
            try:
                await self._send()
                while await self._hear():
                    pass
            except (StoreUnavailable, ScriptError):
                pass  # the connection has said so
            await asyncio.sleep(_EVERY)

    def _tell(self, who: Suspect, seconds: float) -> None:
        if len(self._outgoing) < _MAX_OUTGOING:
            self._outgoing[who] = seconds

    async def _send(self) -> None:
        while self._outgoing:
            who, seconds = next(iter(self._outgoing.items()))
            kind, name, context = _words(who)
            milliseconds = int(seconds * 1000)
            arguments: list[Argument] = [_MAX_KEPT, kind, name, context, milliseconds]
            await self._valkey.run(_TELL, self._partition, arguments)
            if self._outgoing.get(who) == seconds:
                del self._outgoing[who]

    async def _hear(self) -> bool:
        """Takes what others have told since the last time; whether there may be more."""
        start = f"({self._last}" if self._last else ""
        now, entries = await self._valkey.run(_HEAR, self._partition, [start, _AT_ONCE])
        for entry, fields in entries:
            self._last = entry.decode()
            _, kind, _, name, _, context, _, milliseconds = fields
            age = now - int(self._last.partition("-")[0])
            left = (int(milliseconds) - max(0, age)) / 1000
            who = name if kind == b"network" else UserKey(name.decode(), context.decode())
            if left > 0:
                self._book.suspect(who, left)
            elif int(milliseconds) == 0:
                self._book.acquit(who)
        return len(entries) == _AT_ONCE


def _words(who: Suspect) -> tuple[str, bytes, bytes]:
    if isinstance(who, UserKey):
        return "user", who.name.encode(), who.context.encode()
    return "network", who, b""
