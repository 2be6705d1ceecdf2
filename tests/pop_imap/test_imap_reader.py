"""Cutting octets into commands."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_pop_imap.protocol.imap.reader import (
    CommandLine,
    CommandReader,
    Discarded,
    Endless,
    Event,
    Line,
    LiteralAnnounced,
    LiteralData,
    Overlong,
)


def read_all(data: bytes, cuts: list[int], *, stream: bool = False) -> list[Event]:
    """Feeds in pieces; collects (or streams) every literal."""
    reader = CommandReader(1000)
    events: list[Event] = []
    edges = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    for begin, end in pairwise(edges):
        reader.feed(data[begin:end])
        while (event := reader.next_event()) is not None:
            events.append(event)
            if isinstance(event, LiteralAnnounced):
                if stream:
                    reader.stream()
                else:
                    reader.collect()
    return events


def test_a_line_is_a_command() -> None:
    assert read_all(b"a1 NOOP\r\na2 LOGOUT\r\n", []) == [
        CommandLine(b"a1 NOOP"),
        CommandLine(b"a2 LOGOUT"),
    ]


def test_a_literal_is_announced_and_then_part_of_the_command() -> None:
    assert read_all(b"a LOGIN {5}\r\nalice {3+}\r\nabc\r\n", []) == [
        LiteralAnnounced(b"a LOGIN ", 5, synchronizing=True, binary=False),
        LiteralAnnounced(b"a LOGIN {5}\r\nalice ", 3, synchronizing=False, binary=False),
        CommandLine(b"a LOGIN {5}\r\nalice {3}\r\nabc"),
    ]


def test_a_literal_of_eight_bit_data_is_announced_as_such() -> None:
    (event,) = read_all(b"a APPEND x ~{5+}\r\n", [])
    assert event == LiteralAnnounced(b"a APPEND x ", 5, synchronizing=False, binary=True)


def test_a_literal_may_hold_line_ends_and_what_looks_like_literals() -> None:
    events = read_all(b"a X {8}\r\n\r\n{5}\r\nq\r\n", [])
    assert events[-1] == CommandLine(b"a X {8}\r\n\r\n{5}\r\nq")


def test_a_bare_lf_or_cr_ends_no_line() -> None:
    assert read_all(b"a NOOP\nb NOOP\rc\r\n", []) == [CommandLine(b"a NOOP\nb NOOP\rc")]


def test_a_streamed_literal_leaves_the_rest_of_its_command() -> None:
    events = read_all(b"a APPEND x {5+}\r\nhello\r\nb NOOP\r\n", [], stream=True)
    assert events[1:] == [
        LiteralData(b"hello", last=True),
        CommandLine(b""),
        CommandLine(b"b NOOP"),
    ]


def test_an_empty_literal_is_streamed_as_one_empty_piece() -> None:
    events = read_all(b"a APPEND x {0+}\r\n\r\n", [], stream=True)
    assert events[1:] == [LiteralData(b"", last=True), CommandLine(b"")]


def test_a_refused_synchronizing_literal_ends_the_command() -> None:
    reader = CommandReader(1000)
    reader.feed(b"a X {99}\r\n")
    reader.next_event()
    reader.refuse(coming=False)
    reader.feed(b"b NOOP\r\n")
    assert reader.next_event() == CommandLine(b"b NOOP")


def test_a_refused_non_synchronizing_literal_is_passed_over_with_the_rest_of_the_command() -> None:
    reader = CommandReader(1000)
    reader.feed(b"a X {90+}\r\n")
    reader.next_event()
    reader.refuse(coming=True)
    for _ in range(9):
        reader.feed(b"x\r\n{3}\r\n12")
        assert reader.next_event() is None
    reader.feed(b" more {4+}\r\nabcd end\r\nb NOOP\r\n")
    assert reader.next_event() == Discarded(b"a X ")
    assert reader.next_event() == CommandLine(b"b NOOP")


def test_a_line_without_end_is_not_kept() -> None:
    reader = CommandReader(1000)
    reader.feed(b"tag X")
    for _ in range(15):
        reader.feed(b"y" * 1000)
        assert reader.next_event() is None
        assert reader.backlog <= 1001
    reader.feed(b"\r")
    assert reader.next_event() is None
    reader.feed(b"\nb NOOP\r\n")
    event = reader.next_event()
    assert isinstance(event, Overlong)
    assert event.octets.startswith(b"tag Xy")
    assert reader.next_event() == CommandLine(b"b NOOP")


def test_a_line_that_goes_on_and_on_is_told() -> None:
    reader = CommandReader(1000)
    reader.feed(b"tag X")
    events = []
    for _ in range(20):
        reader.feed(b"y" * 1000)
        events.append(reader.next_event())
    assert events[:15] == [None] * 15
    endless = events[-1]
    assert isinstance(endless, Endless)
    assert endless.octets.startswith(b"tag Xy")


def test_a_line_over_the_limit_that_came_whole_is_refused_too() -> None:
    reader = CommandReader(100)
    reader.feed(b"tag X" + b"y" * 200 + b"\r\nb NOOP\r\n")
    assert isinstance(reader.next_event(), Overlong)
    assert reader.next_event() == CommandLine(b"b NOOP")


def test_an_expected_line_is_no_command() -> None:
    reader = CommandReader(100)
    reader.feed(b"DONE {5}\r\nb NOOP\r\n")
    reader.expect_line()
    assert reader.next_event() == Line(b"DONE {5}")
    assert reader.next_event() == CommandLine(b"b NOOP")


PIECES = st.lists(
    st.sampled_from(
        [b"a NOOP\r\n", b"b X {3}\r\n", b"abc", b"{2+}\r\n", b"xy", b"\r\n", b"\r", b"\n", b"\xc3"]
    ),
    max_size=12,
).map(b"".join)


@given(PIECES, st.lists(st.integers(0, 60), max_size=10))
def test_how_octets_are_cut_into_reads_changes_nothing(data: bytes, cuts: list[int]) -> None:
    assert read_all(data, cuts) == read_all(data, [])


@given(PIECES, st.lists(st.integers(0, 60), max_size=10))
def test_a_streamed_literal_has_the_same_octets_however_it_is_cut(
    data: bytes, cuts: list[int]
) -> None:
    def joined(events: list[Event]) -> list[object]:
        found: list[object] = []
        octets = b""
        for event in events:
            if isinstance(event, LiteralData):
                octets += event.octets
                if event.last:
                    found.append(octets)
                    octets = b""
            else:
                found.append(event)
        return [*found, octets]

    assert joined(read_all(data, cuts, stream=True)) == joined(read_all(data, [], stream=True))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_octets_give_events_and_no_exception(data: bytes, cuts: list[int]) -> None:
    read_all(data, cuts)


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
@pytest.mark.parametrize("refuse", [False, True], ids=["command", "rest of a command"])
def test_a_literal_behind_a_line_over_the_limit_is_no_command(size: int, refuse: bool) -> None:
    reader = CommandReader(100)
    data = (
        (b"a X {3+}\r\nabc" if refuse else b"a ")
        + b"x" * 200
        + b" {9+}\r\nb LOGOUT\n\r\nc NOOP\r\n"
    )
    events: list[Event] = []
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
        while (event := reader.next_event()) is not None:
            events.append(event)
            if isinstance(event, LiteralAnnounced):
                reader.refuse(coming=True)
    assert [type(event) for event in events[-2:]] == [Discarded, CommandLine]
    assert events[-1] == CommandLine(b"c NOOP")
