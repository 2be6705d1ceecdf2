"""What the sessions of a process share."""

import asyncio
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from netmail_common.config import MailListenerConfig, MessagingServerConfig, PopImapLimits
from netmail_common.connmgr.gate import Gate
from netmail_common.nmap import DirectoryClient, MailboxClients
from netmail_common.tls import ServerTls

from netmail_pop_imap.adapters.imap_hub import MailboxHub
from netmail_pop_imap.adapters.logins import LoginRegistrar
from netmail_pop_imap.adapters.maildrop_stream import MaildropStreams
from netmail_pop_imap.adapters.sessions import SessionSet


@dataclass(frozen=True, slots=True)
class ListenerContext:
    """One listener's settings and what its sessions reach."""

    server: MessagingServerConfig
    listener: MailListenerConfig
    limits: PopImapLimits
    tls: ServerTls | None
    loop: asyncio.AbstractEventLoop
    directory: DirectoryClient
    mailboxes: MailboxClients
    maildrops: MaildropStreams
    mailbox_hub: MailboxHub
    logins: LoginRegistrar
    gate: Gate
    sessions: SessionSet
    plaintext_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """listener.plaintext_auth_networks, parsed."""
    failure_delay: float = 0.5
    """Seconds before a session's first failed login is answered; doubles with each."""
