"""How a POP3 or IMAP client proves who it is: one way for USER/PASS, LOGIN and every mechanism."""

import asyncio
from collections.abc import Awaitable, Callable

from netmail_common.connmgr.guarded_directory import GuardedDirectory
from netmail_common.logging import get_logger
from netmail_common.nmap import AuthenticatedUser
from netmail_common.sasl import (
    AuthCancelled,
    AuthError,
    AuthFailed,
    AuthMalformed,
    AuthUnavailable,
    Mechanism,
    check_user_name,
    run_sasl,
)

from netmail_pop_imap.adapters.admission import visitor_of
from netmail_pop_imap.adapters.connection import Connection
from netmail_pop_imap.adapters.metrics import LOGINS
from netmail_pop_imap.protocol.errors import (
    AuthenticationCancelled,
    AuthenticationMalformed,
    BadCommand,
    LoginFailed,
    PlaintextRefused,
    ReplyError,
    TooManyLoginFailures,
    Unavailable,
)

log = get_logger(__name__)

MAX_FAILURE_DELAY = 8.0
"""Seconds before a failure is answered, at most."""

_OUTCOMES: dict[type[AuthError], str] = {
    AuthFailed: "failed",
    AuthUnavailable: "unavailable",
    AuthMalformed: "malformed",
    AuthCancelled: "cancelled",
}


def plaintext_allowed(connection: Connection) -> bool:
    """Whether a password may cross this connection in the clear."""
    context = connection.context
    if connection.secure or context.listener.plaintext_auth:
        return True
    address = connection.client.address
    return any(address in network for network in context.plaintext_networks)


def offered_mechanisms(connection: Connection) -> list[str]:
    """SASL mechanisms that the client may use now, in the listener's order."""
    plaintext = plaintext_allowed(connection)
    scram = connection.context.directory.scram_offered
    return [
        name
        for name in connection.context.listener.auth_mechanisms
        if (scram if name == Mechanism.SCRAM_SHA_256.value else plaintext)
    ]


async def authenticate_password(
    connection: Connection, username: str, password: str
) -> AuthenticatedUser:
    """Verifies a name and password that came by USER/PASS or LOGIN.

    Raises: ReplyError: PlaintextRefused, LoginFailed, TooManyLoginFailures, Unavailable, ...
    """
    _require_plaintext_allowed(connection)
    return await _judged(connection, _verify(connection, username, password))


def _directory(connection: Connection) -> GuardedDirectory:
    """The directory, as far as it may answer this client."""
    context = connection.context
    visitor = visitor_of(connection.client, context.listener)
    return GuardedDirectory(context.directory, context.gate, visitor)


async def authenticate_sasl(
    connection: Connection,
    mechanism_name: str,
    initial: bytes | None,
    challenge: Callable[[bytes], Awaitable[bytes | None]],
) -> AuthenticatedUser:
    """Runs a SASL exchange to its end.

    Args:
        connection: the client's.
        mechanism_name: as the client wrote it.
        initial: the initial response as it stood on the line.
        challenge: sends base64 text after `+ ` and gives the client's next line.

    Raises: ReplyError.
    """
    mechanism = Mechanism.named(mechanism_name)
    if mechanism is None or mechanism not in connection.context.listener.auth_mechanisms:
        raise BadCommand("unknown authentication mechanism")
    if mechanism.reveals_password:
        _require_plaintext_allowed(connection)
    elif not connection.context.directory.scram_offered:
        raise BadCommand("unknown authentication mechanism")

    async def run() -> AuthenticatedUser:
        result = await run_sasl(
            mechanism,
            initial,
            challenge=challenge,
            directory=_directory(connection),
            service=connection.protocol_name,
            client_address=connection.client.address,
        )
        return result.user

    return await _judged(connection, run())


async def _verify(connection: Connection, username: str, password: str) -> AuthenticatedUser:
    try:
        name = check_user_name(username)
    except ValueError:
        raise AuthFailed from None
    return await _directory(connection).authenticate_password(
        name,
        password,
        service=connection.protocol_name,
        client_address=connection.client.address,
    )


def _require_plaintext_allowed(connection: Connection) -> None:
    if not plaintext_allowed(connection):
        LOGINS.labels(connection.protocol_name, "plaintext refused").inc()
        raise PlaintextRefused


async def _judged(
    connection: Connection, attempt: Awaitable[AuthenticatedUser]
) -> AuthenticatedUser:
    try:
        return await attempt
    except AuthError as error:
        outcome = next((text for kind, text in _OUTCOMES.items() if isinstance(error, kind)), "")
        LOGINS.labels(connection.protocol_name, outcome).inc()
        log.info(
            "login refused",
            protocol=connection.protocol_name,
            address=str(connection.client.address),
            reason=outcome,
        )
        if error.counts:
            await _count_failure(connection)
        raise _reply(error) from None


async def _count_failure(connection: Connection) -> None:
    """Slows the client down, and ends its session when it has had its tries."""
    first = connection.context.failure_delay
    delay = min(first * 2**connection.login_failures, MAX_FAILURE_DELAY)
    connection.login_failures += 1
    await asyncio.sleep(delay)
    if connection.login_failures >= connection.context.listener.max_auth_failures:
        raise TooManyLoginFailures from None


def _reply(error: AuthError) -> ReplyError:
    if isinstance(error, AuthCancelled):
        return AuthenticationCancelled()
    if isinstance(error, AuthMalformed):
        return AuthenticationMalformed()
    if isinstance(error, AuthUnavailable):
        return Unavailable()
    return LoginFailed()
