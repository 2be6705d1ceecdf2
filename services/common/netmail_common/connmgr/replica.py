"""A copy of the login table in the process that decides, so that a known client costs no call.

It only ever says yes, and only while it is fresh: whatever it does not know, or is not sure of, is
for the Connection Manager to answer.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from typing import Any

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_common.connmgr.client import ConnectionManagerClient
from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.events import (
    Beaten,
    Changed,
    Connected,
    Held,
    Revoked,
    WatchEvent,
    WatchMode,
    boot_time,
)
from netmail_common.connmgr.held import HeldPlaces
from netmail_common.connmgr.model import Decision, SenderDecision, SenderQuestion
from netmail_common.connmgr.packed import BadRecord, place_of
from netmail_common.connmgr.replica_table import ReplicaTable
from netmail_common.connmgr.watcher import Watcher
from netmail_common.logging import get_logger
from netmail_common.networks import AddressRules, NetworkMap

__all__ = ["LoginReplica"]

log = get_logger(__name__)

_HEARTBEAT = 3.0
_SILENCE = 10.0
_REFUSED_PAUSE = 30.0
_MAX_AT_PLACE = 100
"""Logins from one network that are looked at here; about more the Connection Manager decides."""
_DROP_AT_ONCE = 5000
_ROOM_AGAIN = 0.75
"""Share of max_logins below which the whole table is taken again."""


class LoginReplica:
    """Follows the login table and answers what it is sure of. Belongs to one event loop.

    While the table has at most `max_logins` the replica has all of them. Beyond that it holds
    the networks that it was told to hold, as many as there is room for.

    Args:
        client: of the Connection Manager.
        networks: the map from addresses to networks.
        max_staleness: seconds; with older knowledge nothing is answered.
        max_logins: that it keeps.
        clock: seconds, never going back, counting while the machine sleeps.
        on_revoked: told of every revocation, so that the process needs no second stream.
        on_event: told of everything that the stream tells.
    """

    def __init__(
        self,
        client: ConnectionManagerClient,
        networks: NetworkMap,
        *,
        max_staleness: float,
        max_logins: int,
        clock: Callable[[], float] = boot_time,
        on_revoked: Callable[[Revoked], None] | None = None,
        on_event: Callable[[WatchEvent], None] | None = None,
    ) -> None:
        self._client = client
        self._rules = networks.rules
        self._networks = networks
        self._max_staleness = max_staleness
        self._max_logins = max_logins
        self._clock = clock
        self._on_revoked = on_revoked
        self._on_event = on_event
        self._max_users = 0
        self._mode = WatchMode.FULL
        self._watcher = self._new_watcher()
        self._table = ReplicaTable()
        self._held = HeldPlaces()

    def use(self, rules: AddressRules) -> None:
        """Judges addresses by other rules of the configuration; what the stream told stays."""
        before, self._rules = self._rules, rules
        names = [one.name for one in fields(rules)]
        changed: dict[str, Any] = {
            name: getattr(rules, name)
            for name in names
            if getattr(rules, name) != getattr(before, name)
        }
        if changed:
            self._networks = NetworkMap(replace(self._networks.rules, **changed))

    @property
    def logins(self) -> int:
        """How many logins it holds; what has just expired may count."""
        return len(self._table)

    @property
    def age(self) -> float:
        """Seconds since everything was known that had happened; infinite before that."""
        fresh_at = self._watcher.fresh_at
        return self._clock() - fresh_at if fresh_at else float("inf")

    @property
    def fresh(self) -> bool:
        """Whether it may answer."""
        return self.age <= self._max_staleness

    @property
    def holds_all(self) -> bool:
        """Whether it has the whole table, or is to have it. False: only networks it was told."""
        return self._mode is WatchMode.FULL

    def allows(self, address: bytes, question: SenderQuestion) -> SenderDecision | None:
        """Decides whether a client may relay.

        Args:
            address: of the client, 4 or 16 octets.
            question: as the Connection Manager would be asked.

        Returns: ALLOWED, its times on the table's clock; or None: ask the Connection Manager.
        """
        now, fresh_at = self._clock(), self._watcher.fresh_at
        if not fresh_at or now - fresh_at > self._max_staleness:
            return None
        located = self._networks.locate(address)
        place = located.place
        if self._mode is WatchMode.HELD:
            if place not in self._held:
                return None
            self._held.use(place)
        try:
            logins = self._table.at(place, now + self._watcher.table_ahead, _MAX_AT_PLACE)
        except BadRecord:
            return None
        if not logins:
            return None
        decision = decide(question, located.standing, logins, max_users=self._max_users)
        return decision if decision.decision is Decision.ALLOWED else None

    def hold(self, address: bytes) -> None:
        """Asks to be told of the network of an address that was allowed just now.

        Does nothing while it has the whole table.
        """
        if self._mode is not WatchMode.HELD or not self._watcher.fresh_at:
            return
        located = self._networks.locate(address)
        if self._max_logins and located.grants and self._held.want(located.place, address):
            self._watcher.hold([address], self._make_room())

    async def run(self) -> None:
        """Follows the table until cancelled."""
        while True:
            self._watcher = self._new_watcher()
            try:
                async with contextlib.aclosing(self._watcher.events()) as events:
                    async for event in events:
                        if self._on_event is not None:
                            self._on_event(event)
                        self._take(event)
                        if self._changes_mode(event):
                            break
            except grpc.aio.AioRpcError as error:
                log.error("logins are not to be had", code=error.code().name)  # noqa: TRY400 - no traceback
                await self._give_up()
            except BadRecord as error:
                log.error("logins are not understood", error=str(error))  # noqa: TRY400 - no traceback
                await self._give_up()

    def _new_watcher(self) -> Watcher:
        return self._client.watcher(
            self._mode,
            heartbeat=min(_HEARTBEAT, self._max_staleness / 4),
            silence=_SILENCE,
            clock=self._clock,
        )

    async def _give_up(self) -> None:
        """Knows nothing for a while."""
        self._forget()
        await asyncio.sleep(_REFUSED_PAUSE)

    def _forget(self) -> None:
        self._watcher.fresh_at = 0.0
        self._table.clear()

    def _changes_mode(self, event: WatchEvent) -> bool:
        """Looks whether the table still fits, or fits again."""
        count = event.logins if isinstance(event, Connected | Beaten) else 0
        if self._mode is WatchMode.FULL and max(count, len(self._table)) > self._max_logins:
            self._mode = WatchMode.HELD
        elif (
            self._mode is WatchMode.HELD
            and isinstance(event, Beaten)
            and count < self._max_logins * _ROOM_AGAIN
        ):
            self._mode = WatchMode.FULL
        else:
            return False
        log.info("replica", holds_all=self.holds_all, logins=max(count, len(self._table)))
        self._forget()
        return True

    def _take(self, event: WatchEvent) -> None:
        match event:
            case Connected():
                self._connected(event)
            case Changed():
                self._change(event.changes)
            case Held():
                self._hold(event.held)
            case Revoked() if self._on_revoked is not None:
                self._on_revoked(event)
            case Beaten():
                now = self._clock() + self._watcher.table_ahead
                self._table.drop_expired(now, _DROP_AT_ONCE)
            case _:
                pass

    def _connected(self, event: Connected) -> None:
        self._max_users = event.max_users_per_network
        own = {ip_address(octets) for octets in event.own_addresses}
        rules = replace(
            self._rules,
            own_addresses=self._rules.own_addresses | own,
            cluster_networks=tuple(ip_network(text) for text in event.cluster_networks),
        )
        if rules != self._networks.rules:
            self._networks = NetworkMap(rules)
        if event.resumed:
            return
        self._table.clear(min(event.logins, self._max_logins))
        if self._mode is WatchMode.HELD:
            self._watcher.hold(self._held.begin_anew(), ())

    def _change(self, changes: pb.LoginChanges) -> None:
        table = self._table
        table.learn(changes.origins)
        for key in changes.removed:
            table.remove(key)
        records: Iterable[bytes] = changes.records
        if self._mode is WatchMode.HELD:
            records = [record for record in records if place_of(record) in self._held]
        for record in records:
            table.put(record)
        if self._mode is WatchMode.HELD:
            self._watcher.hold((), self._make_room())

    def _hold(self, answer: pb.HeldNetworks) -> None:
        table = self._table
        table.learn(answer.origins)
        held = set()
        for address in answer.addresses:
            place = self._networks.locate(address).place
            table.remove_place(place)
            if self._held.answered(place):
                held.add(place)
        for record in answer.records:
            if place_of(record) in held:
                table.put(record)
        for address in answer.refused:
            place = self._networks.locate(address).place
            self._held.answered(place)
            self._held.let_go(place)
        self._watcher.hold((), self._make_room())

    def _make_room(self) -> list[bytes]:
        """Lets networks go until the rest fits; an address of each."""
        gone = []
        while self._held and max(len(self._table), len(self._held)) > self._max_logins:
            place, address = self._held.oldest()
            self._table.remove_place(place)
            gone.append(address)
        return gone
