"""Tells the Connection Managers whose logins are no longer good, until each has acknowledged it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import grpc
from netmail.connmgr.v1 import connmgr_pb2, connmgr_pb2_grpc
from netmail_common.config import Installation
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import AgentIdentity
from netmail_common.logging import get_logger
from netmail_common.metrics import gauge
from netmail_common.roles import Role

from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.users import DirectoryStore, PendingRevocation

_log = get_logger(__name__)
_PENDING = gauge("nmap_pending_revocations", "Revocations that are not acknowledged yet")
_BATCH = 100
_TIMEOUT = 5.0
_FIRST_RETRY = 0.5
_MAX_RETRY = 30.0


class RevocationSender:
    """Works off the outbox of revocations, in their order.

    A revocation stays in the storage until every Connection Manager has acknowledged it; it is
    harmless to send one twice.

    Args:
        store: has the outbox.
        managers: stubs of the Connection Managers, by name.
    """

    def __init__(
        self,
        store: DirectoryStore,
        managers: "Mapping[str, connmgr_pb2_grpc.ConnectionManagerServiceAsyncStub]",
    ) -> None:
        self._store = store
        self._managers = managers
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There may be something in the outbox."""
        self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        retry = _FIRST_RETRY
        while True:
            self._wake.clear()
            try:
                if await self.send_pending():
                    retry = _FIRST_RETRY
                    await self._wake.wait()
                    continue
            except StoreUnavailable:
                _log.warning("outbox of revocations unreadable, trying again", seconds=retry)
            try:
                async with asyncio.timeout(retry):
                    await self._wake.wait()
            except TimeoutError:
                retry = min(2 * retry, _MAX_RETRY)

    async def send_pending(self) -> bool:
        """Sends what is in the outbox; whether it is empty now.

        Raises: StoreUnavailable.
        """
        while pending := await self._store.pending_revocations(_BATCH):
            _PENDING.set(len(pending))
            answers = await asyncio.gather(*(self._send(revocation) for revocation in pending))
            done = [
                revocation.id
                for revocation, acknowledged in zip(pending, answers, strict=True)
                if acknowledged
            ]
            if done:
                await self._store.revocations_acknowledged(done)
            if len(done) < len(pending):
                return False
        _PENDING.set(0)
        return True

    async def _send(self, revocation: PendingRevocation) -> bool:
        request = connmgr_pb2.RevokeLoginsRequest(
            user=connmgr_pb2.UserKey(name=revocation.name, context=revocation.context),
            credential_epoch=revocation.credential_epoch,
            reason="credentials changed",
        )
        answers = await asyncio.gather(*(self._send_to(name, request) for name in self._managers))
        return all(answers)

    async def _send_to(self, name: str, request: connmgr_pb2.RevokeLoginsRequest) -> bool:
        user = f"{request.user.name}@{request.user.context}"
        try:
            response = await self._managers[name].RevokeLogins(request, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                # It would say so each time, and keep the others waiting.
                _log.error("revocation refused", connection_manager=name, user=user)
                return True
            _log.warning(
                "revocation not acknowledged, trying again",
                connection_manager=name,
                user=user,
                code=error.code().name,
            )
            return False
        _log.info("logins revoked", connection_manager=name, user=user, revoked=response.revoked)
        return True


def managers_that_know_us(installation: Installation, server: str) -> Sequence[str]:
    """The Connection Managers that may have logins of SERVER's users.

    Its own, and those of the Messaging Servers that reach its contexts.
    """
    names = [
        asking.connection_manager
        for asking in installation.messaging_servers
        if asking.connection_manager is not None
        and any(known.name == server for known in installation.reachable_servers(asking.name))
    ]
    return list(dict.fromkeys(names))


@asynccontextmanager
async def revocation_sender(
    store: DirectoryStore, installation: Installation, server: str, identity: AgentIdentity
) -> AsyncIterator[RevocationSender]:
    """Sends revocations while the block runs."""
    channels = {
        name: Channel(
            installation.connection_manager(name).target,
            identity,
            installation=installation.installation,
            expected_role=Role.CONNMGR,
        )
        for name in managers_that_know_us(installation, server)
    }
    sender = RevocationSender(
        store,
        {
            name: connmgr_pb2_grpc.ConnectionManagerServiceStub(channel.raw)
            for name, channel in channels.items()
        },
    )
    task = asyncio.create_task(sender.run(), name="revocations")
    try:
        yield sender
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in channels.values()))
