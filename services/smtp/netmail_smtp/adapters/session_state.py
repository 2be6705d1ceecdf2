"""What the parts of one SMTP session share: its rules, its transaction, what it did wrong."""

from dataclasses import replace

from netmail_common.acceptor import ClientInfo
from netmail_common.connmgr.gate import Admission, Door, Visitor
from netmail_common.logging import get_logger

from netmail_smtp.adapters.connection import ClientTimeout, Connection
from netmail_smtp.adapters.services import Listener, Services
from netmail_smtp.adapters.transaction import Transaction
from netmail_smtp.protocol.commands import Ehlo
from netmail_smtp.protocol.reply import Reply, SmtpError

__all__ = ["LineWithoutEnd", "SessionState"]

_log = get_logger(__name__)
_MAX_DROPPED = 1024 * 1024
"""Octets of a line without end before the session ends."""

# What a client may give as MAIL or RCPT parameter only while the extension is on.
_PARAMETER_EXTENSIONS = {
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "RET": "DSN",
    "ENVID": "DSN",
    "NOTIFY": "DSN",
    "ORCPT": "DSN",
}


class LineWithoutEnd(Exception):
    """The client sends one line for ever."""


class SessionState(Connection):
    """One client's connection, and where its session stands.

    Args:
        client: who connected.
        services: of the process.
        listener: its rules.
    """

    def __init__(self, client: ClientInfo, services: Services, listener: Listener) -> None:
        limits = services.limits
        super().__init__(
            client, line_limit=limits.command_line, session_timeout=limits.session_timeout
        )
        self.services = services
        self.listener = listener
        self.limits = limits
        self.ehlo: Ehlo | None = None
        self.transaction: Transaction | None = None
        door = Door.SUBMISSION if listener.config.role == "submission" else Door.SMTP
        self.visitor = Visitor(client.address, door, listener.config.name)
        self.admission = Admission()
        """What the Connection Manager said when the client came."""
        self._errors = 0
        self._relay_refusals = 0
        self._commands = 0
        self._closing = False
        self._unread_upload = False
        self._next: tuple[Services, Listener] | None = None

    def go_on_with(self, services: Services, listener: Listener) -> None:
        """Takes another configuration: now, or when the message that is under way has ended.

        What EHLO has announced holds until the session ends.
        """
        self._next = services, listener
        self.take_next()

    def take_next(self) -> None:
        """Takes the configuration that waits, if there is one, unless a message is under way."""
        if self._next is None or self.transaction is not None:
            return
        self.services, listener = self._next
        self.listener = replace(
            listener, mechanisms=self.listener.mechanisms, extensions=self.listener.extensions
        )
        self.limits = self.services.limits
        self._next = None

    def require_greeting(self) -> Ehlo:
        """Raises: SmtpError 503."""
        if self.ehlo is None:
            raise SmtpError(503, "5.5.1", "Say EHLO first")
        return self.ehlo

    def check_patience(self, deadline: float) -> None:
        """Raises: LineWithoutEnd, ClientTimeout."""
        if self.input.dropped > _MAX_DROPPED:
            raise LineWithoutEnd
        if self.loop.time() >= deadline:
            raise ClientTimeout

    def message_accepted(self) -> None:
        """Something was delivered: the client may go on as long as it likes."""
        self._commands = 0

    @property
    def closing(self) -> bool:
        """Whether the session ends after the replies that wait."""
        return self._closing

    def count_relay_refusal(self) -> None:
        """After too many of them the session ends."""
        self._relay_refusals += 1

    def check_parameters(self, names: frozenset[str], verb: str) -> None:
        """Raises: SmtpError: a parameter of an extension that is off."""
        if not names:
            return
        extended = self.ehlo is not None and self.ehlo.extended
        for name in sorted(names):
            extension = _PARAMETER_EXTENSIONS.get(name)
            if not extended or (extension and extension not in self.listener.extensions):
                raise SmtpError(555, "5.5.4", f"{verb} parameter {name} not recognized")

    def count_command(self) -> None:
        """Raises: SmtpError with `close`: too many commands without a message."""
        self._commands += 1
        if self._commands > self.limits.commands:
            raise SmtpError(421, "4.7.0", "Too many commands without a message", close=True)

    def refuse(self, error: SmtpError) -> None:
        """Replies with a refusal, and ends the session when there were too many."""
        self.reply(error.reply)
        if error.close:
            self._closing = self._unread_upload = True
            return
        # "Not now" is no fault of the client's: who has too many recipients sends the rest later.
        self._errors += error.reply.code >= 500
        if self._relay_refusals >= self.limits.relay_refusals:
            self.say_goodbye("Too many refused recipients")
        elif self._errors >= self.limits.errors:
            self.say_goodbye("Too many errors")

    def say_goodbye(self, text: str) -> None:
        """Ends the session with a 421 of its own behind the last reply."""
        if not self._closing:
            _log.info("session ended by us", address=self.address, reason=text)
            self.reply(Reply(421, "4.7.0", text))
            self._closing = True
