"""What a client may do, by AUTH, allowed network or login, and which senders it may use."""

from collections.abc import Sequence

from netmail_common.config import SenderBinding
from netmail_common.header import Header
from netmail_common.logging import get_logger
from netmail_common.mail_address import MailAddress
from netmail_common.nmap import ResolveOutcome

from netmail_smtp.adapters.authentication import Authentication
from netmail_smtp.adapters.metrics import relay_decisions
from netmail_smtp.adapters.recognition import checked_senders
from netmail_smtp.adapters.session_state import SessionState
from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.domain.identity import header_senders
from netmail_smtp.domain.relay import Decision, KnownSender, Stranger, Unknown, Way
from netmail_smtp.protocol.reply import SmtpError

_log = get_logger(__name__)


class Standing:
    """The standing of one session's client, found out when it first matters."""

    def __init__(self, session: SessionState, authentication: Authentication) -> None:
        self._session = session
        self._authentication = authentication

    async def of(self, transaction: Transaction) -> KnownSender | Stranger:
        """Who the client is, for this transaction's envelope sender.

        Raises: SmtpError: 451 when the directory does not say whose the sender is.
        """
        if transaction.known is not None:
            return transaction.known
        if transaction.standing is None:
            sender = transaction.mail.sender
            standing = await self._find([sender] if sender else [])
            if isinstance(standing, Stranger) and standing.why is Unknown.UNREACHABLE:
                return standing
            transaction.standing = standing
        return transaction.standing

    def by_network(self) -> KnownSender | None:
        """Who the client is by its address alone, where the listener has allowed networks."""
        session = self._session
        if not session.client.may_grant or not session.listener.config.allowed_networks:
            return None
        return session.services.recognizer.allowed_network(session.client.address)

    async def check_header(self, transaction: Transaction, header: Header) -> None:
        """Checks the header's senders at the end of the data.

        Raises: SmtpError.
        """
        session = self._session
        if self._authentication.known is not None:
            if session.listener.after_auth is not SenderBinding.ANY:
                await self._authentication.check_senders(header_senders(header))
            return
        known = transaction.known
        if known is None or known.way is Way.NETWORK:
            return
        standing = await self._find(self._all_senders(transaction, header))
        if isinstance(standing, Stranger):
            decision = session.listener.policy.refusal(standing, None)
            self.record(transaction, decision, standing, recipient="")
            raise SmtpError(decision.reply.code, decision.reply.enhanced, decision.reply.text)
        transaction.known = standing

    def record(
        self,
        transaction: Transaction,
        decision: Decision,
        standing: KnownSender | Stranger | None,
        *,
        recipient: str,
    ) -> None:
        """Counts a relay decision and writes its log line."""
        session = self._session
        if decision.relay_refusal:
            session.count_relay_refusal()
        relay_decisions(decision.reason, accepted=decision.accepted).inc()
        user, more = "", {}
        if isinstance(standing, KnownSender):
            user = standing.full_name
            if standing.user_count > 1:
                more["users"] = list(standing.all_users)
        elif isinstance(standing, Stranger):
            user = standing.user
        _log.info(
            "relay decision",
            accepted=decision.accepted,
            reason=decision.reason,
            address=session.address,
            user=user,
            message_id=transaction.message_id,
            sender=str(transaction.mail.sender or ""),
            recipient=recipient,
            listener=session.listener.config.name,
            **more,
        )

    def _all_senders(self, transaction: Transaction, header: Header) -> Sequence[MailAddress]:
        """Of envelope and header; none where a login vouches for any."""
        if self._session.listener.after_login is SenderBinding.ANY:
            return ()
        senders = header_senders(header)
        envelope_sender = transaction.mail.sender
        if envelope_sender is None:
            return senders
        key = envelope_sender.key()
        return [envelope_sender, *(s for s in senders if s.key() != key)]

    async def _find(self, senders: Sequence[MailAddress]) -> KnownSender | Stranger:
        session = self._session
        client, listener = session.client, session.listener
        if not client.may_grant:
            return Stranger(Unknown.NO_LOGIN)
        known = self.by_network()
        if known is not None:
            return known
        if not listener.policy.smtp_after_pop:
            return Stranger(Unknown.NO_LOGIN)
        ours = [s for s in senders if session.services.directory.owner_of(s.domain) is not None]
        found = await session.services.lookups.resolve(ours, 0) if ours else []
        if any(r.outcome is ResolveOutcome.TEMPORARY_FAILURE for r in found):
            raise SmtpError(451, "4.3.0", "Temporary failure, try again later")
        return await session.services.recognizer.by_login(
            client.address, checked_senders(senders, ours, found), listener.after_login
        )
