"""DATA and BDAT: where content ends, whatever pieces it comes in."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_smtp.protocol.data import ChunkReader, ContentCheck, DotReader, SizeState
from netmail_smtp.protocol.reply import MessageRefused

NASTY = st.text(alphabet="\r\n.a", max_size=60).map(str.encode)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def read(pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """Content and what follows its end, None if it did not end."""
    reader, content, rest = DotReader(), b"", None
    for piece in pieces:
        if rest is None:
            more, rest = reader.feed(piece)
            content += more
        else:
            rest += piece
    return content, rest


def stuff(content: bytes) -> bytes:
    """As RFC 5321 4.5.2 asks of the client; the content ends in CRLF or is empty."""
    lines = content.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


@given(NASTY, st.lists(st.integers(0, 1000), max_size=8))
def test_what_a_client_stuffs_comes_out_whole_in_any_pieces(body: bytes, places: list[int]) -> None:
    content = body + b"\r\n" if body else b""
    wire = stuff(content) + b".\r\nNOOP\r\n"
    assert read(cut(wire, places)) == (content, b"NOOP\r\n")


@given(NASTY, st.lists(st.integers(0, 1000), max_size=8))
def test_pieces_make_no_difference(wire: bytes, places: list[int]) -> None:
    assert read(cut(wire, places)) == read([wire])


@given(NASTY)
def test_only_crlf_dot_crlf_ends_the_data(wire: bytes) -> None:
    _, rest = read([wire])
    end = (b"\r\n" + wire).find(b"\r\n.\r\n")
    assert (rest is None) == (end < 0)
    if rest is not None:
        assert rest == (b"\r\n" + wire)[end + 5 :]


@pytest.mark.parametrize(
    "ending",
    [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n\n.\r\n",
     b"\r\n.\r\r\n",
     b"\r\n.\0\r\n", b"\r\n. \r\n", b"\r\n\x85.\r\n", b"\r\r\n.\r\r\n", b"\r\n\0.\r\n"],
)  # fmt: skip
def test_an_end_that_others_might_take_for_one_does_not_end_the_data(ending: bytes) -> None:
    content, rest = read([b"From: a@b\r\n\r\nx", ending, b"MAIL FROM:<evil@x>\r\n.\r\n"])
    assert rest == b""
    assert b"MAIL FROM:<evil@x>" in content


def test_empty_data_is_an_empty_message() -> None:
    assert read([b".\r\n"]) == (b"", b"")


def test_one_dot_is_removed_and_no_more() -> None:
    assert read([b"..\r\n...x\r\n.y\r\n.\r\n"])[0] == b".\r\n..x\r\ny\r\n"


def check(pieces: list[bytes], limit: int = 0) -> str:
    watch = ContentCheck(limit)
    for piece in pieces:
        watch.feed(piece)
    try:
        watch.finish()
    except MessageRefused as error:
        return error.reply.enhanced
    return "ok"


@given(NASTY, st.lists(st.integers(0, 1000), max_size=8))
def test_a_bare_cr_or_lf_is_found_in_any_pieces(content: bytes, places: list[int]) -> None:
    bare = b"\r" in content.replace(b"\r\n", b"") or b"\n" in content.replace(b"\r\n", b"")
    assert check(cut(content, places)) == ("5.6.11" if bare else "ok")


@given(st.integers(1, 50), st.lists(st.integers(0, 20), max_size=10))
def test_the_size_is_counted_over_all_pieces(limit: int, sizes: list[int]) -> None:
    watch = ContentCheck(limit)
    states = [watch.feed(b"x" * size) for size in sizes]
    total = sum(sizes)
    if states:
        expected = SizeState.FITS
        if total > limit:
            expected = SizeState.OVER if total < 2 * limit else SizeState.FAR_OVER
        assert states[-1] is expected
    assert check([b"x" * size for size in sizes], limit) == ("5.3.4" if total > limit else "ok")


def test_a_chunk_gives_back_no_more_than_its_size() -> None:
    chunk = ChunkReader(4)
    assert chunk.feed(b"ab") == b"ab"
    assert chunk.remaining == 2
    with pytest.raises(ValueError, match="more octets"):
        chunk.feed(b"abc")
