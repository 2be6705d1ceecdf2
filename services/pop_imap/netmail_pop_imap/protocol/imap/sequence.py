"""Sequence sets (RFC 3501 section 9, seq-range) and what they pick from a mailbox."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netmail_pop_imap.protocol.imap.errors import BadCommand

STAR = 1 << 32
"""`*`: the largest number in use, whatever it is; larger than any nz-number."""

MAX_RANGES = 20_000

Span = tuple[int, int]
"""Indexes into a mailbox's messages, first and last, both included, from 0."""


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """Ranges of sequence numbers or UIDs as they were written, each first <= last."""

    ranges: tuple[tuple[int, int], ...]

    def spans_of_numbers(self, count: int) -> list[Span]:
        """The messages of a mailbox of `count` messages, by sequence number.

        Raises: BadCommand, for a number that no message has (only UIDs are silent, 6.4.8).
        """
        spans = []
        for first, last in self.ranges:
            if count == 0 and last == STAR:
                continue
            if count < last != STAR:
                raise BadCommand("Sequence number beyond the mailbox")
            spans.append((min(first, count) - 1, min(last, count) - 1))
        return merge_spans(spans)

    def spans_of_uids(self, uids: Sequence[int], count: int) -> list[Span]:
        """The messages among the first `count` of `uids` (ascending); absent UIDs are silent."""
        if count == 0:
            return []
        top = uids[count - 1]
        spans = []
        for first, last in self.ranges:
            # "559:*" holds the last message even if its UID is below 559 (RFC 3501 6.4.8)
            low, high = (min(first, top), top) if last == STAR else (first, last)
            begin = bisect_left(uids, low, 0, count)
            end = bisect_right(uids, high, begin, count)
            if begin < end:
                spans.append((begin, end - 1))
        return merge_spans(spans)


def parse_sequence_set(text: bytes) -> SequenceSet:
    """Reads `1:3,5,7:*`.

    Raises: BadCommand.
    """
    pieces = text.split(b",")
    if len(pieces) > MAX_RANGES:
        raise BadCommand("Too many ranges in a sequence set")
    ranges = []
    for piece in pieces:
        first, colon, last = piece.partition(b":")
        low = _number(first)
        high = _number(last) if colon else low
        ranges.append((low, high) if low <= high else (high, low))
    return SequenceSet(tuple(ranges))


def _number(text: bytes) -> int:
    if text == b"*":
        return STAR
    if not text.isdigit() or len(text) > 10:
        raise BadCommand("Invalid sequence set")
    value = int(text)
    if not 0 < value <= 0xFFFFFFFF:
        raise BadCommand("Invalid sequence set")
    return value


def merge_spans(spans: list[Span]) -> list[Span]:
    """Sorted, without overlaps, neighbours joined."""
    if len(spans) < 2:
        return spans
    spans.sort()
    merged = [spans[0]]
    for first, last in spans[1:]:
        low, high = merged[-1]
        if first <= high + 1:
            merged[-1] = (low, max(high, last))
        else:
            merged.append((first, last))
    return merged


def span_indexes(spans: Iterable[Span]) -> Iterator[int]:
    """Every index of the spans, ascending."""
    for first, last in spans:
        yield from range(first, last + 1)


def span_count(spans: Iterable[Span]) -> int:
    """How many messages the spans hold."""
    return sum(last - first + 1 for first, last in spans)


def pick(values: "array[int]", spans: Iterable[Span]) -> "array[int]":
    """The values at the spans' indexes."""
    picked = array(values.typecode)
    for first, last in spans:
        picked += values[first : last + 1]
    return picked


def format_set(numbers: Iterable[int]) -> str:
    """Ascending numbers as a sequence set: `1:3,5`. Empty for none."""
    pieces: list[str] = []
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            pieces.append(f"{first}:{last}" if first != last else str(first))
        first = last = number
    if first:
        pieces.append(f"{first}:{last}" if first != last else str(first))
    return ",".join(pieces)


def format_pairs(sources: Sequence[int], targets: Sequence[int]) -> tuple[str, str]:
    """COPYUID's two sets (RFC 4315 section 3), in the order of the sources."""
    order = sorted(range(len(sources)), key=sources.__getitem__)
    return (
        format_set(sources[i] for i in order),
        format_set(targets[i] for i in order),
    )
