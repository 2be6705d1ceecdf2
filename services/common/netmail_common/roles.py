"""Who may call what: the role in a certificate against the called method."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

__all__ = ["METHOD_ROLES", "Role", "role_of_uri", "role_uri"]


class Role(StrEnum):
    """An agent's role, the last part of its certificate's URI SAN."""

    POP_IMAP = "pop_imap"
    SMTP = "smtp"
    DELIVER = "deliver"
    NMAP = "nmap"
    CONNMGR = "connmgr"
    ADMIN = "admin"


_CONNMGR = "netmail.connmgr.v1.ConnectionManagerService"
_DIRECTORY = "netmail.nmap.v1.DirectoryService"
_MAILBOX = "netmail.nmap.v1.MailboxService"
_QUEUE = "netmail.nmap.v1.QueueService"
_BACKUP = "netmail.nmap.v1.BackupService"

_ALLOWED: dict[str, dict[tuple[Role, ...], str]] = {
    _CONNMGR: {
        # Role connmgr: the processes of a Connection Manager that serve its front ends.
        (Role.POP_IMAP, Role.CONNMGR): "RegisterLogin",
        (Role.SMTP, Role.CONNMGR): "CheckSender",
        (Role.SMTP, Role.POP_IMAP): "WatchLogins ReportClients AnswerProbe",
        (Role.SMTP, Role.POP_IMAP, Role.CONNMGR): "CheckConnection ReportEvent",
        (Role.NMAP, Role.CONNMGR): "RevokeLogins",
        (): "ListLogins ForgetFailures QueryAudit DescribeAddresses",
    },
    _DIRECTORY: {
        (Role.SMTP, Role.POP_IMAP): "Authenticate ListContexts",
        (Role.SMTP,): "Resolve",
        (): (
            "CreateUser GetUser ListUsers SetPassword SetUserDisabled DeleteUser AddAddress"
            " RemoveAddress UpdateUser CreateDevicePassword ListDevicePasswords"
            " DeleteDevicePassword"
        ),
    },
    _MAILBOX: {
        (Role.POP_IMAP,): (
            "ListMailboxes CreateMailbox DeleteMailbox RenameMailbox SetSubscribed OpenMailbox"
            " OpenMailboxes AppendSmallMessage AppendSmallMessages"
            " SyncMailbox WatchMailboxes FetchMessages SearchMessages StoreFlags CopyMessages"
            " MoveMessages ExpungeMessages AppendMessage UseMaildrops GetQuota"
        ),
    },
    _QUEUE: {
        (Role.SMTP,): "Submit SubmitStream",
        (Role.DELIVER,): "Lease ReadMessage Report Deliver",
        (): "ListQueue GetQueueMessage RetryQueue HoldQueue ReleaseQueue RemoveQueue",
    },
    _BACKUP: {(): "PrepareBackup ReadBackup EndBackup"},
    "grpc.health.v1.Health": {tuple(Role): "Check Watch List"},
    "grpc.reflection.v1alpha.ServerReflection": {(): "ServerReflectionInfo"},
    "grpc.reflection.v1.ServerReflection": {(): "ServerReflectionInfo"},
}

METHOD_ROLES: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        f"/{service}/{method}": frozenset({*roles, Role.ADMIN})
        for service, rules in _ALLOWED.items()
        for roles, methods in rules.items()
        for method in methods.split()
    }
)
"""Full method name -> roles that may call it. A method that is not here is nobody's."""


def role_uri(installation: str, role: Role) -> str:
    """The URI SAN of a certificate: `spiffe://INSTALLATION/ROLE`."""
    return f"spiffe://{installation}/{role.value}"


def role_of_uri(installation: str, uri: str) -> Role | None:
    """The role that URI stands for in this installation; None if it stands for none."""
    prefix = f"spiffe://{installation}/"
    if not uri.startswith(prefix):
        return None
    try:
        return Role(uri.removeprefix(prefix))
    except ValueError:
        return None
