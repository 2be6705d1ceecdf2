"""What a failed call to the NMAP agent means to an IMAP client (RFC 5530)."""

import grpc
from netmail_common.grpc_errors import error_reason
from netmail_common.logging import get_logger

from netmail_pop_imap.protocol.errors import ReplyError, Unavailable
from netmail_pop_imap.protocol.imap.errors import Refused

log = get_logger(__name__)

_REPLIES = {
    "MAILBOX_NOT_FOUND": ("NONEXISTENT", "No such mailbox"),
    "MAILBOX_GONE": ("NONEXISTENT", "The mailbox is no longer there"),
    "MAILBOX_EXISTS": ("ALREADYEXISTS", "Mailbox exists already"),
    "SPECIAL_USE_TAKEN": ("USEATTR", "Another mailbox has that special use"),
    "MAILBOX_HAS_CHILDREN": ("HASCHILDREN", "There are mailboxes below it"),
    "MAILBOX_IN_USE": ("INUSE", "Mailbox is in use"),
    "TOO_MANY_KEYWORDS": ("LIMIT", "Mailbox has too many keywords"),
    "OVER_QUOTA": ("OVERQUOTA", "Quota exceeded"),
    "MESSAGE_TOO_BIG": ("TOOBIG", "Message is too big"),
    "MESSAGE_GONE": ("EXPUNGEISSUED", "A message was expunged meanwhile"),
    "INVALID_REQUEST": ("CANNOT", "That cannot be done"),
}

_EXPECTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def reply_for_reason(reason: str, *, try_create: bool = False) -> ReplyError:
    """The reply for an ErrorInfo reason.

    Args:
        reason: empty: there was no answer.
        try_create: a missing mailbox could be made by the client (APPEND, COPY, MOVE).
    """
    if reason == "MAILBOX_NOT_FOUND" and try_create:
        return Refused("No such mailbox", "TRYCREATE")
    known = _REPLIES.get(reason)
    return Unavailable() if known is None else Refused(known[1], known[0])


def reply_for(error: grpc.aio.AioRpcError, *, try_create: bool = False) -> ReplyError:
    """The reply to the command that made the call.

    Args:
        error: of the call.
        try_create: as above.
    """
    reason = error_reason(error)
    if reason not in _REPLIES and error.code() not in _EXPECTED:
        log.warning("mailbox call failed", code=error.code().name, reason=reason)
    return reply_for_reason(reason or "", try_create=try_create)
