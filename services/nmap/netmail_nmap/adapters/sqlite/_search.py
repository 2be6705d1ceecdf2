"""SEARCH: columns of all messages first, headers of the undecided, bodies of the rest."""

import functools
from collections.abc import Sequence

import sqlalchemy as sa

from netmail_nmap.adapters.schema import bodies, messages
from netmail_nmap.adapters.sqlite import _bodies, _mailboxes
from netmail_nmap.adapters.sqlite._core import Core
from netmail_nmap.adapters.sqlite._flags import FlagNames
from netmail_nmap.adapters.sqlite._readers import Snapshot
from netmail_nmap.adapters.sqlite._statements import Driver, Statement, id_list, ids_of
from netmail_nmap.domain.mail import SearchOutcome
from netmail_nmap.domain.search import AllOf, AnyOf, ModseqAtLeast, Not, SearchKey
from netmail_nmap.domain.search_match import Candidate, Names, Predicate, compile_key

BODY_LIMIT = 8 * 1024 * 1024
"""Octets of a body that are searched: what is behind is an attachment."""
_HEADERS_AT_ONCE = 2_000
_BODIES_AT_ONCE = 200
_BODY_OCTETS_AT_ONCE = 16 * 1024 * 1024

_COLUMNS = (
    messages.c.uid,
    messages.c.modseq,
    messages.c.flags,
    messages.c.internal_date,
    messages.c.save_date,
    messages.c.size,
    messages.c.body_id,
)
_ALL = Statement(
    sa.select(*_COLUMNS)
    .where(messages.c.mailbox_id == sa.bindparam("mailbox"))
    .order_by(messages.c.uid)
)
_SOME = Statement(
    sa.select(*_COLUMNS)
    .where(messages.c.mailbox_id == sa.bindparam("mailbox"), messages.c.uid.in_(ids_of("uids")))
    .order_by(messages.c.uid)
)
_HEADERS = Statement(
    sa.select(bodies.c.id, bodies.c.header).where(bodies.c.id.in_(ids_of("bodies")))
)


async def search(
    core: Core, user_id: int, mailbox_id: int, key: SearchKey, uids: Sequence[int]
) -> SearchOutcome:
    """See `netmail_nmap.domain.store.MailStore.search`.

    Each step is a read of its own, so that a long search keeps no snapshot and others get a turn.
    """
    predicate: Predicate | None = None

    def columns(snapshot: Snapshot) -> tuple[list[Candidate], list[Candidate]]:
        nonlocal predicate
        driver = snapshot.driver
        row = _mailboxes.by_id(driver, user_id, mailbox_id)
        flags = FlagNames.load(driver, row.id)
        predicate = compile_key(key, Names(flags.mask, core.ids.message_object_id))
        found = (
            _SOME.rows(driver, mailbox=row.id, uids=id_list(uids))
            if uids
            else _ALL.rows(driver, mailbox=row.id)
        )
        return _decide(predicate, [Candidate(*columns) for columns in found])

    def headers(batch: Sequence[Candidate], snapshot: Snapshot) -> list[Candidate]:
        _load_headers(snapshot.driver, batch)
        yes, undecided = _decide(_known(predicate), batch)
        matching.extend(yes)
        return undecided

    def texts(batch: Sequence[Candidate], snapshot: Snapshot) -> None:
        for message in batch:
            _load_body(snapshot.driver, message)
            yes, _ = _decide(_known(predicate), [message])
            matching.extend(yes)
            message.header = message.body = None

    matching, undecided = await core.readers.run_heavy(columns)
    for start in range(0, len(undecided), _HEADERS_AT_ONCE):
        batch = undecided[start : start + _HEADERS_AT_ONCE]
        need_body = await core.readers.run_heavy(functools.partial(headers, batch))
        for message in batch:
            message.header = None
        for part in _by_octets(need_body):
            await core.readers.run_heavy(functools.partial(texts, part))
    matching.sort(key=lambda message: message.uid)
    highest = max((message.modseq for message in matching), default=0)
    return SearchOutcome(
        [message.uid for message in matching], highest if _asks_for_modseq(key) else 0
    )


def _known(predicate: Predicate | None) -> Predicate:
    if predicate is None:
        raise AssertionError("the columns are read first")
    return predicate


def _decide(
    predicate: Predicate, candidates: Sequence[Candidate]
) -> tuple[list[Candidate], list[Candidate]]:
    yes, undecided = [], []
    for candidate in candidates:
        answer = predicate(candidate)
        if answer:
            yes.append(candidate)
        elif answer is None:
            undecided.append(candidate)
    return yes, undecided


def _load_headers(driver: Driver, batch: Sequence[Candidate]) -> None:
    """A message that was removed meanwhile has an empty header."""
    found = dict(_HEADERS.rows(driver, bodies=id_list({message.body_id for message in batch})))
    for message in batch:
        message.header = found.get(message.body_id, b"")


def _load_body(driver: Driver, message: Candidate) -> None:
    found = _bodies.read_header(driver, message.body_id)
    header = b"" if found is None else found[0]
    end = min(message.size, len(header) + BODY_LIMIT)
    message.header = header
    message.body = b"".join(_bodies.read_range(driver, message.body_id, len(header), end))


def _by_octets(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Parts that take about the same time."""
    parts: list[list[Candidate]] = []
    octets = 0
    for candidate in candidates:
        if not parts or len(parts[-1]) == _BODIES_AT_ONCE or octets > _BODY_OCTETS_AT_ONCE:
            parts.append([])
            octets = 0
        parts[-1].append(candidate)
        octets += min(candidate.size, BODY_LIMIT)
    return parts


def _asks_for_modseq(key: SearchKey) -> bool:
    match key:
        case AllOf(keys) | AnyOf(keys):
            return any(_asks_for_modseq(k) for k in keys)
        case Not(inner):
            return _asks_for_modseq(inner)
        case _:
            return isinstance(key, ModseqAtLeast)
