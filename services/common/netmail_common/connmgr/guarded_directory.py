"""The directory behind the gate: whoever has guessed too often gets the answer of a wrong password.

A denied login is answered like any that failed, whether or not its password was right, and as
late. The password of a user who may not log in from there is looked at, but nothing is told of it:
only the directory knows whose name was typed, and an alias must not give more guesses.
"""

import asyncio
from collections.abc import Awaitable, Callable

from netmail_common.connmgr.gate import Gate, Visitor
from netmail_common.connmgr.model import UserKey
from netmail_common.logging import get_logger
from netmail_common.sasl import (
    AuthenticatedUser,
    AuthFailed,
    Directory,
    IPAddress,
    ScramOutcome,
    ScramVerification,
    parse_client_first,
)

__all__ = ["GuardedDirectory"]

log = get_logger(__name__)
Sleep = Callable[[float], Awaitable[None]]


class GuardedDirectory:
    """A sasl.Directory for one client.

    Args:
        directory: that verifies.
        gate: that judges and counts.
        visitor: the client.
        sleep: waits so many seconds.
    """

    def __init__(
        self, directory: Directory, gate: Gate, visitor: Visitor, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._directory = directory
        self._gate = gate
        self._visitor = visitor
        self._sleep = sleep

    async def authenticate_password(
        self, username: str, password: str, *, service: str, client_address: IPAddress
    ) -> AuthenticatedUser:
        """Verifies a password.

        Raises: AuthFailed, AuthUnavailable.
        """
        admission = await self._gate.may_try(self._visitor, username)
        if not admission.allowed:
            await self._sleep(admission.delay)
            raise AuthFailed
        try:
            user = await self._directory.authenticate_password(
                username, password, service=service, client_address=client_address
            )
        except AuthFailed as failure:
            await self.failed(failure, username)
            raise
        await self.succeeded(user)
        return user

    async def start_scram(
        self, client_first: bytes, *, service: str, client_address: IPAddress
    ) -> "GuardedScram":
        """Begins a SCRAM-SHA-256 exchange; it is judged at its end, like one that is none.

        Raises: AuthMalformed, AuthFailed, AuthUnavailable.
        """
        name = parse_client_first(client_first).username
        try:
            scram = await self._directory.start_scram(
                client_first, service=service, client_address=client_address
            )
        except AuthFailed as failure:
            await self.failed(failure, name)
            raise
        return GuardedScram(self, scram, name)

    async def failed(self, failure: AuthFailed, username: str) -> None:
        """Counts a failure, and lets the client wait for it."""
        user = UserKey(*failure.user) if failure.user is not None else None
        await self._sleep(await self._gate.failed(self._visitor, user, username))

    async def succeeded(self, user: AuthenticatedUser) -> None:
        """Lets the client wait as long as for a failure.

        Raises: AuthFailed, if he may not log in from there.
        """
        admission = await self._gate.succeeded(self._visitor, UserKey(user.name, user.context))
        await self._sleep(admission.delay)
        if not admission.allowed:
            log.info(
                "login denied",
                user=str(user),
                address=str(self._visitor.address),
                listener=self._visitor.listener,
                rule=admission.rule,
            )
            raise AuthFailed


class GuardedScram:
    """A SCRAM exchange under way."""

    def __init__(self, guard: GuardedDirectory, scram: ScramVerification, username: str) -> None:
        self._guard = guard
        self._scram = scram
        self._username = username

    @property
    def server_first(self) -> bytes:
        """The server-first-message."""
        return self._scram.server_first

    async def finish(self, client_final: bytes) -> ScramOutcome:
        """Checks the client's proof.

        Raises: AuthFailed, AuthMalformed, AuthUnavailable.
        """
        try:
            outcome = await self._scram.finish(client_final)
        except AuthFailed as failure:
            await self._guard.failed(failure, self._username)
            raise
        await self._guard.succeeded(outcome.user)
        return outcome

    def cancel(self) -> None:
        """Forgets it; does nothing after `finish`."""
        self._scram.cancel()
