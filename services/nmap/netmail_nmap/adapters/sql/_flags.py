"""Flags of messages as one number: system flags, and keywords by their mailbox's bits."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from netmail_nmap.adapters.schema import keywords, messages
from netmail_nmap.adapters.sql._statements import Driver, Statement
from netmail_nmap.domain.errors import InvalidRequest, TooManyKeywords
from netmail_nmap.domain.mail import (
    FIRST_KEYWORD_BIT,
    MAX_KEYWORDS,
    SYSTEM_FLAGS,
    SYSTEM_FLAGS_BY_KEY,
)

_OF_MAILBOX = Statement(
    sa.select(keywords.c.bit, keywords.c.name).where(
        keywords.c.mailbox_id == sa.bindparam("mailbox")
    )
)
_ADD = Statement(
    sa.insert(keywords).values(
        mailbox_id=sa.bindparam("mailbox"), bit=sa.bindparam("bit"), name=sa.bindparam("name")
    )
)
_DROP = Statement(
    sa.delete(keywords).where(
        keywords.c.mailbox_id == sa.bindparam("mailbox"), keywords.c.bit == sa.bindparam("bit")
    )
)
_MASKS_IN_USE = Statement(
    sa.select(messages.c.flags)
    .where(messages.c.mailbox_id == sa.bindparam("mailbox"))
    .group_by(messages.c.flags)
)
_MAX_FLAG = 255
_NOT_IN_ATOM = frozenset('(){%*"\\] ')


class FlagNames:
    """The flags of one mailbox, by bit and by name; keywords compare without case."""

    def __init__(self, mailbox_keywords: Mapping[int, str]) -> None:
        self._by_bit = {bit: name for name, flag in SYSTEM_FLAGS.items() for bit in (int(flag),)}
        self.keywords = tuple(sorted(mailbox_keywords.values()))
        for bit, name in mailbox_keywords.items():
            self._by_bit[1 << bit] = name
        self._by_key = {name.lower(): mask for mask, name in self._by_bit.items()}
        self._texts: dict[int, str] = {}

    @classmethod
    def load(cls, driver: Driver, mailbox_id: int) -> "FlagNames":
        """Reads the keywords of a mailbox."""
        return cls(dict(_OF_MAILBOX.all(driver, mailbox=mailbox_id)))

    def text(self, mask: int) -> str:
        """The flags, space separated and sorted."""
        text = self._texts.get(mask)
        if text is None:
            text = " ".join(sorted(name for bit, name in self._by_bit.items() if mask & bit))
            self._texts[mask] = text
        return text

    def mask(self, name: str) -> int:
        """The bit of a flag as a number; 0 if no message of the mailbox can have it."""
        return self._by_key.get(name.lower(), 0)

    def sets(self, masks: Sequence[int]) -> tuple[list[int], list[str]]:
        """Gives for each mask an index into the list of distinct texts."""
        index: dict[int, int] = {}
        for mask in set(masks):
            index[mask] = len(index)
        return [index[mask] for mask in masks], [self.text(mask) for mask in index]


def flags_to_mask(driver: Driver, mailbox_id: int, names: Iterable[str]) -> int:
    """The mask of these flags; keywords that the mailbox does not know yet are added to it.

    Raises: InvalidRequest for what is no flag; TooManyKeywords.
    """
    mask = 0
    known: FlagNames | None = None
    for name in names:
        system = SYSTEM_FLAGS_BY_KEY.get(name.lower())
        if system is not None:
            mask |= system
            continue
        _check_keyword(name)
        if known is None:
            known = FlagNames.load(driver, mailbox_id)
        bit = known.mask(name)
        if bit == 0:
            bit = 1 << _add_keyword(driver, mailbox_id, name)
            known = None
        mask |= bit
    return mask


def translate_mask(driver: Driver, mask: int, names: FlagNames, to_mailbox: int) -> int:
    """The same flags in another mailbox."""
    system = (1 << FIRST_KEYWORD_BIT) - 1
    if mask & ~system == 0:
        return mask
    return (mask & system) | flags_to_mask(
        driver, to_mailbox, names.text(mask & ~system).split(" ")
    )


def _check_keyword(name: str) -> None:
    """A keyword is an atom (RFC 3501 9)."""
    if not name or len(name) > _MAX_FLAG:
        raise InvalidRequest("a keyword is empty or too long")
    if any(not " " < c < "\x7f" or c in _NOT_IN_ATOM for c in name):
        raise InvalidRequest("a keyword is not an atom")


def _add_keyword(driver: Driver, mailbox_id: int, name: str) -> int:
    taken = {bit for bit, _ in _OF_MAILBOX.all(driver, mailbox=mailbox_id)}
    if len(taken) == MAX_KEYWORDS:
        taken = _drop_unused(driver, mailbox_id, taken)
    bit = next(
        (
            bit
            for bit in range(FIRST_KEYWORD_BIT, FIRST_KEYWORD_BIT + MAX_KEYWORDS)
            if bit not in taken
        ),
        None,
    )
    if bit is None:
        raise TooManyKeywords
    _ADD.run(driver, mailbox=mailbox_id, bit=bit, name=name)
    return bit


def _drop_unused(driver: Driver, mailbox_id: int, taken: set[int]) -> set[int]:
    """Keywords that no message has any more make room."""
    in_use = 0
    for (mask,) in _MASKS_IN_USE.rows(driver, mailbox=mailbox_id):
        in_use |= mask
    for bit in taken:
        if not in_use & 1 << bit:
            _DROP.run(driver, mailbox=mailbox_id, bit=bit)
    return {bit for bit in taken if in_use & 1 << bit}
