"""Errors of the POP/IMAP agent. Each carries its wire reply, so a command loop has one `except`."""

from enum import Enum
from typing import ClassVar


class ImapStatus(Enum):
    """Which tagged response an error becomes (RFC 3501 7.1)."""

    NO = b"NO"
    BAD = b"BAD"


class ReplyError(Exception):
    """A command fails; the client is told `text` with the protocol's own codes.

    Attributes:
        pop3_code: POP3 response code without brackets (RFC 2449 8, RFC 3206), or None.
        imap_code: IMAP response code without brackets (RFC 5530), or None.
        imap_status: NO or BAD.
        counts: counted against `limits.errors` of the session.
        ends: the session ends after the reply.
        text: ASCII, for the person at the other end; no exception text of a library.
    """

    pop3_code: ClassVar[bytes | None] = None
    imap_code: bytes | None = None
    imap_status: ImapStatus = ImapStatus.NO
    counts: ClassVar[bool] = False
    ends: ClassVar[bool] = False
    default_text: ClassVar[str] = "command failed"

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text or self.default_text)
        self.text = text or self.default_text

    def pop3_reply(self) -> bytes:
        """The whole -ERR line."""
        code = b"" if self.pop3_code is None else b"[" + self.pop3_code + b"] "
        return b"-ERR " + code + self.text.encode("ascii", "replace") + b"\r\n"


class BadCommand(ReplyError):
    """What the client sent is not a command, or not with these arguments, or not in this state."""

    imap_status = ImapStatus.BAD
    counts = True
    default_text = "bad command"


class LineTooLong(BadCommand):
    """A line without end: the session ends, since nobody knows where the next command begins."""

    ends = True
    default_text = "line too long"


class LoginFailed(ReplyError):
    """Wrong user name or password; never which (RFC 3206 AUTH, RFC 5530 AUTHENTICATIONFAILED)."""

    pop3_code = b"AUTH"
    imap_code = b"AUTHENTICATIONFAILED"
    default_text = "authentication failed"


class TooManyLoginFailures(LoginFailed):
    """The last failure that one connection gets."""

    ends = True
    default_text = "too many authentication failures"


class LoginRevoked(LoginFailed):
    """The user's logins were revoked while this one was under way."""

    ends = True
    default_text = "login was revoked"


class NotWelcome(ReplyError):
    """The client may not connect: instead of a greeting (RFC 3206 SYS/PERM)."""

    pop3_code = b"SYS/PERM"
    ends = True
    default_text = "you may not connect"

    def imap_greeting(self) -> bytes:
        """The whole BYE (RFC 3501 7.1.5)."""
        code = b"" if self.imap_code is None else b"[" + self.imap_code + b"] "
        return b"* BYE " + code + self.text.encode("ascii", "replace") + b"\r\n"


class NotWelcomeNow(NotWelcome):
    """The client may not connect for a while (RFC 3206 SYS/TEMP, RFC 5530 UNAVAILABLE)."""

    pop3_code = b"SYS/TEMP"
    imap_code = b"UNAVAILABLE"
    default_text = "you may not connect now, try again later"


class PlaintextRefused(ReplyError):
    """A password in the clear, on a listener that does not allow it (RFC 2595, RFC 5530)."""

    imap_code = b"PRIVACYREQUIRED"
    default_text = "plaintext authentication is refused without TLS"


class AuthenticationCancelled(ReplyError):
    """The client sent `*` (RFC 5034 4, RFC 3501 6.2.2)."""

    imap_status = ImapStatus.BAD
    default_text = "authentication cancelled"


class AuthenticationMalformed(ReplyError):
    """The client's SASL message does not parse."""

    imap_status = ImapStatus.BAD
    counts = True
    default_text = "malformed authentication exchange"


class Unavailable(ReplyError):
    """Storage or directory does not answer; the client may come again (RFC 3206 SYS/TEMP)."""

    pop3_code = b"SYS/TEMP"
    imap_code = b"UNAVAILABLE"
    default_text = "temporary failure, try again later"


class MailboxInUse(ReplyError):
    """Another POP3 session holds the mailbox (RFC 2449 8.1.3, RFC 5530 INUSE)."""

    pop3_code = b"IN-USE"
    imap_code = b"INUSE"
    default_text = "mailbox is locked by another session"


class InternalError(ReplyError):
    """A fault of ours; the log says which."""

    pop3_code = b"SYS/TEMP"
    imap_code = b"SERVERBUG"
    default_text = "internal error"
