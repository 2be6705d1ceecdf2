"""Delivery status notifications: multipart/report of RFC 6522, RFC 3464 and (UTF-8) RFC 6533.

A notification is sent from the null sender; nothing is ever sent to the null sender (RFC 5321
4.5.5, 6.1). The octets of the returned message are not changed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from enum import StrEnum

from netmail_common.mail_address import quote_local

_DIAGNOSTIC_LIMIT = 900
_FOLD_AT = 200

DEFAULT_FULL_LIMIT = 256 * 1024
"""Larger messages come back as their header section only (RFC 3461 4.3 allows it)."""


class DsnAction(StrEnum):
    """RFC 3464 2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True)
class Notify:
    """DSN NOTIFY of one recipient (RFC 3461 4.1)."""

    never: bool = False
    success: bool = False
    failure: bool = False
    delay: bool = False
    given: bool = False
    """False: the client said nothing; failures and delays are reported."""

    def wants(self, action: DsnAction) -> bool:
        """Tells whether the sender is to hear of ACTION for this recipient."""
        if self.never:
            return False
        if action is DsnAction.FAILED:
            return self.failure or not self.given
        if action is DsnAction.DELAYED:
            return self.delay or not self.given
        return self.success


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """What became of one recipient."""

    address: str
    """local@domain as in the envelope."""
    action: DsnAction
    status: str
    """RFC 3463, "5.1.1"."""
    diagnostic: str = ""
    """"smtp; 550 5.1.1 no such user", "x-netmail; ...", or nothing."""
    remote_mta: str = ""
    original_recipient: str = ""
    """ORCPT, xtext decoded: "rfc822;alice@example.org", or nothing."""
    last_attempt: datetime | None = None
    will_retry_until: datetime | None = None
    """For delays."""


@dataclass(frozen=True, slots=True)
class OriginalMessage:
    """The message that the notification is about."""

    sender: str
    """The envelope sender, never empty."""
    message_id: str
    """The queue's message id."""
    arrival: datetime
    header: bytes
    """The header section, without the empty line."""
    body: bytes | None = None
    """What follows the empty line; None: only the header section is returned."""
    envelope_id: str = ""
    """DSN ENVID, xtext decoded."""
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Dsn:
    """A notification, ready for the queue: from the null sender, NOTIFY=NEVER."""

    recipient: str
    """The original's envelope sender."""
    data: bytes
    smtputf8: bool
    body_8bit: bool


def returns_body(
    action: DsnAction,
    *,
    return_headers_only: bool,
    size: int,
    limit: int = DEFAULT_FULL_LIMIT,
) -> bool:
    """Tells whether the whole message goes back: failures without RET=HDRS (RFC 3461 4.3)."""
    return action is DsnAction.FAILED and not return_headers_only and size <= limit


def split_message(data: bytes) -> tuple[bytes, bytes]:
    """Gives header section (with its last CRLF) and body, without the empty line between."""
    if data.startswith(b"\r\n"):
        return b"", data[2:]
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return data, b""
    return data[: end + 2], data[end + 4 :]


def build_dsn(
    original: OriginalMessage,
    recipients: Sequence[RecipientStatus],
    *,
    reporting_mta: str,
    message_id: str,
    now: datetime,
    postmaster: str | None = None,
) -> Dsn | None:
    """Builds one notification about RECIPIENTS; None for a message from the null sender.

    Args:
        original: what was sent.
        recipients: those whose sender wants to hear (`Notify.wants`), at least one; they may have
            different actions.
        reporting_mta: host name of the Messaging Server.
        message_id: a new queue message id; becomes Message-ID and boundary.
        now: for Date.
        postmaster: the From address; default: postmaster at the reporting MTA.
    """
    if not original.sender:
        return None
    returned = original.header + (b"" if original.body is None else b"\r\n" + original.body)
    utf8 = original.smtputf8 or not original.sender.isascii()
    report = _report(original, recipients, reporting_mta, utf8=utf8)
    words = _words(original, recipients, reporting_mta).encode()
    boundary = _boundary(message_id, returned)
    parts = (
        (b"text/plain; charset=utf-8", b"Notification", words),
        (_report_type(utf8), b"Delivery report", report),
        (_returned_type(original, utf8), b"Undelivered message", returned),
    )
    header = _header(original, recipients, reporting_mta, message_id, now, postmaster, boundary)
    eight_bit = not all(part[2].isascii() for part in parts) or not header.isascii()
    data = bytearray(header)
    if eight_bit:
        data += b"Content-Transfer-Encoding: 8bit\r\n"
    data += b"\r\nThis is a MIME-encapsulated message.\r\n"
    for kind, description, content in parts:
        data += b"\r\n--" + boundary + b"\r\nContent-Description: " + description
        data += b"\r\nContent-Type: " + kind + b"\r\n"
        if not content.isascii():
            data += b"Content-Transfer-Encoding: 8bit\r\n"
        data += b"\r\n" + content
    data += b"\r\n--" + boundary + b"--\r\n"
    needs_utf8 = not header.isascii() or (utf8 and not (report + original.header).isascii())
    return Dsn(original.sender, bytes(data), smtputf8=needs_utf8, body_8bit=eight_bit)


def _report_type(utf8: bool) -> bytes:
    return b"message/global-delivery-status" if utf8 else b"message/delivery-status"


def _returned_type(original: OriginalMessage, utf8: bool) -> bytes:
    international = utf8 and not original.header.isascii()
    if original.body is None:
        if international:
            return b"message/global-headers"
        return b"text/rfc822-headers"
    return b"message/global" if international else b"message/rfc822"


def _boundary(message_id: str, returned: bytes) -> bytes:
    """A boundary that is not in the returned message, whoever wrote it."""
    stem = b"=_" + re.sub(rb"[^A-Za-z0-9-]", b"", message_id.encode())[:48]
    number = 0
    while (boundary := stem + b"_%d" % number) in returned:
        number += 1
    return boundary


def _header(
    original: OriginalMessage,
    recipients: Sequence[RecipientStatus],
    reporting_mta: str,
    message_id: str,
    now: datetime,
    postmaster: str | None,
    boundary: bytes,
) -> bytes:
    lines = (
        f"From: Mail Delivery System <{postmaster or f'postmaster@{reporting_mta}'}>",
        f"To: <{_mailbox(original.sender)}>",
        f"Subject: {_subject(recipients)}",
        f"Date: {format_datetime(now)}",
        f"Message-ID: <{message_id}@{reporting_mta}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary.decode()}"',
    )
    return ("\r\n".join(lines) + "\r\n").encode()


def _subject(recipients: Sequence[RecipientStatus]) -> str:
    actions = {recipient.action for recipient in recipients}
    if DsnAction.FAILED in actions:
        return "Undelivered mail returned to sender"
    if DsnAction.DELAYED in actions:
        return "Delayed mail (still being tried)"
    return "Successful mail delivery report"


_WORDS = {
    DsnAction.FAILED: "Your message could not be delivered to:",
    DsnAction.DELAYED: "Your message has not been delivered yet; you need not send it again. To:",
    DsnAction.DELIVERED: "Your message was delivered to:",
    DsnAction.RELAYED: (
        "Your message was passed on to a host that sends no notifications of its own, for:"
    ),
    DsnAction.EXPANDED: "Your message was passed on to the members of:",
}


def _words(
    original: OriginalMessage, recipients: Sequence[RecipientStatus], reporting_mta: str
) -> str:
    lines = [f"This is the mail system at {reporting_mta}.", ""]
    for action, sentence in _WORDS.items():
        group = [recipient for recipient in recipients if recipient.action is action]
        if not group:
            continue
        lines += [sentence, ""]
        for recipient in group:
            lines.append(f"  <{_mailbox(recipient.address)}>")
            reason = _limit(_clean(recipient.diagnostic.partition(";")[2].strip()))
            if reason and action in (DsnAction.FAILED, DsnAction.DELAYED):
                host = f"{_clean(recipient.remote_mta)} said: " if recipient.remote_mta else ""
                lines.append(f"    {host}{reason}")
            if recipient.will_retry_until is not None:
                lines.append(
                    f"    It will be tried until {format_datetime(recipient.will_retry_until)}."
                )
        lines.append("")
    lines.append(f"Our name for this message is {original.message_id}.")
    return "\r\n".join(lines) + "\r\n"


def _report(
    original: OriginalMessage,
    recipients: Sequence[RecipientStatus],
    reporting_mta: str,
    *,
    utf8: bool,
) -> bytes:
    """message/delivery-status: fields of the message, then a group of fields per recipient."""
    lines = []
    if original.envelope_id:
        lines.append(f"Original-Envelope-Id: {_ascii(original.envelope_id)}")
    lines += [
        f"Reporting-MTA: dns; {reporting_mta}",
        f"Arrival-Date: {format_datetime(original.arrival)}",
    ]
    for recipient in recipients:
        lines.append("")
        if recipient.original_recipient:
            lines.append(f"Original-Recipient: {_typed(recipient.original_recipient, utf8=utf8)}")
        lines += [
            f"Final-Recipient: {_final(recipient.address, utf8=utf8)}",
            f"Action: {recipient.action}",
            f"Status: {recipient.status}",
        ]
        if recipient.remote_mta:
            lines.append(f"Remote-MTA: dns; {_ascii(recipient.remote_mta)}")
        if recipient.diagnostic:
            text = _limit(_clean(recipient.diagnostic))
            lines.append(_fold(f"Diagnostic-Code: {text if utf8 else _ascii(text)}"))
        if recipient.last_attempt is not None:
            lines.append(f"Last-Attempt-Date: {format_datetime(recipient.last_attempt)}")
        if recipient.will_retry_until is not None:
            lines.append(f"Will-Retry-Until: {format_datetime(recipient.will_retry_until)}")
    return ("\r\n".join(lines) + "\r\n").encode()


def _final(address: str, *, utf8: bool) -> str:
    address = _mailbox(address)
    if address.isascii():
        return f"rfc822; {address}"
    return f"utf-8; {address if utf8 else _utf8_xtext(address)}"


def _typed(original_recipient: str, *, utf8: bool) -> str:
    kind, _, address = _clean(original_recipient).partition(";")
    if not utf8:
        address = _utf8_xtext(address)
    return f"{_ascii(kind)};{address}"


def _utf8_xtext(text: str) -> str:
    """utf-8-addr-xtext of RFC 6533 section 3: what is not ASCII is written in hex."""
    return "".join(c if c.isascii() else f"\\x{{{ord(c):X}}}" for c in text)


def _mailbox(address: str) -> str:
    """An envelope address (local part unquoted) as RFC 5321 writes it."""
    local, _, domain = _clean(address).rpartition("@")
    return f"{quote_local(local)}@{domain}"


def _limit(text: str) -> str:
    """Keeps a line far below 998 octets."""
    return text.encode()[:_DIAGNOSTIC_LIMIT].decode(errors="ignore")


def _clean(text: str) -> str:
    """Foreign text for one line: control characters and what cannot be encoded become "?"."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", "?", text)


def _ascii(text: str) -> str:
    return _clean(text).encode("ascii", "replace").decode()


def _fold(line: str) -> str:
    """Folds at spaces (RFC 5322 2.2.3), far below the 998 octets of a line."""
    folded = ""
    for word in line.split(" "):
        if folded and len(folded) - folded.rfind("\r\n") + len(word) > _FOLD_AT:
            folded += "\r\n " + word
        else:
            folded += f" {word}" if folded else word
    return folded
