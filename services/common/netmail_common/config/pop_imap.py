"""Configuration of the POP/IMAP Agent."""

from typing import Annotated, Literal

from pydantic import Field

from netmail_common.config._base import RELOADED, Duration, Octets, Section
from netmail_common.config.common import HttpConfig, ListenerConfig


class MailListenerConfig(ListenerConfig):
    """One POP3 or IMAP listener."""

    name: str
    protocol: Literal["pop3", "imap"]
    auth_mechanisms: Annotated[list[Literal["PLAIN", "LOGIN", "SCRAM-SHA-256"]], RELOADED] = [
        "SCRAM-SHA-256",
        "PLAIN",
        "LOGIN",
    ]
    idle_timeout: Annotated[Duration, Field(ge=1), RELOADED] = 1800
    """Inactivity before autologout: at least 600 for POP3 (RFC 1939 section 3), 1800
    for IMAP (RFC 9051 section 5.4) in production."""


class PopImapLimits(Section):
    """What a stranger meets."""

    command_line: Annotated[int, Field(ge=256)] = 65_536
    """Octets of one command without its literals."""
    literal: Octets = 50 * 1024 * 1024
    """Octets of a message to APPEND."""
    literal_before_login: Octets = 4096
    non_sync_literals: Literal["LITERAL+", "LITERAL-"] = "LITERAL+"
    """RFC 7888: LITERAL- lets clients send only literals up to 4096 octets without a go-ahead."""
    errors: Annotated[int, Field(ge=1)] = 20
    """Bad commands in one session, then it ends."""
    login_timeout: Annotated[Duration, Field(ge=1)] = 180
    """Time to log in."""
    write_timeout: Annotated[Duration, Field(ge=1)] = 300
    """How long a client may leave an answer unread."""
    gone_after: Annotated[Duration, Field(ge=1)] = 60
    """How long a POP3 client's host may acknowledge nothing of what is sent to it; then the mailbox
    is free for its next session. A client that is there and only does not read is not meant."""


class PopImapConfig(Section):
    """The POP/IMAP Agent."""

    listeners: list[MailListenerConfig] = []
    workers: Annotated[int, Field(ge=0)] = 1
    """Worker processes; 0: as many as cores."""
    http: HttpConfig = HttpConfig()
    limits: Annotated[PopImapLimits, RELOADED] = PopImapLimits()
    renew_while_connected: bool = True
    """An open session renews its login every third of the lifetime."""
    register_retry: Annotated[Duration, Field(ge=0)] = 60
    """How long registering is tried again while the Connection Manager is away."""
    register_timeout: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Seconds that a login waits for the Connection Manager before it goes on without."""
    drain_timeout: Annotated[Duration, Field(ge=1)] = 30
