"""Ends the sessions of users whose password was changed, or who were disabled or removed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable

import grpc
from netmail_common.connmgr import ConnectionManagerClient, Revoked, WatchMode
from netmail_common.logging import get_logger

from netmail_smtp.adapters.connection import Connection, EndRequest
from netmail_smtp.adapters.session import SmtpSession
from netmail_smtp.protocol.reply import Reply

_log = get_logger(__name__)
_REVOKED = EndRequest(Reply(421, "4.7.0", "Your login was revoked"), in_transaction=True)
_REFUSED_PAUSE = 30.0


@contextlib.asynccontextmanager
async def watching_revocations(
    client: ConnectionManagerClient, sessions: Callable[[], Iterable[Connection]]
) -> AsyncIterator[None]:
    """Watches while the block runs.

    Args:
        client: of the Connection Manager.
        sessions: gives those that are open.
    """
    task = asyncio.get_running_loop().create_task(_watch(client, sessions))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _watch(
    client: ConnectionManagerClient, sessions: Callable[[], Iterable[Connection]]
) -> None:
    while True:
        try:
            async for event in client.watch(WatchMode.REVOCATIONS):
                if isinstance(event, Revoked):
                    end_sessions(event, sessions())
        except grpc.aio.AioRpcError as error:
            _log.error("revocations are not to be had", code=error.code().name)
            await asyncio.sleep(_REFUSED_PAUSE)


def end_sessions(revocation: Revoked, sessions: Iterable[Connection]) -> None:
    """Ends those whose user, by SMTP AUTH, the revocation is about."""
    for session in sessions:
        if isinstance(session, SmtpSession) and session.authentication.is_ended_by(revocation):
            _log.info("session revoked", address=session.address, reason=revocation.reason)
            session.request_end(_REVOKED)
