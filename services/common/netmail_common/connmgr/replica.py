"""A copy of the login table in the process that decides, so that a known client costs no call.

It only ever says yes, and only while it is fresh: whatever it does not know, or is not sure of, is
for the Connection Manager to answer.
"""

import asyncio
import contextlib
from collections.abc import Callable

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_common.connmgr.client import ConnectionManagerClient
from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.events import (
    Changed,
    Connected,
    Revoked,
    WatchEvent,
    WatchMode,
    boot_time,
)
from netmail_common.connmgr.model import (
    Decision,
    Login,
    LoginProtocol,
    Profile,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.connmgr.watcher import Watcher
from netmail_common.logging import get_logger
from netmail_common.mail_address import MailAddress
from netmail_common.networks import NetworkMap

__all__ = ["LoginReplica"]

log = get_logger(__name__)

_HEARTBEAT = 3.0
_SILENCE = 10.0
_REFUSED_PAUSE = 30.0
_MAX_USERS = 8
"""Until the Connection Manager says its own."""


class LoginReplica:
    """Follows the login table and answers what it is sure of. Belongs to one event loop.

    Args:
        client: of the Connection Manager.
        networks: the map from addresses to networks.
        max_staleness: seconds; with older knowledge nothing is answered.
        max_logins: with more the Connection Manager is asked.
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
        self._networks = networks
        self._max_staleness = max_staleness
        self._max_logins = max_logins
        self._clock = clock
        self._on_revoked = on_revoked
        self._on_event = on_event
        self._max_users = _MAX_USERS
        self._watcher: Watcher | None = None
        self._places: dict[bytes, dict[UserKey, Login]] = {}
        self._size = 0

    @property
    def logins(self) -> int:
        """How many logins it holds; what has just expired may count."""
        return self._size

    @property
    def age(self) -> float:
        """Seconds since everything was known that had happened; infinite before that."""
        fresh_at = self._watcher.fresh_at if self._watcher is not None else 0.0
        return self._clock() - fresh_at if fresh_at else float("inf")

    @property
    def fresh(self) -> bool:
        """Whether it may answer."""
        return self.age <= self._max_staleness and self._size <= self._max_logins

    def allows(self, address: bytes, question: SenderQuestion) -> SenderDecision | None:
        """Decides whether a client may relay.

        Args:
            address: of the client, 4 or 16 octets.
            question: as the Connection Manager would be asked.

        Returns: ALLOWED, or None: ask the Connection Manager.
        """
        if not self.fresh:
            return None
        located = self._networks.locate(address)
        now = self._clock()
        logins = [
            login for login in self._places.get(located.place, {}).values() if login.expires > now
        ]
        decision = decide(question, located.standing, logins, max_users=self._max_users)
        return decision if decision.decision is Decision.ALLOWED else None

    def hold(self, address: bytes) -> None:
        """Asks to be told of an address that the Connection Manager has just allowed.

        Matters where the table is larger than the replica.
        """

    async def run(self) -> None:
        """Follows the table until cancelled."""
        while True:
            self._watcher = self._client.watcher(
                WatchMode.FULL,
                heartbeat=min(_HEARTBEAT, self._max_staleness / 4),
                silence=_SILENCE,
                clock=self._clock,
            )
            try:
                async with contextlib.aclosing(self._watcher.events()) as events:
                    async for event in events:
                        if self._on_event is not None:
                            self._on_event(event)
                        self._take(event)
            except grpc.aio.AioRpcError as error:
                log.error("logins are not to be had", code=error.code().name)  # noqa: TRY400 - no traceback
                self._watcher = None
                self._clear()
                await asyncio.sleep(_REFUSED_PAUSE)

    def _take(self, event: WatchEvent) -> None:
        match event:
            case Connected():
                if not event.resumed:
                    self._clear()
                self._max_users = event.max_users_per_network or _MAX_USERS
            case Changed():
                for change in event.changes:
                    self._apply(change)
            case Revoked() if self._on_revoked is not None:
                self._on_revoked(event)

    def _clear(self) -> None:
        self._places.clear()
        self._size = 0

    def _apply(self, change: pb.LoginChange) -> None:
        one = change.login
        if not one.grants:
            return
        user = UserKey(one.user.name, one.user.context)
        found = self._places.get(one.network)
        if found is None:
            if change.removed:
                return
            found = self._places[one.network] = {}
        before = len(found)
        if change.removed:
            found.pop(user, None)
            if not found:
                del self._places[one.network]
        elif self._size < self._max_logins + 1:
            # What lay in a socket is older than its reading: time counts from the last moment
            # that is known to lie before its sending.
            known = self._watcher.sent_after if self._watcher is not None else 0.0
            found[user] = _login(one, user, known)
        self._size += len(found) - before


def _login(one: pb.Login, user: UserKey, sent: float) -> Login:
    addresses = tuple(one.addresses)
    return Login(
        serial=0,
        profile=Profile(
            user=user,
            addresses=addresses,
            address_keys=tuple(MailAddress.from_wire(text).key() for text in addresses),
            domains=frozenset(one.domains),
        ),
        place=one.network,
        client_address=one.client_address,
        protocol=LoginProtocol(one.protocol),
        messaging_server=one.messaging_server,
        agent="",
        session_id=one.session_id,
        verified=sent - one.age_ms / 1000,
        expires=sent + one.remaining_seconds,
        credential_epoch=one.credential_epoch,
    )
