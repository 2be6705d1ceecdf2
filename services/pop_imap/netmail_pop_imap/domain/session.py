"""What the shared parts need to know of a POP3 or IMAP session."""

from enum import Enum
from typing import Protocol


class Ending(Enum):
    """Why the server ends a session; the value is for the log and the farewell."""

    IDLE = "idle time-out"
    LOGIN_TIMEOUT = "login time-out"
    TOO_MANY_ERRORS = "too many errors"
    REVOKED = "login revoked"
    SHUTDOWN = "server shutting down"
    MAILBOX_DELETED = "selected mailbox was deleted"
    MAILBOX_LOST = "mail store went away"
    INJECTION = "plaintext after the TLS upgrade"


class Session(Protocol):
    """A session that the server can end."""

    protocol_name: str
    """pop3 or imap."""

    def end(self, ending: Ending) -> None:
        """Ends it, after the command under way."""

    def cut(self) -> None:
        """Ends it at once, without a farewell."""
