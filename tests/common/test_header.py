"""The header scan: offsets of fields, nothing re-serialised."""

from hypothesis import given
from hypothesis import strategies as st
from netmail_common.header import header_end, scan_header, unfold

LINES = st.text(alphabet="aA: \t\r\n-", max_size=80).map(str.encode)
CLEAN = LINES.map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"\r\n"))


@given(CLEAN)
def test_fields_and_stray_lines_make_up_the_whole_header(data: bytes) -> None:
    header = scan_header(data)
    parts = sorted([(f.start, f.end) for f in header.fields] + list(header.stray_lines))
    position = 0
    for start, end in parts:
        assert start == position
        position = end
    assert position == header.end
    assert b"".join(header.without(iter(()))) == data[: header.end]
    assert data[header.end : header.body] in (b"\r\n", b"")


@given(st.binary(max_size=200))
def test_any_octets_can_be_scanned(data: bytes) -> None:
    header = scan_header(data)
    assert 0 <= header.end <= header.body <= len(data)


@given(CLEAN)
def test_fields_taken_out_leave_every_other_octet(data: bytes) -> None:
    header = scan_header(data)
    dropped = header.fields[::2]
    left = b"".join(header.without(iter(dropped)))
    assert len(left) == header.end - sum(f.end - f.start for f in dropped)


def test_a_folded_field_is_one_field() -> None:
    header = scan_header(b"Subject: a\r\n b\r\n\tc\r\nX-Y:z\r\n\r\nbody")
    assert [f.name for f in header.fields] == ["subject", "x-y"]
    assert header.value(header.fields[0]) == b" a\r\n b\r\n\tc"
    assert unfold(header.value(header.fields[0])) == b" a b\tc"
    assert header.data[header.body :] == b"body"
    assert header.begins_with_field


def test_white_space_before_the_colon_is_told() -> None:
    field = scan_header(b"From \t: a\r\n\r\n").fields[0]
    assert (field.name, field.space_before_colon) == ("from", True)


def test_a_line_that_is_no_field_does_not_hide_what_follows_it() -> None:
    header = scan_header(b"A: 1\r\nnonsense\r\nB: 2\r\n\r\nC: 3\r\n")
    assert [f.name for f in header.fields] == ["a", "b"]
    assert header.stray_lines == ((6, 16),)


def test_the_first_empty_line_ends_the_header() -> None:
    assert header_end(b"\r\nA: 1\r\n") == 0
    assert scan_header(b"\r\nA: 1\r\n").fields == ()
    assert header_end(b"A: 1\r\n") == -1
    assert scan_header(b"A: 1\r\n").count("a") == 1


def test_the_longest_line_is_found() -> None:
    assert scan_header(b"A: " + b"x" * 2000 + b"\r\nB: y\r\n\r\n").longest_line() == 2003
