"""Mailbox names as commands give them."""

from netmail_pop_imap.protocol.imap.lexer import Cursor
from netmail_pop_imap.protocol.imap.utf7 import decode_mailbox


def read_mailbox(cursor: Cursor) -> str:
    """A mailbox name in Unicode; INBOX in upper case, as the first level of a hierarchy too."""
    return normalise_mailbox(decode_mailbox(cursor.astring()))


def normalise_mailbox(name: str) -> str:
    """`inbox` and `Inbox/x` have their first level in upper case."""
    first, separator, rest = name.partition("/")
    return "INBOX" + separator + rest if first.upper() == "INBOX" else name
