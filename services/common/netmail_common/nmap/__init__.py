"""Clients of the NMAP agents: directory, mailboxes, queue."""

from netmail_common.nmap._channels import NmapChannels
from netmail_common.nmap._directory import DirectoryClient, ScramExchange, scram_offered
from netmail_common.nmap._mailbox import AppendFailed, MailboxClients
from netmail_common.nmap._queue import (
    Accepted,
    QueueClient,
    QueueClients,
    QueueError,
    QueueInsufficientStorage,
    QueueRefused,
    QueueUnavailable,
)
from netmail_common.nmap._resolve import Resolution, ResolveOutcome
from netmail_common.sasl import AuthenticatedUser

__all__ = [
    "Accepted",
    "AppendFailed",
    "AuthenticatedUser",
    "DirectoryClient",
    "MailboxClients",
    "NmapChannels",
    "QueueClient",
    "QueueClients",
    "QueueError",
    "QueueInsufficientStorage",
    "QueueRefused",
    "QueueUnavailable",
    "Resolution",
    "ResolveOutcome",
    "ScramExchange",
    "scram_offered",
]
