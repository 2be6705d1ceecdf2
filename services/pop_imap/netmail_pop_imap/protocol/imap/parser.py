"""From a command's octets to a Command (RFC 3501 section 9 and the extensions we announce)."""

from collections.abc import Callable

from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap.dates import parse_date_time
from netmail_pop_imap.protocol.imap.errors import BadCommand, Refused
from netmail_pop_imap.protocol.imap.flags import MAX_KEYWORD, canonical_flag
from netmail_pop_imap.protocol.imap.lexer import FLAG, SEQUENCE, TAG, Cursor
from netmail_pop_imap.protocol.imap.names import read_mailbox
from netmail_pop_imap.protocol.imap.parse_fetch import parse_fetch
from netmail_pop_imap.protocol.imap.parse_list import parse_list, parse_lsub, parse_status
from netmail_pop_imap.protocol.imap.parse_search import parse_search
from netmail_pop_imap.protocol.imap.sequence import SequenceSet, parse_sequence_set

NO_TAG = "*"
"""Stands for a tag that could not be read: the reply is untagged."""

_MAX_ID_FIELDS = 30


def tag_of(octets: bytes) -> str:
    """The tag a reply to this command must carry."""
    match = TAG.match(octets)
    if match is None or octets[match.end() : match.end() + 1] not in {b"", b" "}:
        return NO_TAG
    return match[0].decode("ascii")


def parse_command(octets: bytes) -> c.Command:
    """A whole command, its literals inside.

    Raises: BadCommand, Refused (BADCHARSET, CANNOT).
    """
    cursor = Cursor(octets)
    tag = cursor.match(TAG, "a tag").decode("ascii")
    cursor.space()
    name = cursor.keyword("a command")
    if name == "UID":
        cursor.space()
        verb = cursor.keyword("a command")
        name = f"UID {verb}"
    parse = _PARSERS.get(name)
    if parse is None:
        raise BadCommand("Unknown command")
    command = parse(cursor, tag, name)
    cursor.end()
    return command


def parse_append(prefix: bytes) -> c.Append | None:
    """APPEND up to the literal that is its message.

    None: another command, or the announced literal is APPEND's mailbox name.

    Raises: BadCommand.
    """
    cursor = Cursor(prefix)
    if TAG.match(prefix) is None:
        return None
    tag = cursor.match(TAG, "a tag").decode("ascii")
    if not cursor.skip(b" ") or prefix[cursor.position : cursor.position + 7].upper() != b"APPEND ":
        return None
    cursor.position += 7
    if cursor.position == len(prefix):
        return None
    mailbox = read_mailbox(cursor)
    cursor.space()
    flags: list[str] = []
    moment = None
    if cursor.at(b"("):
        flags = cursor.items(lambda: _flag(cursor), empty=True)
        cursor.space()
    if cursor.at(b'"'):
        moment = parse_date_time(cursor.string())
        cursor.space()
    if cursor.position != len(prefix):
        raise BadCommand("Expected a message literal")
    return c.Append(tag, "APPEND", mailbox, tuple(dict.fromkeys(flags)), moment)


def _flag(cursor: Cursor) -> str:
    text = cursor.match(FLAG, "a flag").decode("ascii")
    flag = canonical_flag(text)
    if flag is None:
        raise BadCommand("That flag cannot be changed")
    if len(flag) > MAX_KEYWORD:
        raise Refused("Keyword is too long", "LIMIT")
    return flag


def _sequence(cursor: Cursor) -> SequenceSet:
    return parse_sequence_set(cursor.match(SEQUENCE, "a sequence set"))


def _bare(_cursor: Cursor, tag: str, name: str) -> c.Command:
    return c.Command(tag, name)


def _authenticate(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    mechanism = cursor.keyword("a mechanism")
    initial = None
    if cursor.skip(b" "):
        initial = cursor.data[cursor.position :]
        cursor.position = len(cursor.data)
    return c.Authenticate(tag, name, mechanism, initial)


def _login(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    username = cursor.astring()
    cursor.space()
    return c.Login(tag, name, username, cursor.astring())


def _enable(cursor: Cursor, tag: str, name: str) -> c.Command:
    extensions = []
    cursor.space()
    extensions.append(cursor.keyword("an extension"))
    while cursor.skip(b" "):
        extensions.append(cursor.keyword("an extension"))
    return c.Enable(tag, name, tuple(extensions))


def _identify(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    if cursor.nstring_is_nil():
        return c.Identify(tag, name, {})
    values = cursor.items(cursor.nstring, empty=True)
    if len(values) % 2 or len(values) > 2 * _MAX_ID_FIELDS:
        raise BadCommand("Invalid ID parameters")
    texts = [None if v is None else v.decode("utf-8", "replace")[:1024] for v in values]
    fields = {k.lower(): v for k, v in zip(texts[::2], texts[1::2], strict=True) if k and v}
    return c.Identify(tag, name, fields)


def _select(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    mailbox = read_mailbox(cursor)
    condstore = False
    if cursor.skip(b" "):
        for option in cursor.items(cursor.keyword):
            if option != "CONDSTORE":
                raise BadCommand("Unknown SELECT parameter")
            condstore = True
    return c.Select(tag, name, mailbox, condstore)


def _on_mailbox(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    return c.OnMailbox(tag, name, read_mailbox(cursor))


def _create(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    mailbox = read_mailbox(cursor)
    special_use = ""
    if cursor.skip(b" "):
        cursor.expect(b"(")
        if cursor.keyword() != "USE":
            raise BadCommand("Unknown CREATE parameter")
        cursor.space()
        uses = cursor.items(lambda: cursor.match(FLAG, "a special use").decode("ascii"))
        cursor.expect(b")")
        if len(uses) != 1:
            raise Refused("One special use for each mailbox", "USEATTR")
        special_use = uses[0].lstrip("\\").capitalize()
    return c.Create(tag, name, mailbox, special_use)


def _rename(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    source = read_mailbox(cursor)
    cursor.space()
    return c.Rename(tag, name, source, read_mailbox(cursor))


def _append(_cursor: Cursor, _tag: str, _name: str) -> c.Command:
    raise BadCommand("APPEND needs a message literal")


def _get_quota(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    return c.GetQuota(tag, name, cursor.astring().decode("utf-8", "replace"))


def _set_quota(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.position = len(cursor.data)
    return c.Command(tag, name)


def _uid_expunge(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    return c.Expunge(tag, name, _sequence(cursor))


def _store(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    messages = _sequence(cursor)
    cursor.space()
    unchanged_since = None
    if cursor.skip(b"("):
        if cursor.keyword() != "UNCHANGEDSINCE":
            raise BadCommand("Unknown STORE modifier")
        cursor.space()
        unchanged_since = cursor.number((1 << 63) - 1)
        cursor.expect(b")")
        cursor.space()
    mode = c.StoreMode.REPLACE
    for candidate in (c.StoreMode.ADD, c.StoreMode.REMOVE):
        if cursor.skip(candidate.value.encode("ascii")):
            mode = candidate
    item = cursor.keyword("FLAGS")
    if item not in {"FLAGS", "FLAGS.SILENT"}:
        raise BadCommand("Expected FLAGS")
    cursor.space()
    if cursor.at(b"("):
        flags = cursor.items(lambda: _flag(cursor), empty=True)
    else:
        flags = [_flag(cursor)]
        while cursor.skip(b" "):
            flags.append(_flag(cursor))
    unique = tuple(dict.fromkeys(flags))
    silent = item == "FLAGS.SILENT"
    uid = name.startswith("UID ")
    return c.Store(tag, name, messages, mode, unique, silent, uid, unchanged_since)


def _copy(cursor: Cursor, tag: str, name: str) -> c.Command:
    cursor.space()
    messages = _sequence(cursor)
    cursor.space()
    mailbox = read_mailbox(cursor)
    return c.Copy(tag, name, messages, mailbox, name.startswith("UID "), name.endswith("MOVE"))


def _expunge(_cursor: Cursor, tag: str, name: str) -> c.Command:
    return c.Expunge(tag, name, None)


_BARE = (
    "CAPABILITY",
    "NOOP",
    "LOGOUT",
    "STARTTLS",
    "NAMESPACE",
    "IDLE",
    "CHECK",
    "CLOSE",
    "UNSELECT",
)

_PARSERS: dict[str, Callable[[Cursor, str, str], c.Command]] = {
    **dict.fromkeys(_BARE, _bare),
    "AUTHENTICATE": _authenticate,
    "LOGIN": _login,
    "ENABLE": _enable,
    "ID": _identify,
    "SELECT": _select,
    "EXAMINE": _select,
    "CREATE": _create,
    "DELETE": _on_mailbox,
    "RENAME": _rename,
    "SUBSCRIBE": _on_mailbox,
    "UNSUBSCRIBE": _on_mailbox,
    "LIST": parse_list,
    "LSUB": parse_lsub,
    "STATUS": parse_status,
    "APPEND": _append,
    "GETQUOTA": _get_quota,
    "GETQUOTAROOT": _on_mailbox,
    "SETQUOTA": _set_quota,
    "EXPUNGE": _expunge,
    "UID EXPUNGE": _uid_expunge,
    "SEARCH": parse_search,
    "UID SEARCH": parse_search,
    "FETCH": parse_fetch,
    "UID FETCH": parse_fetch,
    "STORE": _store,
    "UID STORE": _store,
    "COPY": _copy,
    "UID COPY": _copy,
    "MOVE": _copy,
    "UID MOVE": _copy,
}

VERBS = frozenset(_PARSERS)
"""Every command that the parser knows."""
