"""Errors of the NMAP agent; each carries its gRPC status and ErrorInfo reason."""

from typing import ClassVar

import grpc
from netmail_common.grpc_errors import RpcError


class NmapError(RpcError):
    """The request cannot be answered; what the client is told is in the class."""

    default_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    default_reason: ClassVar[str] = "INTERNAL"
    default_message: ClassVar[str] = "internal error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self.default_status, self.default_reason, message or self.default_message)


class InvalidRequest(NmapError):
    """The request makes no sense."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_REQUEST"
    default_message = "the request is invalid"


class UserNotFound(NmapError):
    """No user has this id (or name)."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "USER_NOT_FOUND"
    default_message = "no such user"


class MailboxNotFound(NmapError):
    """No mailbox has this name."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "MAILBOX_NOT_FOUND"
    default_message = "no such mailbox"


class MailboxGone(NmapError):
    """The mailbox with this id was deleted."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "MAILBOX_GONE"
    default_message = "the mailbox is no longer there"


class MessageGone(NmapError):
    """A message was removed while it was being read."""

    default_status = grpc.StatusCode.ABORTED
    default_reason = "MESSAGE_GONE"
    default_message = "the message was removed"


class MailboxExists(NmapError):
    """A mailbox has this name already."""

    default_status = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "MAILBOX_EXISTS"
    default_message = "a mailbox of that name exists"


class SpecialUseTaken(NmapError):
    """Another mailbox of the user has this special use (RFC 6154)."""

    default_status = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "SPECIAL_USE_TAKEN"
    default_message = "another mailbox has that special use"


class MailboxHasChildren(NmapError):
    """Only a name in the hierarchy: it goes when its children go (RFC 3501 6.3.4)."""

    default_status = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "MAILBOX_HAS_CHILDREN"
    default_message = "there are mailboxes below it"


class TooManyKeywords(NmapError):
    """A mailbox holds 58 keywords."""

    default_status = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "TOO_MANY_KEYWORDS"
    default_message = "the mailbox has too many keywords"


class OverQuota(NmapError):
    """The user's mail would exceed his quota."""

    default_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "OVER_QUOTA"
    default_message = "the mailbox is full"


class MessageTooBig(NmapError):
    """The message exceeds max_message_size."""

    default_status = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "MESSAGE_TOO_BIG"
    default_message = "the message is too big"


class LeaseLost(NmapError):
    """The lease has ended, or somebody else has it."""

    default_status = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "LEASE_LOST"
    default_message = "the lease is lost"


class QueueMessageNotFound(NmapError):
    """The queue has no message of this id."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "QUEUE_MESSAGE_NOT_FOUND"
    default_message = "no such message in the queue"


class StoreUnavailable(NmapError):
    """Storage fails; the same request may succeed later."""

    default_status = grpc.StatusCode.UNAVAILABLE
    default_reason = "STORE_UNAVAILABLE"
    default_message = "storage does not answer"


class InsufficientStorage(StoreUnavailable):
    """The disk is full."""

    default_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "INSUFFICIENT_STORAGE"
    default_message = "storage is full"


class BackupUnderWay(NmapError):
    """One copy of the store at a time."""

    default_status = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "BACKUP_UNDER_WAY"
    default_message = "another backup is under way"


class BackupGone(NmapError):
    """No such copy: nobody read it for long, or the agent was restarted."""

    default_status = grpc.StatusCode.NOT_FOUND
    default_reason = "BACKUP_GONE"
    default_message = "the backup is no longer there"
