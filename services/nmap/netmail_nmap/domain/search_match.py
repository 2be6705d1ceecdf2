"""Decides whether a message matches a SEARCH key, from as little of it as possible.

A predicate answers True, False, or None: it would have to see more (the header, then the body).
The store shows the cheap things of all messages first and reads more only of the undecided ones.
"""

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_tz

from netmail_nmap.domain.errors import InvalidRequest
from netmail_nmap.domain.message_text import (
    ENCODED,
    body_texts,
    decode_header,
    decode_value,
    field_pattern,
    may_hold_ascii,
)
from netmail_nmap.domain.search import (
    AllOf,
    AnyOf,
    BodyContains,
    Date,
    DateField,
    HasFlag,
    HeaderContains,
    Larger,
    ModseqAtLeast,
    Not,
    ObjectId,
    SearchKey,
    Smaller,
    TextContains,
    Uids,
)

_DAY = 86_400
_MAX_DEPTH = 50


@dataclass(slots=True)
class Candidate:
    """What is known of a message so far."""

    uid: int
    modseq: int
    flags: int
    internal_date: int
    save_date: int
    size: int
    body_id: int
    header: bytes | None = None
    body: bytes | None = None
    """What follows the header section."""


Predicate = Callable[[Candidate], bool | None]


@dataclass(frozen=True, slots=True)
class Names:
    """What the mailbox's names mean."""

    mask: Callable[[str], int]
    """The bits of a flag; 0 if no message has it."""
    object_id: Callable[[int], str]
    """The object id of a message by its body's id."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What has to be read to decide a key.

    A message can match only if it has at least one of the words (lower case), or something else
    than ASCII, in its header or anywhere; no words: it has to be looked at.
    """

    header: bool = False
    body: bool = False
    modseq: bool = False
    columns: bool = False
    """Flags, dates or size."""
    header_words: tuple[bytes | re.Pattern[bytes], ...] = ()
    body_words: tuple[bytes, ...] = ()


def needs_of(key: SearchKey) -> Needs:
    """Finds out what a key needs."""
    match key:
        case AllOf(keys):
            return _needs_of_some([needs_of(part) for part in keys], keep_words=True)
        case AnyOf(keys):
            return _needs_of_some([needs_of(part) for part in keys], keep_words=False)
        case Not(inner):
            return _needs_of_some([needs_of(inner)], keep_words=False)
        case HeaderContains(_, text):
            return Needs(header=True, header_words=_header_words(text.casefold()))
        case BodyContains(text) | TextContains(text):
            word = _longest_ascii_word(text.casefold())
            return Needs(header=True, body=True, body_words=(word, *ENCODED) if word else ())
        case Date(DateField.SENT, _, _):
            return Needs(header=True)
        case _:
            return Needs(modseq=isinstance(key, ModseqAtLeast), columns=True)


def _header_words(needle: str) -> tuple[bytes | re.Pattern[bytes], ...]:
    """Several words are looked for together: a header may be folded between them."""
    words = needle.split()
    if needle.isascii() and len(words) > 1:
        return (re.compile(rb"\s+".join(re.escape(word.encode()) for word in words)), b"=?")
    word = _longest_ascii_word(needle)
    return (word, b"=?") if word else ()


def _needs_of_some(parts: list[Needs], *, keep_words: bool) -> Needs:
    """Every part of AllOf must match, so that the words of any one of them will do."""
    return Needs(
        header=any(part.header for part in parts),
        body=any(part.body for part in parts),
        modseq=any(part.modseq for part in parts),
        columns=any(part.columns for part in parts),
        header_words=next((p.header_words for p in parts if p.header_words and keep_words), ()),
        body_words=next((p.body_words for p in parts if p.body_words and keep_words), ()),
    )


def compile_key(key: SearchKey, names: Names, depth: int = 0) -> Predicate:
    """Makes the predicate of a key. Raises: InvalidRequest when it is nested too deeply."""
    if depth > _MAX_DEPTH:
        raise InvalidRequest("the search key is nested too deeply")
    match key:
        case AllOf(keys):
            return _all([compile_key(k, names, depth + 1) for k in sorted(keys, key=_cost)])
        case AnyOf(keys):
            return _any([compile_key(k, names, depth + 1) for k in sorted(keys, key=_cost)])
        case Not(inner):
            return _negated(compile_key(inner, names, depth + 1))
        case HeaderContains(name, text):
            return _header_contains(name, text)
        case BodyContains(text):
            return _text_contains(text, with_header=False)
        case TextContains(text):
            return _text_contains(text, with_header=True)
        case _:
            return _column(key, names)


def _cost(key: SearchKey) -> int:
    """Cheap keys are asked first."""
    match key:
        case AllOf(keys) | AnyOf(keys):
            return max((_cost(k) for k in keys), default=0)
        case Not(inner):
            return _cost(inner)
        case HeaderContains():
            return 1
        case Date(DateField.SENT, _, _):
            return 2
        case BodyContains() | TextContains():
            return 3
        case _:
            return 0


def _column(key: SearchKey, names: Names) -> Predicate:
    match key:
        case HasFlag(flag):
            mask = names.mask(flag)
            return lambda message: message.flags & mask != 0
        case Date(field, relation, day):
            if field is DateField.SENT:
                return lambda message: (
                    None
                    if message.header is None
                    else (sent := sent_day(message.header)) is not None
                    and relation.holds(sent, day)
                )
            if field is DateField.INTERNAL:
                return lambda message: relation.holds(message.internal_date // _DAY, day)
            return lambda message: relation.holds(message.save_date // _DAY, day)
        case Larger(size):
            return lambda message: message.size > size
        case Smaller(size):
            return lambda message: message.size < size
        case Uids(ranges):
            return lambda message: any(first <= message.uid <= last for first, last in ranges)
        case ModseqAtLeast(modseq):
            return lambda message: message.modseq >= modseq
        case ObjectId(object_id):
            return lambda message: names.object_id(message.body_id) == object_id
        case _:
            raise InvalidRequest("the search key is not known")


def _all(predicates: list[Predicate]) -> Predicate:
    if len(predicates) == 1:
        return predicates[0]

    def predicate(message: Candidate) -> bool | None:
        answer: bool | None = True
        for part in predicates:
            found = part(message)
            if found is False:
                return False
            if found is None:
                answer = None
        return answer

    return predicate


def _any(predicates: list[Predicate]) -> Predicate:
    def predicate(message: Candidate) -> bool | None:
        answer: bool | None = False
        for part in predicates:
            found = part(message)
            if found:
                return True
            if found is None:
                answer = None
        return answer

    return predicate


def _negated(inner: Predicate) -> Predicate:
    def predicate(message: Candidate) -> bool | None:
        found = inner(message)
        return None if found is None else not found

    return predicate


def _header_contains(name: str, text: str) -> Predicate:
    pattern = field_pattern(name)
    needle = text.casefold()
    word = _longest_ascii_word(needle)

    def predicate(message: Candidate) -> bool | None:
        header = message.header
        if header is None:
            return None
        if _certainly_absent(header, word):
            return False
        if not needle:
            return pattern.search(header) is not None
        return any(
            needle in decode_value(value.strip()).casefold() for value in pattern.findall(header)
        )

    return predicate


def _text_contains(text: str, *, with_header: bool) -> Predicate:
    needle = text.casefold()
    word = _longest_ascii_word(needle)
    simple = needle.encode() if needle.isascii() else None

    def predicate(message: Candidate) -> bool | None:
        header, body = message.header, message.body
        if (
            with_header
            and header is not None
            and not _certainly_absent(header, word)
            and needle in decode_header(header).casefold()
        ):
            return True
        if header is None or body is None:
            return None
        if not needle:
            return True
        if simple is not None and not may_hold_ascii(header + body, word):
            return False
        return any(needle in part.casefold() for part in body_texts(header + body))

    return predicate


def _certainly_absent(header: bytes, word: bytes) -> bool:
    """Whether the raw octets alone show that the text is not there: most headers end here."""
    return header.isascii() and b"=?" not in header and word not in header.lower()


def _longest_ascii_word(needle: str) -> bytes:
    """The part of the text that is in the raw header if the text is, however it is folded.

    Text that is not ASCII cannot be in an ASCII header without encoded words: then anything that
    no header has will do.
    """
    if not needle.isascii():
        return b"\xff"
    return max(re.split(r"\s", needle), key=len).encode()


_DATE = field_pattern("Date")


def sent_day(header: bytes) -> int | None:
    """The Date field's date as written there, in days since the epoch; None: there is none."""
    found = _DATE.search(header)
    if found is None:
        return None
    try:
        parsed = parsedate_tz(found[1].decode("latin-1").strip())
        if parsed is None:
            return None
        return calendar.timegm((*parsed[:3], 0, 0, 0)) // _DAY
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
