"""Follows the login table: keeps a replica of it, ends the sessions of users that it revokes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import grpc
from netmail_common.background import in_background
from netmail_common.connmgr import (
    ConnectionManagerClient,
    LoginReplica,
    Revoked,
    WatchEvent,
    WatchMode,
)
from netmail_common.logging import get_logger
from netmail_common.networks import NetworkMap

from netmail_smtp.adapters.connection import Connection, EndRequest
from netmail_smtp.adapters.metrics import REPLICA_AGE, REPLICA_LOGINS
from netmail_smtp.adapters.session import SmtpSession
from netmail_smtp.protocol.reply import Reply

_log = get_logger(__name__)
_REVOKED = EndRequest(Reply(421, "4.7.0", "Your login was revoked"), in_transaction=True)
_REFUSED_PAUSE = 30.0
_ERROR_PAUSE = 1.0

Sessions = Callable[[], Iterable[Connection]]


@contextlib.asynccontextmanager
async def following_logins(
    client: ConnectionManagerClient,
    networks: NetworkMap,
    sessions: Sessions,
    *,
    max_staleness: float,
    max_logins: int,
    on_event: Callable[[WatchEvent], None],
) -> AsyncIterator[LoginReplica | None]:
    """Follows the table while the block runs; gives its replica.

    Args:
        client: of the Connection Manager.
        networks: its map from addresses to networks.
        sessions: gives those that are open.
        max_staleness: seconds; an older replica answers nothing.
        max_logins: that the replica holds; 0: there is none, and revocations alone are followed.
        on_event: told of everything that the stream tells.
    """
    replica: LoginReplica | None = None
    follow = _revocations_alone(client, sessions, on_event)
    if max_logins:
        replica = LoginReplica(
            client,
            networks,
            max_staleness=max_staleness,
            max_logins=max_logins,
            on_revoked=lambda event: end_sessions(event, sessions()),
            on_event=on_event,
        )
        REPLICA_LOGINS.set_function(lambda: replica.logins)
        REPLICA_AGE.set_function(lambda: replica.age)
        follow = replica.run
    async with in_background(_for_ever(follow), "logins"):
        yield replica


async def _for_ever(follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begins anew after an error of ours: sessions must end when their users' logins do."""
    while True:
        try:
            await follow()
        except Exception:  # noqa: BLE001 - a traceback for the log
            _log.exception("following the logins failed")
        await asyncio.sleep(_ERROR_PAUSE)


def _revocations_alone(
    client: ConnectionManagerClient, sessions: Sessions, on_event: Callable[[WatchEvent], None]
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def follow() -> None:
        try:
            async for event in client.watch(WatchMode.REVOCATIONS):
                on_event(event)
                if isinstance(event, Revoked):
                    end_sessions(event, sessions())
        except grpc.aio.AioRpcError as error:
            _log.error("revocations are not to be had", code=error.code().name)
            await asyncio.sleep(_REFUSED_PAUSE)

    return follow


def end_sessions(revocation: Revoked, sessions: Iterable[Connection]) -> None:
    """Ends those whose user, by SMTP AUTH, the revocation is about."""
    for session in sessions:
        if isinstance(session, SmtpSession) and session.authentication.is_ended_by(revocation):
            _log.info("session revoked", address=session.address, reason=revocation.reason)
            session.request_end(_REVOKED)
