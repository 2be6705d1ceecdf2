"""SMTP AUTH (RFC 4954) for one session, and what the authenticated user may send as."""

import secrets
from collections.abc import Sequence

from netmail_common.connmgr import Revoked, UserKey
from netmail_common.connmgr.events import boot_time
from netmail_common.connmgr.guarded_directory import GuardedDirectory
from netmail_common.logging import get_logger
from netmail_common.mail_address import MailAddress
from netmail_common.nmap import ResolveOutcome
from netmail_common.sasl import (
    AuthenticatedUser,
    AuthError,
    AuthTooLong,
    Mechanism,
    run_sasl,
)

from netmail_smtp.adapters.metrics import AUTHENTICATIONS
from netmail_smtp.adapters.session_state import SessionState
from netmail_smtp.domain.identity import AuthenticatedSender, OwnAddresses, UserName
from netmail_smtp.domain.relay import KnownSender, Way
from netmail_smtp.protocol.commands import Auth
from netmail_smtp.protocol.framing import LineTooLong
from netmail_smtp.protocol.reply import Reply, SmtpError

_log = get_logger(__name__)


class Authentication:
    """Whether this session has authenticated, and as whom."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._failures = 0
        self.known: KnownSender | None = None
        self._sender: AuthenticatedSender | None = None
        self._user: AuthenticatedUser | None = None
        self._verified = 0.0

    def is_ended_by(self, revocation: Revoked) -> bool:
        """Whether a revocation is about the user who has authenticated here."""
        if self._user is None or revocation.user is None:
            return False
        return revocation.covers(
            UserKey(self._user.name, self._user.context),
            self._session.client.address,
            self._verified,
            self._user.credential_epoch,
        )

    def forget(self) -> None:
        """TLS begins: the client has not authenticated. Failures still count."""
        self.known = None
        self._sender = None
        self._user = None

    def keywords(self) -> list[str]:
        """EHLO's AUTH lines: today's, and the one that old clients look for."""
        mechanisms = self._mechanisms()
        if not mechanisms:
            return []
        lines = ["AUTH " + " ".join(mechanisms)]
        old = [name for name in ("LOGIN", "PLAIN") if name in mechanisms]
        if old:
            lines.append("AUTH=" + " ".join(old))
        return lines

    async def run(self, command: Auth) -> Reply | None:
        """Runs one AUTH command to its end.

        Returns: the reply; None: it was given already.

        Raises: SmtpError.
        """
        mechanism = self._choose(command)
        session = self._session
        outcome = "succeeded"
        try:
            result = await run_sasl(
                mechanism,
                command.initial,
                challenge=self._challenge,
                directory=GuardedDirectory(
                    session.services.directory, session.services.gate, session.visitor
                ),
                service="smtp",
                client_address=session.client.address,
            )
        except AuthError as error:
            outcome = "failed" if error.counts else "ended"
            self._failed(error, mechanism)
            return None
        finally:
            AUTHENTICATIONS.labels(mechanism, outcome).inc()
        self._succeeded(result.user, mechanism)
        return Reply(235, "2.7.0", "Authentication successful")

    async def check_senders(self, senders: Sequence[MailAddress]) -> None:
        """Checks senders against the authenticated user; does nothing without one.

        Raises: SmtpError: 550 5.7.1, or 451 when the directory does not say whose an address is.
        """
        if self._sender is None:
            return
        asked = self._sender.needing_owner(senders)
        owners: dict[MailAddress, UserName | None] = {}
        if asked:
            found = await self._session.services.directory.resolve(asked)
            for address, resolution in zip(asked, found, strict=True):
                if resolution.outcome is ResolveOutcome.TEMPORARY_FAILURE:
                    raise SmtpError(451, "4.3.0", "Temporary failure, try again later")
                owner = resolution.owner
                owners[address] = UserName(*owner) if owner is not None else None
        self._sender.check(senders, owners)

    def _mechanisms(self) -> tuple[Mechanism, ...]:
        session = self._session
        return session.listener.mechanisms_for(session.client.address, tls=session.tls_active)

    def _choose(self, command: Auth) -> Mechanism:
        session = self._session
        if not session.require_greeting().extended or not session.listener.mechanisms:
            raise SmtpError(502, "5.5.1", "AUTH is not available here")
        if self.known is not None:
            raise SmtpError(503, "5.5.1", "Already authenticated")
        if session.transaction is not None:
            raise SmtpError(503, "5.5.1", "No AUTH within a transaction")
        offered = self._mechanisms()
        for mechanism in session.listener.mechanisms:
            if mechanism == command.mechanism:
                if mechanism in offered:
                    return mechanism
                if mechanism.reveals_password:
                    raise SmtpError(538, "5.7.11", "Encryption required: say STARTTLS first")
        raise SmtpError(504, "5.5.4", "Mechanism not recognized")

    async def _challenge(self, text: bytes) -> bytes | None:
        session = self._session
        timeout = session.limits.command_timeout
        deadline = session.loop.time() + timeout
        session.write(b"334 " + text + b"\r\n")
        while True:
            try:
                line = session.input.take_line()
            except LineTooLong:
                raise AuthTooLong from None
            if line is not None:
                return line
            await session.flush(timeout)
            session.check_patience(deadline)
            await session.more_input(deadline - session.loop.time())

    def _succeeded(self, user: AuthenticatedUser, mechanism: Mechanism) -> None:
        session = self._session
        self._user = user
        self._verified = boot_time()
        self.known = KnownSender(
            Way.AUTH,
            user=user.name,
            context=user.context,
            detail=f"SMTP AUTH {mechanism}",
            all_users=(f"{user.name}@{user.context}",),
            session_id=secrets.token_hex(8),
        )
        self._sender = AuthenticatedSender(
            UserName(user.name, user.context),
            OwnAddresses(user.addresses, session.services.separator_of(user.server)),
            frozenset(user.domains),
            session.listener.after_auth,
        )
        _log.info(
            "authenticated",
            user=self.known.full_name,
            address=session.address,
            mechanism=str(mechanism),
            tls=session.tls_active,
        )

    def _failed(self, error: AuthError, mechanism: Mechanism) -> None:
        session = self._session
        _log.info(
            "authentication failed",
            address=session.address,
            mechanism=str(mechanism),
            reason=error.text,
        )
        session.refuse(SmtpError(*error.smtp))
        if error.counts:
            self._failures += 1
        if self._failures >= session.listener.config.max_auth_failures:
            session.say_goodbye("Too many failed authentications")
