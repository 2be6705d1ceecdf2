"""The client's side of an SMTP session (RFC 5321), without IO.

Each operation is a generator: it yields a `Step` (octets to send, then one reply to wait for) and
is sent that `Reply`. Whoever drives it throws `ConnectionLost` into it when the connection ends.
"""

import base64
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias, TypeVar

from netmail_smtp.protocol.client_extensions import Extensions
from netmail_smtp.protocol.client_framing import normal_lines, original_recipient, xtext
from netmail_smtp.protocol.client_reply import Reply

T = TypeVar("T")


class Stage(StrEnum):
    """What a reply answers; each has its own time limit (RFC 5321 4.5.3.2)."""

    GREETING = "greeting"
    HELLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RESET = "RSET"
    MAIL = "MAIL FROM"
    RECIPIENT = "RCPT TO"
    DATA = "DATA"
    FINAL = "end of data"
    QUIT = "QUIT"


@dataclass(frozen=True, slots=True)
class Step:
    """Octets to send, then one reply to wait for."""

    send: bytes
    stage: Stage
    body: bool = False
    """After `send` the whole message goes out, dot-stuffed, with its final dot."""


Conversation: TypeAlias = Generator[Step, Reply, T]


class ConnectionLost(Exception):
    """The connection ended, or the server did not answer in time."""


class SessionRefused(Exception):
    """The server does not want this session: greeting, EHLO, AUTH or a 421."""

    def __init__(self, stage: Stage, reply: Reply) -> None:
        super().__init__(f"{reply} (in reply to {stage})")
        self.stage = stage
        self.reply = reply


class CannotAuthenticate(Exception):
    """The server offers no mechanism that we have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply that decides about a recipient, and what it answered."""

    stage: Stage
    reply: Reply


@dataclass(frozen=True, slots=True)
class RecipientCommand:
    """RCPT TO and its DSN parameters."""

    address: str
    """As SMTP spells it."""
    notify: str = ""
    """"NEVER" or a list of SUCCESS, FAILURE, DELAY; empty: not given."""
    original: str = ""
    """"addr-type;address", not encoded."""


@dataclass(slots=True)
class Transaction:
    """One mail transaction: what to say, and then what came of it."""

    sender: str
    """As SMTP spells it; empty: the null sender."""
    recipients: Sequence[RecipientCommand]
    size: int
    data: bytes | None = None
    """The message if it is in memory; then CHUNKING may be used."""
    eight_bit: bool = False
    smtputf8: bool = False
    return_headers_only: bool = False
    envelope_id: str = ""

    answers: dict[str, Answer] = field(default_factory=dict)
    """By recipient; who has none was not decided about."""
    too_many: list[str] = field(default_factory=list)
    """Refused with 452 behind others that were accepted: for the next transaction."""
    lost: ConnectionLost | SessionRefused | None = None
    """The session ended in the middle."""
    answered: bool = False
    """The server has answered something in this transaction."""
    sent: bool = False
    """The whole message is out as a chunk and no reply to it is in."""


class ClientSession:
    """One SMTP session's state."""

    def __init__(self, helo_name: str) -> None:
        self._helo_name = helo_name.encode("ascii")
        self._dirty = False
        self.extensions = Extensions()
        self.usable = True
        """Another transaction may follow."""

    def greet(self) -> Conversation[None]:
        """Waits for the greeting.

        Raises: SessionRefused, ConnectionLost.
        """
        reply = yield Step(b"", Stage.GREETING)
        if reply.code != 220:
            self.usable = False
            raise SessionRefused(Stage.GREETING, reply)

    def hello(self) -> Conversation[None]:
        """EHLO, and HELO where that is unknown; again after STARTTLS (RFC 3207 4.2).

        Raises: SessionRefused, ConnectionLost.
        """
        self.extensions = Extensions()
        reply = yield Step(b"EHLO " + self._helo_name + b"\r\n", Stage.HELLO)
        if reply.positive:
            self.extensions = Extensions.from_ehlo(reply)
            return
        if reply.permanent:
            reply = yield Step(b"HELO " + self._helo_name + b"\r\n", Stage.HELLO)
            if reply.positive:
                self.extensions = Extensions.from_helo(reply)
                return
        self.usable = False
        raise SessionRefused(Stage.HELLO, reply)

    def start_tls(self) -> Conversation[Reply]:
        """STARTTLS; with 220 the driver starts TLS at once, then `hello` again."""
        return (yield Step(b"STARTTLS\r\n", Stage.STARTTLS))

    def authenticate(self, username: str, password: str) -> Conversation[None]:
        """AUTH PLAIN (RFC 4616), or LOGIN where only that is offered.

        Raises: SessionRefused, CannotAuthenticate, ConnectionLost.
        """
        name, secret = username.encode(), password.encode()
        if "PLAIN" in self.extensions.auth:
            initial = base64.b64encode(b"\0" + name + b"\0" + secret)
            reply = yield Step(b"AUTH PLAIN " + initial + b"\r\n", Stage.AUTH)
        elif "LOGIN" in self.extensions.auth:
            reply = yield Step(b"AUTH LOGIN\r\n", Stage.AUTH)
            for answer in (name, secret):
                if reply.code != 334:
                    break
                reply = yield Step(base64.b64encode(answer) + b"\r\n", Stage.AUTH)
        else:
            raise CannotAuthenticate
        if reply.code != 235:
            self.usable = False
            raise SessionRefused(Stage.AUTH, reply)

    def quit(self) -> Conversation[None]:
        """QUIT."""
        self.usable = False
        yield Step(b"QUIT\r\n", Stage.QUIT)

    def transaction(self, transaction: Transaction) -> Conversation[None]:
        """Runs TRANSACTION and notes in it what came of it; raises nothing."""
        try:
            yield from self._transaction(transaction)
        except (ConnectionLost, SessionRefused) as error:
            self.usable = False
            transaction.lost = error

    def _transaction(self, transaction: Transaction) -> Conversation[None]:
        mail = self._mail(transaction)
        recipients = [self._recipient(recipient) for recipient in transaction.recipients]
        pending = b""
        if self._dirty:
            pending = b"RSET\r\n"
        reset, self._dirty = self._dirty, True
        chunk = self._whole_as_chunk(transaction)
        if self.extensions.pipelining:
            # RFC 2920 3.1: all of it in one write; DATA, or the only BDAT, comes last.
            pending += mail + b"".join(recipients) + (chunk or b"DATA\r\n")
            transaction.sent = chunk is not None
        if reset:
            reply = yield from self._step(transaction, pending, Stage.RESET)
            pending = b""
            if not reply.positive:
                raise SessionRefused(Stage.RESET, reply)
        if self.extensions.pipelining:
            yield from self._pipelined(transaction, pending, chunk is not None)
        else:
            yield from self._one_by_one(transaction, mail, recipients)

    def _pipelined(
        self, transaction: Transaction, pending: bytes, chunked: bool
    ) -> Conversation[None]:
        mail = yield from self._step(transaction, pending, Stage.MAIL)
        accepted: list[str] = []
        for recipient in transaction.recipients:
            reply = yield from self._step(transaction, b"", Stage.RECIPIENT)
            if not mail.positive:
                transaction.answers[recipient.address] = Answer(Stage.MAIL, mail)
            elif self._accepts(transaction, recipient.address, reply, bool(accepted)):
                accepted.append(recipient.address)
        if chunked:
            reply = yield from self._step(transaction, b"", Stage.FINAL)
            self._finish(transaction, accepted, Stage.FINAL, reply)
            return
        reply = yield from self._step(transaction, b"", Stage.DATA)
        if reply.code != 354:
            self._finish(transaction, accepted, Stage.DATA, reply)
        elif accepted:
            yield from self._send_body(transaction, accepted)
        else:
            # RFC 2920 3.1: DATA was accepted without recipients; an empty message ends it.
            yield from self._step(transaction, b".\r\n", Stage.FINAL)

    def _one_by_one(
        self, transaction: Transaction, mail: bytes, recipients: Sequence[bytes]
    ) -> Conversation[None]:
        reply = yield from self._step(transaction, mail, Stage.MAIL)
        if not reply.positive:
            for recipient in transaction.recipients:
                transaction.answers[recipient.address] = Answer(Stage.MAIL, reply)
            return
        accepted: list[str] = []
        for recipient, command in zip(transaction.recipients, recipients, strict=True):
            reply = yield from self._step(transaction, command, Stage.RECIPIENT)
            if self._accepts(transaction, recipient.address, reply, bool(accepted)):
                accepted.append(recipient.address)
        if not accepted:
            return
        reply = yield from self._step(transaction, b"DATA\r\n", Stage.DATA)
        if reply.code == 354:
            yield from self._send_body(transaction, accepted)
        else:
            self._finish(transaction, accepted, Stage.DATA, reply)

    def _send_body(self, transaction: Transaction, accepted: list[str]) -> Conversation[None]:
        reply = yield from self._step(transaction, b"", Stage.FINAL, body=True)
        self._finish(transaction, accepted, Stage.FINAL, reply)

    def _step(
        self, transaction: Transaction, send: bytes, stage: Stage, *, body: bool = False
    ) -> Conversation[Reply]:
        reply = yield Step(send, stage, body)
        transaction.answered = True
        if reply.code == 421:
            self.usable = False
            if stage is not Stage.FINAL:
                # Nothing more will be answered; who is undecided may be tried elsewhere.
                transaction.sent = False
                raise SessionRefused(stage, reply)
        return reply

    @staticmethod
    def _accepts(transaction: Transaction, address: str, reply: Reply, others: bool) -> bool:
        if reply.positive:
            return True
        # RFC 5321 4.5.3.1.10: too many recipients; the rest goes in another transaction.
        if reply.code == 452 and others and reply.enhanced in (None, "4.5.3"):
            transaction.too_many.append(address)
        else:
            transaction.answers[address] = Answer(Stage.RECIPIENT, reply)
        return False

    def _finish(
        self, transaction: Transaction, accepted: list[str], stage: Stage, reply: Reply
    ) -> None:
        transaction.sent = False
        for address in accepted:
            transaction.answers[address] = Answer(stage, reply)
        if stage is Stage.FINAL and reply.positive:
            self._dirty = False

    def _whole_as_chunk(self, transaction: Transaction) -> bytes | None:
        """The message as its only BDAT (RFC 3030 2): saves DATA's round trip and the stuffing."""
        if not (self.extensions.chunking and self.extensions.pipelining):
            return None
        if transaction.data is None:
            return None
        data = normal_lines(transaction.data)
        return b"BDAT %d LAST\r\n" % len(data) + data

    def _mail(self, transaction: Transaction) -> bytes:
        command = f"MAIL FROM:<{transaction.sender}>"
        offered = self.extensions
        if offered.size is not None:
            command += f" SIZE={transaction.size}"
        if offered.eight_bit_mime and transaction.eight_bit:
            command += " BODY=8BITMIME"
        if offered.smtputf8 and transaction.smtputf8:
            command += " SMTPUTF8"
        if offered.dsn:
            if transaction.return_headers_only:
                command += " RET=HDRS"
            if transaction.envelope_id:
                command += f" ENVID={xtext(transaction.envelope_id)}"
        return command.encode() + b"\r\n"

    def _recipient(self, recipient: RecipientCommand) -> bytes:
        command = f"RCPT TO:<{recipient.address}>"
        if self.extensions.dsn:
            if recipient.notify:
                command += f" NOTIFY={recipient.notify}"
            if recipient.original:
                command += f" ORCPT={original_recipient(recipient.original)}"
        return command.encode() + b"\r\n"
