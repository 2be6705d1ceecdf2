"""SEARCH (RFC 3501 6.4.4, RFC 4731, RFC 7162 3.1.5, RFC 8474, RFC 8514)."""

import codecs
import re
from collections.abc import Callable

from netmail_pop_imap.protocol.imap import search_keys as k
from netmail_pop_imap.protocol.imap.commands import Command, Search
from netmail_pop_imap.protocol.imap.dates import parse_date
from netmail_pop_imap.protocol.imap.errors import BadCommand, Refused
from netmail_pop_imap.protocol.imap.lexer import SEQUENCE, Cursor
from netmail_pop_imap.protocol.imap.sequence import SequenceSet, parse_sequence_set

_MAX_KEYS = 1000
_CHARSETS = re.compile(
    r"US-ASCII|UTF-8|ISO-8859-(?:[1-9]|1[0-6])|WINDOWS-125[0-8]|KOI8-[RU]|ISO-2022-JP|SHIFT_JIS|EUC-JP"
    r"|EUC-KR|GB2312|GBK|GB18030|BIG5"
)
_RESULTS = frozenset({"MIN", "MAX", "ALL", "COUNT"})
_KEYWORD = re.compile(rb"[A-Za-z0-9-]+")
_ENTRY = re.compile(rb'"/flags/(?:[^"\\\r\n\x00]|\\["\\])*" (?i:priv|shared|all) ')


def parse_search(cursor: Cursor, tag: str, name: str) -> Command:
    """What follows SEARCH or UID SEARCH."""
    cursor.space()
    results = None
    if _ahead(cursor) == b"RETURN":
        cursor.position += 6
        cursor.space()
        chosen = cursor.items(cursor.keyword, empty=True)
        if not _RESULTS.issuperset(chosen):
            raise BadCommand("Unknown SEARCH result option")
        results = frozenset(chosen) or frozenset({"ALL"})
        cursor.space()
    charset = "US-ASCII"
    if _ahead(cursor) == b"CHARSET":
        cursor.position += 7
        cursor.space()
        charset = cursor.astring().decode("ascii", "replace").upper()
        cursor.space()
        if not _CHARSETS.fullmatch(charset):
            raise Refused("Charset is not supported", "BADCHARSET (US-ASCII UTF-8)")
    key = _Keys(cursor, charset).top()
    return Search(tag, name, key, results, name.startswith("UID "))


def _ahead(cursor: Cursor) -> bytes:
    match = _KEYWORD.match(cursor.data, cursor.position)
    return b"" if match is None else match[0].upper()


class _Keys:
    """Reads search keys; counts them, since each costs work for each message."""

    def __init__(self, cursor: Cursor, charset: str) -> None:
        self.cursor = cursor
        self.charset = charset
        self.count = 0

    def top(self) -> k.SearchKey:
        keys = [self.key()]
        while self.cursor.skip(b" "):
            if self.cursor.position == len(self.cursor.data):
                break
            keys.append(self.key())
        return keys[0] if len(keys) == 1 else k.AllOf(tuple(keys))

    def key(self) -> k.SearchKey:
        self.count += 1
        if self.count > _MAX_KEYS:
            raise BadCommand("Too many search keys")
        cursor = self.cursor
        if cursor.at(b"("):
            return k.AllOf(tuple(cursor.items(self.key)))
        name = _KEYWORD.match(cursor.data, cursor.position)
        if name is None or name[0][:1].isdigit():
            return k.InSet(self.sequence(), uid=False)
        cursor.position = name.end()
        word = name[0].decode("ascii").upper()
        if word in _FLAG_KEYS:
            return _FLAG_KEYS[word]
        reader = _READERS.get(word)
        if reader is None:
            raise BadCommand("Unknown search key")
        cursor.space()
        return reader(self)

    def sequence(self) -> SequenceSet:
        return parse_sequence_set(self.cursor.match(SEQUENCE, "a search key"))

    def nested(self) -> k.SearchKey:
        """A key inside NOT or OR, one level deeper."""
        self.cursor.enter()
        found = self.key()
        self.cursor.depth -= 1
        return found

    def text(self) -> str:
        octets = self.cursor.astring()
        try:
            if self.charset == "US-ASCII":
                return octets.decode("utf-8")
            return octets.decode(codecs.lookup(self.charset).name)
        except (UnicodeDecodeError, LookupError) as error:
            raise Refused("Text is not in that charset", "BADCHARSET (US-ASCII UTF-8)") from error

    def field(self, name: str) -> k.SearchKey:
        return k.InHeader(name, self.text())

    def header(self) -> k.SearchKey:
        name = self.cursor.astring().decode("ascii", "replace")
        self.cursor.space()
        return k.InHeader(name, self.text())

    def flag(self) -> k.SearchKey:
        return k.HasFlag(self.cursor.atom("a keyword"))

    def date(self, kind: k.DateKind, relation: k.Relation) -> k.SearchKey:
        return k.DateIs(kind, relation, parse_date(self.cursor.astring()))

    def either(self) -> k.SearchKey:
        left = self.nested()
        self.cursor.space()
        return k.AnyOf(left, self.nested())

    def modseq(self) -> k.SearchKey:
        entry = _ENTRY.match(self.cursor.data, self.cursor.position)
        if entry is not None:  # per-flag modseqs are not kept: RFC 7162 3.1.5 allows the message's
            self.cursor.position = entry.end()
        return k.ModSeqAtLeast(self.cursor.number((1 << 63) - 1))


_FLAG_KEYS: dict[str, k.SearchKey] = {
    "ALL": k.AllOf(()),
    "RECENT": k.IsRecent(),
    "OLD": k.Not(k.IsRecent()),
    "NEW": k.AllOf((k.IsRecent(), k.Not(k.HasFlag("\\Seen")))),
    **{
        name.upper(): k.HasFlag(f"\\{name}")
        for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
    },
    **{
        f"UN{name.upper()}": k.Not(k.HasFlag(f"\\{name}"))
        for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
    },
}


def _dates() -> dict[str, Callable[[_Keys], k.SearchKey]]:
    def reader(kind: k.DateKind, relation: k.Relation) -> Callable[[_Keys], k.SearchKey]:
        return lambda keys: keys.date(kind, relation)

    return {
        kind.value + relation.value: reader(kind, relation)
        for kind in k.DateKind
        for relation in k.Relation
    }


def _field(name: str) -> Callable[[_Keys], k.SearchKey]:
    return lambda keys: keys.field(name)


_READERS: dict[str, Callable[[_Keys], k.SearchKey]] = {
    **{name.upper(): _field(name) for name in ("Bcc", "Cc", "From", "Subject", "To")},
    **_dates(),
    "BODY": lambda keys: k.InBody(keys.text()),
    "TEXT": lambda keys: k.InText(keys.text()),
    "HEADER": _Keys.header,
    "KEYWORD": _Keys.flag,
    "UNKEYWORD": lambda keys: k.Not(keys.flag()),
    "LARGER": lambda keys: k.SizeIs(larger=True, octets=keys.cursor.number()),
    "SMALLER": lambda keys: k.SizeIs(larger=False, octets=keys.cursor.number()),
    "NOT": lambda keys: k.Not(keys.nested()),
    "OR": _Keys.either,
    "UID": lambda keys: k.InSet(keys.sequence(), uid=True),
    "MODSEQ": _Keys.modseq,
    "EMAILID": lambda keys: k.EmailId(keys.cursor.atom("an object id")),
    "THREADID": lambda keys: _no_thread(keys.cursor.atom("an object id")),
}


def _no_thread(_object_id: str) -> k.SearchKey:
    """No message has a thread id here."""
    return k.Not(k.AllOf(()))
