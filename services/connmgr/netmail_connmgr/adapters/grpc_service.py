"""The Connection Manager's gRPC service over a store."""
# ruff: noqa: ARG002 - the API names methods and parameters

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.grpc_errors import RpcError
from netmail_common.logging import get_logger
from netmail_common.metrics import timed
from netmail_common.networks import Located, NetworkMap

from netmail_connmgr.adapters import convert, metrics, record
from netmail_connmgr.adapters.grpc_addresses import AddressMethods
from netmail_connmgr.adapters.grpc_audit import AuditMethods
from netmail_connmgr.adapters.grpc_connections import ConnectionMethods, require_admin
from netmail_connmgr.adapters.grpc_events import EventMethods
from netmail_connmgr.adapters.grpc_watch import WatchContext, Watchers
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.watch_stream import WatchTerms
from netmail_connmgr.domain.door import Candidate, NotAdmitted, check_user
from netmail_connmgr.domain.front_desk import Enquiry, FrontDeskUnavailable
from netmail_connmgr.domain.stall import TICK
from netmail_connmgr.domain.store import (
    BadPageToken,
    LoginFilter,
    LoginStore,
    RevokeOrder,
    StoreFull,
    StoreUnavailable,
)
from netmail_connmgr.domain.suspicions import SuspicionFeed
from netmail_connmgr.domain.table import Outcome, Registered

__all__ = ["SERVICE_NAME", "ConnectionManagerService"]

SERVICE_NAME = "netmail.connmgr.v1.ConnectionManagerService"

MAX_ITEMS = 1000
_PAGE_SIZE = 100
_MAX_PAGE_SIZE = 1000

log = get_logger(__name__)
T = TypeVar("T")


class ConnectionManagerService(ConnectionMethods, EventMethods, AuditMethods, AddressMethods):
    """Decisions and the login table by gRPC.

    Args:
        store: of the table.
        networks: the one map from addresses to networks.
        max_users_per_network: with more the sender binding is strict.
        suspicions: whom agents are to ask about before a login; None: about nobody.

    Attributes:
        desk: registers and decides; for the front ends too.
    """

    def __init__(
        self,
        store: LoginStore,
        networks: NetworkMap,
        *,
        max_users_per_network: int,
        suspicions: SuspicionFeed | None = None,
    ) -> None:
        self._store = store
        self._max_users = max_users_per_network
        self.desk = LocalDesk(store, networks, max_users_per_network=max_users_per_network)
        self._suspicions = suspicions
        self._watchers = Watchers(store, self._terms)
        self._last_told: tuple[float, int, bool] | None = None

    @property
    def instance_id(self) -> str:
        """Of the table."""
        return self._store.instance_id

    def use(self, networks: NetworkMap) -> None:
        """Judges addresses by another map from now on; so must those who hold replicas."""
        self.desk.networks = networks
        self._watchers.begin_anew()

    def go_on_with(self, *, login_lifetime: float, max_users_per_network: int) -> None:
        """Takes other terms, of which the checks of connections are a part; tells the watchers."""
        self._store.live_for(login_lifetime)
        self._max_users = max_users_per_network
        self.desk.limit_users(max_users_per_network)
        if self._told() != self._last_told:
            self._watchers.begin_anew()

    def _told(self) -> tuple[float, int, bool]:
        """What watchers are told when their streams begin, the networks aside."""
        return self._store.login_lifetime, self._max_users, self.desk.checks_every_connection

    async def watch_stalls(self) -> None:
        """Notices when the process stands still, until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            stall = self.desk.guard.beat(self._store.now())
            if stall:
                log.warning("the process stood still", seconds=round(stall, 1))

    def drain(self) -> None:
        """Ends the streams of watchers; they come back elsewhere, or to the next process."""
        self._watchers.end_all()

    async def RegisterLogin(
        self, request: pb.RegisterLoginRequest, context: object
    ) -> pb.RegisterLoginResponse:
        """Registers or renews logins."""
        _check_count(request.items)
        results = [Registered(Outcome.INVALID)] * len(request.items)
        candidates: dict[int, Candidate] = {}
        for index, item in enumerate(request.items):
            try:
                candidates[index] = convert.candidate(item)
            except NotAdmitted as verdict:
                record.not_admitted(item.user.name, item.client_address, str(verdict))
        answers = await _ask(self.desk.register(list(candidates.values())))
        for index, answer in zip(candidates, answers, strict=True):
            results[index] = answer
        return pb.RegisterLoginResponse(
            results=[convert.register_result(result) for result in results],
            instance_id=self._store.instance_id,
            login_lifetime_seconds=int(self._store.login_lifetime),
        )

    async def CheckSender(
        self, request: pb.CheckSenderRequest, context: Any
    ) -> pb.CheckSenderResponse:
        """Decides for clients that want to relay."""
        _check_count(request.items)
        enquiries = [
            Enquiry(item.client_address, convert.question(item), item.messaging_server)
            for item in request.items
        ]
        try:
            if request.explain:
                require_admin()
                results = [await self._explained(enquiry) for enquiry in enquiries]
            else:
                answers = await _ask(self.desk.enquire(enquiries))
                results = [convert.sender_decision(one.decision, one.remaining) for one in answers]
        except ValueError:
            raise _bad_address() from None
        return pb.CheckSenderResponse(results=results, instance_id=self._store.instance_id)

    async def _explained(self, enquiry: Enquiry) -> pb.SenderDecision:
        answer, lines = await _ask(self.desk.explain(enquiry))
        message = convert.sender_decision(answer.decision, answer.remaining)
        message.explanation.extend(lines)
        return message

    async def RevokeLogins(
        self, request: pb.RevokeLoginsRequest, context: object
    ) -> pb.RevokeLoginsResponse:
        """Ends logins by user, by address, or both."""
        user = convert.named_user(request.user)
        if user is None and not request.client_address:
            raise _invalid("NOTHING_TO_REVOKE", "give a user, an address, or both")
        if user is None and request.credential_epoch:
            raise _invalid("EPOCH_WITHOUT_USER", "a credential epoch is a user's")
        if user is not None:
            _check_user(request.user)
        where = self._locate(request.client_address) if request.client_address else None
        order = RevokeOrder(
            user=user,
            network=where.key if where is not None else None,
            credential_epoch=request.credential_epoch,
            client_address=request.client_address or None,
            prefix_length=where.prefix_length if where is not None else 0,
            reason=request.reason[:100],
        )
        with timed(metrics.DURATION.labels("revoke")):
            revoked = await _ask(self._store.revoke(order))
        record.revocation(order, revoked)
        metrics.LOGINS.set(await _ask(self._store.size()))
        return pb.RevokeLoginsResponse(revoked=revoked)

    async def ListLogins(
        self, request: pb.ListLoginsRequest, context: object
    ) -> pb.ListLoginsResponse:
        """Lists live logins, a page at a time."""
        if request.page_size > _MAX_PAGE_SIZE:
            raise _invalid("PAGE_TOO_LARGE", f"at most {_MAX_PAGE_SIZE} logins a page")
        network = self._locate(request.client_address).key if request.client_address else None
        which = LoginFilter(convert.named_user(request.user), network)
        size = request.page_size or _PAGE_SIZE
        try:
            page = await _ask(self._store.list_logins(which, size, request.page_token))
        except BadPageToken:
            raise _invalid("BAD_PAGE_TOKEN", "the page token is none of ours") from None
        return pb.ListLoginsResponse(
            logins=[
                convert.login_message(one, self.desk.networks, page.now) for one in page.logins
            ],
            next_page_token=page.next_token,
        )

    async def WatchLogins(  # type: ignore[override] # it writes to the context instead of yielding
        self, request_iterator: AsyncIterator[pb.WatchLoginsRequest], context: WatchContext
    ) -> None:
        """Streams the table's instance id, changes and revocations."""
        await self._watchers.serve(request_iterator, context)

    def _terms(self) -> WatchTerms:
        """What a watcher is told that begins now."""
        self._last_told = self._told()
        return WatchTerms(
            networks=self.desk.networks,
            max_users=self._max_users,
            check_connections=self.desk.checks_every_connection,
            suspicions=self._suspicions,
        )

    def _locate(self, address: bytes) -> Located:
        try:
            return self.desk.networks.locate(address)
        except ValueError:
            raise _bad_address() from None


async def _ask(call: Awaitable[T]) -> T:
    """Asks the store; its errors become ours."""
    try:
        return await call
    except (StoreUnavailable, FrontDeskUnavailable):
        raise RpcError(
            grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "the login store does not answer"
        ) from None
    except StoreFull as error:
        raise RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL", str(error)) from None


def _check_count(items: Sequence[object]) -> None:
    if len(items) > MAX_ITEMS:
        raise _invalid("TOO_MANY_ITEMS", f"at most {MAX_ITEMS} items in one call")


def _check_user(user: pb.UserKey) -> None:
    try:
        check_user(convert.user_key(user))
    except NotAdmitted as verdict:
        raise _invalid("BAD_USER", str(verdict)) from None


def _bad_address() -> RpcError:
    return _invalid("BAD_ADDRESS", "an address has 4 or 16 octets")


def _invalid(reason: str, message: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, reason, message)
