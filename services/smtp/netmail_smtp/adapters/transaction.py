"""One mail transaction, from MAIL to the end of its data."""

import itertools
import secrets
import time
from dataclasses import dataclass, field

from netmail.nmap.v1 import queue_pb2
from netmail_common.mail_address import MailAddress

from netmail_smtp.domain.relay import KnownSender, Stranger
from netmail_smtp.protocol.commands import Mail, Notify, Rcpt

_process_id = secrets.token_hex(6)
_serial = itertools.count()


def new_message_id() -> str:
    """A queue id: milliseconds first, so that ids of one time lie together in an index.

    Then what tells this process from all others, and a serial number: no system call.
    """
    serial = next(_serial) & 0xFFFFFF
    return f"{time.time_ns() // 1_000_000:012x}-{_process_id}-{serial:06x}"


@dataclass(slots=True)
class Transaction:
    """What MAIL and RCPT have said so far.

    Attributes:
        mail: the MAIL command.
        message_id: the queue's id.
        recipients: accepted ones by MailAddress.key(), for the queue.
        known: who the client is: by AUTH, or once a recipient needed to know.
        standing: what was found out about a client without AUTH; None: nobody asked.
        chunking: BDAT has begun.
        failed: a BDAT was refused; only RSET or a new greeting helps.
        granted: recipients that the sender's rate has room for, and that have not come yet.
        is_counted: the message was counted against the sender's rate.
        only_recipient: in SMTP's spelling, for Received, while there is just one.
    """

    mail: Mail
    message_id: str = field(default_factory=new_message_id)
    recipients: dict[str, queue_pb2.Recipient] = field(default_factory=dict)
    known: KnownSender | None = None
    standing: KnownSender | Stranger | None = None
    chunking: bool = False
    failed: bool = False
    granted: int = 0
    is_counted: bool = False
    only_recipient: str = ""
    needs_smtputf8: bool = False

    def __post_init__(self) -> None:
        """Looks at the sender."""
        sender = self.mail.sender
        self.needs_smtputf8 = sender is not None and not sender.is_ascii

    def add(self, address: MailAddress, rcpt: Rcpt, known: KnownSender | None) -> None:
        """An accepted recipient; one that is there already stays as it is."""
        key = address.key()
        if key in self.recipients:
            return
        # Success reports go to known senders only: to anybody else they would tell who reads here.
        success = Notify.SUCCESS in rcpt.notify and known is not None
        failure, delay = Notify.FAILURE in rcpt.notify, Notify.DELAY in rcpt.notify
        self.recipients[key] = queue_pb2.Recipient(
            address=address.wire,
            notify_given=bool(rcpt.notify),
            notify_never=bool(rcpt.notify) and not (success or failure or delay),
            notify_success=success,
            notify_failure=failure,
            notify_delay=delay,
            original_recipient=rcpt.original_recipient,
        )
        self.only_recipient = "" if len(self.recipients) > 1 else str(address)
        self.needs_smtputf8 = self.needs_smtputf8 or not address.is_ascii

    def envelope(
        self, *, messaging_server: str, body_8bit: bool, header_is_ascii: bool
    ) -> queue_pb2.Envelope:
        """The envelope as the queue takes it."""
        mail = self.mail
        return queue_pb2.Envelope(
            message_id=self.message_id,
            sender=mail.sender.wire if mail.sender else "",
            recipients=self.recipients.values(),
            smtputf8=mail.smtputf8 and (self.needs_smtputf8 or not header_is_ascii),
            body_8bit=body_8bit or mail.body_8bit,
            return_headers_only=mail.return_headers_only,
            envelope_id=mail.envelope_id,
            messaging_server=messaging_server,
            relayed_for=self.known.full_name if self.known else "",
        )
