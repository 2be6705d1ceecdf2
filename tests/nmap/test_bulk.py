"""Many headers in one piece: what is found in them is what is found in each alone."""

import json
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from netmail_nmap.adapters.sql._bulk import Bulk

# Few different octets, so that words are there, cut at borders and overlap.
HEADERS = st.lists(st.text("=?ab \n", max_size=40).map(str.encode), max_size=8)
WORDS = st.sampled_from(
    [b"=?", b"??", b"ab", b"a", b"abb", re.compile(rb"a\s+b")],
)


def bulk(headers: list[bytes]) -> Bulk:
    ids = [3 * number for number in range(len(headers))]
    return Bulk(json.dumps(ids), json.dumps(list(map(len, headers))), b"".join(headers))


@settings(deadline=None)
@given(HEADERS, st.lists(WORDS, min_size=1, max_size=3))
@example([b"?" * 100 + b"=?"], [b"=?"])
@example([b"", b"=", b"?", b""], [b"=?"])
def test_no_header_with_a_word_is_missed(
    headers: list[bytes], words: list[bytes | re.Pattern[bytes]]
) -> None:
    found = bulk(headers).find(words)
    here = {index for index, header in enumerate(headers) if _has_one(header, words)}
    assert here <= found
    if not _has_one(b"".join(headers), words):
        assert found == set()


def _has_one(octets: bytes, words: list[bytes | re.Pattern[bytes]]) -> bool:
    return any(w.search(octets) if isinstance(w, re.Pattern) else w in octets for w in words)


@given(HEADERS)
def test_each_has_its_octets(headers: list[bytes]) -> None:
    together = bulk(headers)
    assert len(together) == len(headers)
    assert [together.octets(index) for index in range(len(headers))] == headers
    assert list(together) == [(3 * number, header) for number, header in enumerate(headers)]
