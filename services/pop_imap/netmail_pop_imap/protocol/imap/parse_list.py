"""LIST, LSUB, STATUS (RFC 3501 6.3.8 to 6.3.10, RFC 5258, RFC 5819, RFC 6154)."""

from netmail_pop_imap.protocol.imap.commands import Command, ListMailboxes, Status
from netmail_pop_imap.protocol.imap.errors import BadCommand
from netmail_pop_imap.protocol.imap.lexer import Cursor
from netmail_pop_imap.protocol.imap.names import read_mailbox
from netmail_pop_imap.protocol.imap.utf7 import decode_mailbox

STATUS_ITEMS = frozenset(
    {
        "MESSAGES",
        "RECENT",
        "UIDNEXT",
        "UIDVALIDITY",
        "UNSEEN",
        "HIGHESTMODSEQ",
        "SIZE",
        "DELETED",
        "APPENDLIMIT",
        "MAILBOXID",
    }
)

_SELECTION = {"SUBSCRIBED", "REMOTE", "RECURSIVEMATCH", "SPECIAL-USE"}
_RETURN = {"SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS"}
_MAX_PATTERNS = 100
_MAX_PATTERN = 1000


def parse_list(cursor: Cursor, tag: str, name: str) -> Command:
    """What follows LIST."""
    cursor.space()
    selection: list[str] = []
    extended = False
    if cursor.at(b"("):
        selection = _options(cursor, _SELECTION)
        extended = True
        cursor.space()
    reference = decode_mailbox(cursor.astring())
    cursor.space()
    if cursor.at(b"("):
        patterns = cursor.items(lambda: _pattern(cursor))
        extended = True
    else:
        patterns = [_pattern(cursor)]
    if len(patterns) > _MAX_PATTERNS:
        raise BadCommand("Too many patterns")
    returned: list[str] = []
    status: tuple[str, ...] = ()
    if cursor.skip(b" "):
        if cursor.keyword() != "RETURN":
            raise BadCommand("Expected RETURN")
        cursor.space()
        returned, status = _return_options(cursor)
        extended = True
    if "RECURSIVEMATCH" in selection and not {"SUBSCRIBED", "SPECIAL-USE"} & set(selection):
        raise BadCommand("RECURSIVEMATCH needs another selection option")
    return ListMailboxes(
        tag,
        name,
        reference,
        tuple(patterns),
        select_subscribed="SUBSCRIBED" in selection,
        select_special_use="SPECIAL-USE" in selection,
        recursive_match="RECURSIVEMATCH" in selection,
        return_subscribed="SUBSCRIBED" in returned or "SUBSCRIBED" in selection,
        return_children="CHILDREN" in returned,
        return_special_use="SPECIAL-USE" in returned or "SPECIAL-USE" in selection,
        return_status=status,
        extended=extended,
    )


def parse_lsub(cursor: Cursor, tag: str, name: str) -> Command:
    """What follows LSUB."""
    cursor.space()
    reference = decode_mailbox(cursor.astring())
    cursor.space()
    return ListMailboxes(tag, name, reference, (_pattern(cursor),), select_subscribed=True)


def parse_status(cursor: Cursor, tag: str, name: str) -> Command:
    """What follows STATUS."""
    cursor.space()
    mailbox = read_mailbox(cursor)
    cursor.space()
    return Status(tag, name, mailbox, _status_items(cursor))


def _status_items(cursor: Cursor) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(cursor.items(cursor.keyword)))
    if not STATUS_ITEMS.issuperset(items):
        raise BadCommand("Unknown STATUS item")
    return items


def _pattern(cursor: Cursor) -> str:
    octets = cursor.list_mailbox()
    if len(octets) > _MAX_PATTERN:
        raise BadCommand("Pattern is too long")
    return decode_mailbox(octets)


def _options(cursor: Cursor, known: set[str]) -> list[str]:
    options = cursor.items(cursor.keyword, empty=True)
    if not known.issuperset(options):
        raise BadCommand("Unknown LIST option")
    return options


def _return_options(cursor: Cursor) -> tuple[list[str], tuple[str, ...]]:
    status: tuple[str, ...] = ()

    def option() -> str:
        nonlocal status
        name = cursor.keyword()
        if name == "STATUS":
            cursor.space()
            status = _status_items(cursor)
        return name

    options = cursor.items(option, empty=True)
    if not _RETURN.issuperset(options):
        raise BadCommand("Unknown LIST option")
    return options, status
