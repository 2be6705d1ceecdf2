"""The SMTP session: commands in, replies out."""

import asyncio
import time

from netmail_common.acceptor import ClientInfo
from netmail_common.connmgr.clients_seen import PROBE
from netmail_common.logging import get_logger

from netmail_smtp.adapters.authentication import Authentication
from netmail_smtp.adapters.connection import ClientTimeout, ConnectionEnded, EndRequested
from netmail_smtp.adapters.content import ContentReader
from netmail_smtp.adapters.metrics import VerbMetrics, sessions
from netmail_smtp.adapters.recipients import RecipientDesk
from netmail_smtp.adapters.services import Listener, Services
from netmail_smtp.adapters.session_state import LineWithoutEnd, SessionState
from netmail_smtp.adapters.standing import Standing
from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.protocol.commands import (
    VERBS,
    Auth,
    Bdat,
    Command,
    Ehlo,
    Mail,
    Rcpt,
    Simple,
    parse_command,
)
from netmail_smtp.protocol.framing import LineTooLong
from netmail_smtp.protocol.reply import OK, CommandSyntaxError, Reply, SmtpError

__all__ = ["SmtpSession"]

_log = get_logger(__name__)
_INTERNAL_ERROR = Reply(451, "4.3.0", "Internal error, try again later")
_TIMEOUT = Reply(421, "4.4.2", "Timeout, closing the connection")
_NO_LINE_END = Reply(500, "5.5.2", "The line is too long")
_HELP = Reply(214, "2.0.0", "Commands: " + " ".join(sorted(VERBS)))
_VRFY = Reply(252, "2.1.5", "Cannot VRFY; send mail and it will be tried")
_EXPN = Reply(252, "2.1.5", "Cannot EXPN")
_LINGER = 3.0
_LINGER_OCTETS = 8 * 1024 * 1024
_metrics = VerbMetrics()


class SmtpSession(SessionState):
    """One client's session on one listener.

    Args:
        client: who connected.
        services: of the process.
        listener: its rules.
    """

    def __init__(self, client: ClientInfo, services: Services, listener: Listener) -> None:
        super().__init__(client, services, listener)
        self.authentication = Authentication(self)
        self._standing = Standing(self, self.authentication)
        self._recipients = RecipientDesk(self, self._standing)
        self._content = ContentReader(self, self.authentication, self._standing)

    async def _handle_client(self) -> None:
        """The whole session. No exception leaves it, and none reaches the client as text."""
        open_sessions = sessions(self.listener.config.name)
        open_sessions.inc()
        self.services.sessions.add(self)
        try:
            await self._serve()
        except ConnectionEnded:
            pass
        except ClientTimeout:
            self._last_words(_TIMEOUT)
        except EndRequested as end:
            self._last_words(end.reply)
        except LineWithoutEnd:
            self._last_words(_NO_LINE_END)
        except asyncio.CancelledError:
            self.abort_connection()
            raise
        except Exception:  # noqa: BLE001 - a reply for the client, a traceback for the log
            _log.exception("session ended by an error", address=self.address)
            self._last_words(Reply(421, "4.3.0", _INTERNAL_ERROR.text))
        finally:
            self._content.abandon()
            open_sessions.dec()
            self.services.sessions.discard(self)
            self.close_connection()

    async def _serve(self) -> None:
        await self._greet()
        timeout = self.limits.command_timeout
        # Counts from the end of the command before, however the octets of the next one trickle in.
        deadline = self.loop.time() + timeout
        while not self._closing:
            try:
                line = self.input.take_line()
            except LineTooLong:
                self.refuse(CommandSyntaxError(500, "5.5.2", "The line is too long"))
                continue
            if line is None:
                await self.flush(timeout)
                self.check_patience(deadline)
                left = deadline - self.loop.time()
                await self.more_input(left, drainable=self.transaction is None)
                continue
            await self._command(line)
            self.take_next()
            deadline = self.loop.time() + timeout
            if self.output_is_large:
                await self.flush(timeout)
            if not self._closing:
                self.check_end(between=self.transaction is None)
        await self.flush(timeout)
        if self._unread_upload:
            await self.linger(_LINGER, _LINGER_OCTETS)

    async def _greet(self) -> None:
        config = self.listener.config
        if not await self._is_welcome():
            return
        if config.greeting_delay:
            await asyncio.sleep(config.greeting_delay)
        if config.early_talkers == "refuse" and len(self.input):
            _log.info("early talker refused", address=self.address)
            self.reply(Reply(554, "5.5.1", "You spoke before the greeting"))
            self._closing = True
            return
        self.reply(Reply(220, "", f"{self.services.host_name} ESMTP NetMail"))

    async def _is_welcome(self) -> bool:
        """Asks whether the client may connect; tells it if it may not (RFC 5321 3.1: 554)."""
        self.services.gate.seen(self.visitor)
        if not self.client.may_grant or self._standing.by_network() is not None:
            return True
        admission = self.admission = await self.services.gate.connecting(self.visitor)
        if admission.allowed:
            return True
        _log.info("connection denied", address=self.address, rule=admission.rule)
        text = admission.comment or "You may not connect"
        self.reply(Reply(554, "5.7.1", text) if admission.permanent else Reply(421, "4.7.0", text))
        self._closing = True
        return False

    async def _command(self, line: bytes) -> None:
        started = time.perf_counter()
        verb = "?"
        try:
            if len(line) > self.limits.command_line and line[:5].upper() != b"AUTH ":
                raise CommandSyntaxError(500, "5.5.2", "The line is too long")  # noqa: TRY301 - one place for all refusals
            verb, command = parse_command(line)
            self.count_command()
            reply = await self._dispatch(verb, command)
            if reply is not None:
                self.reply(reply)
        except SmtpError as error:
            self.refuse(error)
            verb = _known_verb(line) if verb == "?" else verb
        except (ConnectionEnded, ClientTimeout, EndRequested, LineWithoutEnd):
            raise
        except Exception:  # noqa: BLE001 - a reply for the client, a traceback for the log
            _log.exception("command failed", verb=verb, address=self.address)
            self.drop_transaction()
            self.reply(_INTERNAL_ERROR)
        _metrics.observe(verb, self.last_code, time.perf_counter() - started)

    async def _dispatch(self, verb: str, command: Command) -> Reply | None:
        match command:
            case Rcpt():
                await self.smtp_RCPT(command)
                return None
            case Mail():
                return await self.smtp_MAIL(command)
            case Ehlo():
                return self.smtp_EHLO(command)
            case Bdat():
                return await self._content.read_bdat(command)
            case Auth():
                return await self.authentication.run(command)
            case Simple():
                return await self._simple(verb, command.argument)

    async def _simple(self, verb: str, argument: str) -> Reply | None:
        match verb:
            case "DATA":
                return await self._content.read_data()
            case "RSET":
                self.drop_transaction()
                return OK
            case "QUIT":
                self._closing = True
                return Reply(221, "2.0.0", "Bye")
            case "STARTTLS":
                await self.smtp_STARTTLS()
                return None
            case "VRFY":
                return _VRFY
            case "EXPN":
                return _EXPN
            case "HELP":
                return _HELP
            case "NOOP" if argument:
                address = await self.services.gate.probe(self.visitor, argument)
                return OK if address is None else Reply(250, "2.0.0", f"{PROBE} {address}")
            case _:
                return OK

    def smtp_EHLO(self, command: Ehlo) -> Reply:  # noqa: N802 - aiosmtpd's naming
        """EHLO and HELO: begins anew (RFC 5321 4.1.4)."""
        self.drop_transaction()
        self.ehlo = command
        self.session.host_name = command.name
        self.session.extended_smtp = command.extended
        if not command.extended:
            return Reply(250, "", self.services.host_name)
        return Reply(250, "", "\n".join([self.services.host_name, *self._keywords()]))

    def _keywords(self) -> list[str]:
        """What EHLO offers now."""
        on = self.listener.extensions
        words: list[str] = [
            word for word in ("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING") if word in on
        ]
        words.append("ENHANCEDSTATUSCODES")
        if "SIZE" in on:
            words.append(f"SIZE {self.limits.message_size}")
        if "LIMITS" in on:
            words.append(f"LIMITS RCPTMAX={self.limits.recipients}")
        if self.listener.tls is not None and not self.tls_active:
            words.append("STARTTLS")
        words.extend(self.authentication.keywords())
        return words

    async def smtp_MAIL(self, command: Mail) -> Reply:  # noqa: N802 - aiosmtpd's naming
        """MAIL: begins a transaction."""
        self.require_greeting()
        self.check_parameters(command.names, "MAIL")
        if self.transaction is not None:
            raise SmtpError(503, "5.5.1", "A transaction is under way")
        limit = self.limits.message_size
        if limit and command.size is not None and command.size > limit:
            raise SmtpError(552, "5.3.4", f"The message is larger than {limit} octets")
        if command.sender is not None:
            await self.authentication.check_senders([command.sender])
        self.transaction = Transaction(command, known=self.authentication.known)
        return Reply(250, "2.1.0", "Sender ok")

    async def smtp_RCPT(self, command: Rcpt) -> None:  # noqa: N802 - aiosmtpd's naming
        """RCPT, with those that wait behind it in the same piece of input."""
        batch: list[Rcpt | SmtpError] = [command]
        while len(batch) < self.limits.recipients:
            line = self.input.take_line_if(b"RCPT")
            if line is None:
                break
            self.count_command()
            batch.append(_parse_rcpt(line, self.limits.command_line))
        for code in (await self._recipients.answer(batch))[1:]:
            _metrics.observe("RCPT", code, 0.0)

    async def smtp_STARTTLS(self) -> None:  # noqa: N802 - aiosmtpd's naming
        """STARTTLS (RFC 3207): what the client said before is forgotten, not its address."""
        tls = self.listener.tls
        if tls is None:
            raise SmtpError(502, "5.5.1", "TLS is not available here")
        if self.tls_active:
            raise SmtpError(503, "5.5.1", "TLS is active already")
        if len(self.input):
            # Whoever can put octets before the handshake would have them count as the client's.
            _log.warning("octets came with STARTTLS", address=self.address)
            raise SmtpError(554, "5.5.1", "Nothing may follow STARTTLS", close=True)
        self.reply(Reply(220, "2.0.0", "Ready to start TLS"))
        await self.flush(self.limits.command_timeout)
        await self.start_tls(tls)
        self.drop_transaction()
        self.ehlo = None
        self.session.host_name = None
        self.session.extended_smtp = False
        self.authentication.forget()

    def drop_transaction(self) -> None:
        """Forgets the transaction, and the content that came for it."""
        self.transaction = None
        self._content.abandon()

    def _last_words(self, reply: Reply) -> None:
        """Writes a reply if it can be written without waiting."""
        if self.transport is not None and not self._writing_paused:
            self.reply(reply)
            self.transport.write(b"".join(self._output))
            self._output.clear()
        else:
            self.abort_connection()


def _known_verb(line: bytes) -> str:
    """The verb, if it is one of ours: metrics have no labels of a stranger's making."""
    verb = line[:16].partition(b" ")[0].upper().decode("ascii", "replace")
    return verb if verb in VERBS else "unknown"


def _parse_rcpt(line: bytes, limit: int) -> Rcpt | SmtpError:
    try:
        if len(line) > limit:
            raise CommandSyntaxError(500, "5.5.2", "The line is too long")
        _, command = parse_command(line)
    except SmtpError as error:
        return error
    if not isinstance(command, Rcpt):
        raise TypeError("RCPT parsed into something else")
    return command
