"""Answers RCPT commands, a pipelined batch at a time: one Resolve for all of them."""

from collections.abc import Sequence

from netmail_common.mail_address import MailAddress
from netmail_common.nmap import Resolution, ResolveOutcome

from netmail_smtp.adapters.sending_rate import SendingRate
from netmail_smtp.adapters.session_state import SessionState
from netmail_smtp.adapters.standing import Standing
from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.domain.relay import (
    RATE_EXCEEDED,
    Decision,
    KnownSender,
    RecipientClass,
    Stranger,
    Unknown,
)
from netmail_smtp.protocol.commands import Notify, Rcpt
from netmail_smtp.protocol.reply import SmtpError

_CLASSES = {
    ResolveOutcome.LOCAL: RecipientClass.LOCAL,
    ResolveOutcome.UNKNOWN_USER: RecipientClass.UNKNOWN_USER,
    ResolveOutcome.MAILBOX_FULL: RecipientClass.MAILBOX_FULL,
    ResolveOutcome.TEMPORARY_FAILURE: RecipientClass.UNAVAILABLE,
    ResolveOutcome.NOT_LOCAL: RecipientClass.REMOTE,
}
_NOBODY = Stranger(Unknown.NO_LOGIN)


class RecipientDesk:
    """Decides about the recipients of one session's transactions."""

    def __init__(self, session: SessionState, standing: Standing) -> None:
        self._session = session
        self._standing = standing
        self._rate = SendingRate(session)
        self._ahead = 0
        """Recipients that wait to be asked about, and need a known sender."""

    async def answer(self, batch: Sequence[Rcpt | SmtpError]) -> list[int]:
        """Replies to each command of the batch, in order.

        Args:
            batch: commands, and refusals of lines that did not parse.

        Returns: the reply codes.
        """
        session = self._session
        items = [item for item in batch if isinstance(item, Rcpt)]
        addresses = [self._address(item) for item in items]
        found: Sequence[Resolution] = ()
        if session.transaction is not None:
            size = session.transaction.mail.size or 0
            found = await session.services.lookups.resolve(addresses, size)
        self._ahead = sum(map(self._needs_known_sender, items, addresses, found))
        resolved = iter(zip(addresses, found, strict=False))
        codes = []
        for item in batch:
            try:
                if isinstance(item, SmtpError):
                    raise item
                await self._take(item, *next(resolved, (None, None)))
            except SmtpError as error:
                session.refuse(error)
            codes.append(session.last_code)
            if session.closing:
                break
        return codes

    def _address(self, rcpt: Rcpt) -> MailAddress:
        return rcpt.path.mailbox or MailAddress(
            "postmaster", self._session.services.postmaster_domain
        )

    def _needs_known_sender(self, rcpt: Rcpt, address: MailAddress, found: Resolution) -> bool:
        policy = self._session.listener.policy
        return policy.needs_known_sender(rcpt.path, address, _CLASSES[found.outcome])

    async def _take(
        self, rcpt: Rcpt, address: MailAddress | None, found: Resolution | None
    ) -> None:
        """Decides about one recipient and replies.

        Raises: SmtpError.
        """
        session = self._session
        session.require_greeting()
        transaction = session.transaction
        if transaction is None or address is None or found is None:
            raise SmtpError(503, "5.5.1", "Say MAIL first")
        if transaction.chunking:
            raise SmtpError(503, "5.5.1", "The message has begun")
        session.check_parameters(rcpt.names, "RCPT")
        if not address.is_ascii and not transaction.mail.smtputf8:
            raise SmtpError(553, "5.6.7", "This address needs SMTPUTF8")
        if len(transaction.recipients) >= session.limits.recipients:
            raise SmtpError(452, "4.5.3", "Too many recipients")
        await self._decide(transaction, rcpt, address, _CLASSES[found.outcome])

    async def _decide(
        self, transaction: Transaction, rcpt: Rcpt, address: MailAddress, found: RecipientClass
    ) -> None:
        session = self._session
        policy = session.listener.policy
        needs = policy.needs_known_sender(rcpt.path, address, found)
        standing: KnownSender | Stranger | None = transaction.known
        must_be_known = session.admission.require_auth
        if standing is None and (needs or must_be_known or self._wants_to_be_known(rcpt)):
            standing = await self._standing.of(transaction)
        if self._helo_refused(standing):
            raise SmtpError(550, "5.7.1", "Your EHLO name is neither a full name nor an address")
        decision = policy.decide(rcpt.path, address, found, standing or _NOBODY)
        known = standing if isinstance(standing, KnownSender) else None
        if must_be_known and known is None and decision.accepted:
            decision = self._refused_by_admission(standing, address)
        if needs:
            self._ahead, ahead = self._ahead - 1, self._ahead
            if decision.accepted and known is not None:
                is_new = address.key() not in transaction.recipients
                if is_new and not await self._rate.admits(transaction, known, ahead=ahead):
                    decision = RATE_EXCEEDED
        self._standing.record(transaction, decision, standing, recipient=str(address))
        if not decision.accepted:
            reply = decision.reply
            raise SmtpError(reply.code, reply.enhanced, reply.text)
        if needs and known is not None:
            transaction.known = known
        transaction.add(address, rcpt, known)
        session.reply(decision.reply)

    def _refused_by_admission(
        self, standing: KnownSender | Stranger | None, recipient: MailAddress
    ) -> Decision:
        """The refusal of a client that must be known before it sends anything."""
        admission = self._session.admission
        enhanced = "5.7.25" if admission.rule == "reverse_dns" else "5.7.1"
        stranger = standing if isinstance(standing, Stranger) else _NOBODY
        return self._session.listener.policy.must_be_known(
            stranger, recipient, admission.comment, enhanced
        )

    def _wants_to_be_known(self, rcpt: Rcpt) -> bool:
        """Whether it matters who the client is although the recipient does not need it."""
        session = self._session
        return Notify.SUCCESS in rcpt.notify or (
            session.listener.config.require_full_helo and not self._full_helo()
        )

    def _helo_refused(self, standing: KnownSender | Stranger | None) -> bool:
        return (
            self._session.listener.config.require_full_helo
            and not isinstance(standing, KnownSender)
            and not self._full_helo()
        )

    def _full_helo(self) -> bool:
        ehlo = self._session.ehlo
        return ehlo is not None and ehlo.is_full_name
