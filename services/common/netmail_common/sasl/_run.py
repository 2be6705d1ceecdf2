"""Runs one SASL exchange between a client and the directory."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from netmail_common.sasl._directory import (
    AuthenticatedUser,
    Directory,
    IPAddress,
    ScramVerification,
)
from netmail_common.sasl._errors import AuthCancelled
from netmail_common.sasl._exchange import (
    Challenge,
    Done,
    Mechanism,
    SaslExchange,
    Step,
    VerifyPassword,
    VerifyScramFinal,
    VerifyScramFirst,
)


@dataclass(frozen=True, slots=True)
class AuthResult:
    """A successful authentication."""

    user: AuthenticatedUser
    mechanism: Mechanism


async def run_sasl(
    mechanism: Mechanism,
    initial: bytes | None,
    *,
    challenge: Callable[[bytes], Awaitable[bytes | None]],
    directory: Directory,
    service: str,
    client_address: IPAddress,
) -> AuthResult:
    """Runs an exchange to its end.

    Args:
        mechanism: what the client chose, already checked against what was offered.
        initial: the initial response exactly as it stood on the command line, or None.
        challenge: sends the base64 text it is given after `334 ` or `+ ` and gives the client's
            next line without CRLF; None when the client is gone.
        directory: verifies.
        service: smtp, pop3 or imap.
        client_address: for the log and abuse counting.

    Raises: AuthFailed, AuthUnavailable, AuthMalformed, AuthCancelled.
    """
    run = _Run(SaslExchange(mechanism), directory, service, client_address)
    try:
        step = run.exchange.start(initial)
        while not isinstance(step, Done):
            if isinstance(step, Challenge):
                line = await challenge(step.encoded)
                if line is None:
                    raise AuthCancelled
                step = run.exchange.feed(line)
            else:
                step = await run.verify(step)
    finally:
        if run.scram is not None:
            run.scram.cancel()
    if run.user is None:
        raise RuntimeError("an exchange ended without a user")
    return AuthResult(run.user, mechanism)


@dataclass(slots=True)
class _Run:
    exchange: SaslExchange
    directory: Directory
    service: str
    client_address: IPAddress
    user: AuthenticatedUser | None = None
    scram: ScramVerification | None = None

    async def verify(self, step: VerifyPassword | VerifyScramFirst | VerifyScramFinal) -> Step:
        """Asks the directory and tells the exchange."""
        if isinstance(step, VerifyPassword):
            self.user = await self.directory.authenticate_password(
                step.username,
                step.password,
                service=self.service,
                client_address=self.client_address,
            )
            return self.exchange.accepted()
        if isinstance(step, VerifyScramFirst):
            self.scram = await self.directory.start_scram(
                step.message, service=self.service, client_address=self.client_address
            )
            return self.exchange.accepted(self.scram.server_first)
        if self.scram is None:
            raise RuntimeError("client-final before client-first")
        outcome = await self.scram.finish(step.message)
        self.user = outcome.user
        return self.exchange.accepted(outcome.server_final)
