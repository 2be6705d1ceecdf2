"""Which pods hold which role."""

from netmail_common.roles import Role

ACCOUNTS = {
    Role.POP_IMAP: "pop-imap",
    Role.SMTP: "smtp",
    Role.DELIVER: "deliver",
    Role.NMAP: "nmap",
    Role.CONNMGR: "connmgr",
    Role.ADMIN: "cli",
}
"""The part of a service account's name that follows the release's."""
