"""Reads message content, by DATA or BDAT, and answers at its end."""

from netmail_common.header import Header
from netmail_common.logging import get_logger

from netmail_smtp.adapters.authentication import Authentication
from netmail_smtp.adapters.connection import ClientTimeout
from netmail_smtp.adapters.intake import IntakeSettings, MessageIntake
from netmail_smtp.adapters.metrics import MESSAGE_OCTETS, messages
from netmail_smtp.adapters.session_state import SessionState
from netmail_smtp.adapters.standing import Standing
from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.domain.trace import Hop, now, with_protocol
from netmail_smtp.protocol.commands import Bdat
from netmail_smtp.protocol.data import ChunkReader, DotReader
from netmail_smtp.protocol.reply import Reply, SmtpError

_log = get_logger(__name__)
_GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")


class ContentReader:
    """The content of one session's messages, one after the other."""

    def __init__(
        self, session: SessionState, authentication: Authentication, standing: Standing
    ) -> None:
        self._session = session
        self._authentication = authentication
        self._standing = standing
        self._intake: MessageIntake | None = None
        self._deadline = 0.0

    def abandon(self) -> None:
        """Forgets the message that is under way."""
        if self._intake is not None:
            self._intake.abandon()
            self._intake = None

    async def read_data(self) -> Reply:
        """DATA: from the 354 to the reply after the dot.

        Raises: SmtpError.
        """
        session = self._session
        transaction = self._ready_for_content()
        if transaction.chunking:
            raise SmtpError(503, "5.5.1", "The message has begun with BDAT")
        session.reply(_GO_AHEAD)
        await session.flush(session.limits.command_timeout)
        intake = self._begin(transaction)
        reader = DotReader()
        while True:
            if len(session.input):
                content, rest = reader.feed(session.input.take_all())
                if rest is not None:
                    session.input.feed(rest)
                await intake.feed(content)
                if rest is not None:
                    return await self._finish(transaction, intake)
            await self._more_input()

    async def read_bdat(self, command: Bdat) -> Reply:
        """BDAT: one chunk. Its octets are read even if the command is refused (RFC 3030 2).

        Raises: SmtpError.
        """
        session = self._session
        refusal: SmtpError | None = None
        intake: MessageIntake | None = None
        transaction = session.transaction
        try:
            transaction = self._ready_for_content()
            if "CHUNKING" not in session.listener.extensions:
                raise SmtpError(502, "5.5.1", "BDAT is not available here")  # noqa: TRY301
            if transaction.failed:
                raise SmtpError(503, "5.5.1", "An earlier BDAT failed; say RSET")  # noqa: TRY301
            transaction.chunking = True
            intake = self._intake or self._begin(transaction)
        except SmtpError as error:
            refusal = error
        self._check_chunk_size(command, intake)
        await self._read_chunk(command, intake)
        if refusal is not None or intake is None or transaction is None:
            if transaction is not None:
                transaction.failed = transaction.chunking
            raise refusal or SmtpError(503, "5.5.1", "Say MAIL first")
        if command.last:
            return await self._finish(transaction, intake)
        return Reply(250, "2.0.0", f"{command.size} octets received")

    def _check_chunk_size(self, command: Bdat, intake: MessageIntake | None) -> None:
        limit = self._session.limits.message_size
        if limit and command.size + (intake.size if intake else 0) >= 2 * limit:
            raise SmtpError(
                552, "5.3.4", f"The message is far larger than {limit} octets", close=True
            )

    async def _read_chunk(self, command: Bdat, intake: MessageIntake | None) -> None:
        session = self._session
        if intake is None:
            self._deadline = session.loop.time() + session.limits.data_timeout
        reader = ChunkReader(command.size)
        while reader.remaining:
            if len(session.input):
                content = reader.feed(session.input.take(reader.remaining))
                if intake is not None:
                    await intake.feed(content)
            else:
                await self._more_input()

    def _ready_for_content(self) -> Transaction:
        session = self._session
        session.require_greeting()
        transaction = session.transaction
        if transaction is None:
            raise SmtpError(503, "5.5.1", "Say MAIL first")
        if not transaction.recipients:
            raise SmtpError(554, "5.5.1", "No valid recipients")
        return transaction

    def _begin(self, transaction: Transaction) -> MessageIntake:
        session = self._session
        services = session.services

        async def check_senders(header: Header) -> None:
            await self._standing.check_header(transaction, header)

        self._intake = MessageIntake(
            transaction,
            IntakeSettings(
                limits=session.limits,
                queue=services.queue,
                messaging_server=services.messaging_server,
                check_senders=check_senders,
                hop=lambda: self._hop(transaction),
                submission=self._is_submission,
            ),
        )
        self._deadline = session.loop.time() + session.limits.data_timeout
        return self._intake

    async def _more_input(self) -> None:
        """Waits for the next block.

        Raises: ClientTimeout, ConnectionEnded.
        """
        session = self._session
        left = self._deadline - session.loop.time()
        if left <= 0:
            raise ClientTimeout
        await session.flush(session.limits.command_timeout)
        await session.more_input(min(session.limits.data_block_timeout, left))

    async def _finish(self, transaction: Transaction, intake: MessageIntake) -> Reply:
        session = self._session
        self._intake = None
        # Whatever becomes of it, the transaction is over (RFC 5321 4.1.1.4).
        session.transaction = None
        listener = session.listener.config.name
        try:
            accepted = await intake.finish()
        except SmtpError as error:
            messages(listener, error.reply.code).inc()
            _log.info(
                "message refused",
                message_id=transaction.message_id,
                address=session.address,
                user=_name(transaction),
                code=error.reply.code,
                reason=error.reply.text,
            )
            raise
        messages(listener, 250).inc()
        MESSAGE_OCTETS.inc(intake.size)
        session.message_accepted()
        _log.info(
            "message accepted",
            message_id=transaction.message_id,
            address=session.address,
            user=_name(transaction),
            size=intake.size,
            recipients=len(transaction.recipients),
            delivered=accepted.delivered,
            queued=accepted.queued,
        )
        return Reply(250, "2.0.0", f"Ok: queued as {transaction.message_id}")

    def _is_submission(self) -> bool:
        """Whether the message begins its way here, by the listener's role or by SMTP AUTH.

        A login vouches for an address; what comes from there may be a message under way.
        """
        return self._session.listener.policy.submission or self._authentication.known is not None

    def _hop(self, transaction: Transaction) -> Hop:
        session = self._session
        ehlo = session.require_greeting()
        return Hop(
            helo=ehlo.name,
            client_address=session.address,
            host_name=session.services.host_name,
            protocol=with_protocol(
                extended=ehlo.extended,
                tls=session.tls_active,
                authenticated=self._authentication.known is not None,
                smtputf8=transaction.mail.smtputf8,
            ),
            message_id=transaction.message_id,
            known=transaction.known,
            recipient=transaction.only_recipient,
            now=now(),
            user_word=session.services.user_word(transaction.known),
        )


def _name(transaction: Transaction) -> str:
    """Whom the message is sent for, as the end of the data has it; empty: nobody known."""
    return transaction.known.full_name if transaction.known else ""
