"""Commands from octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_pop_imap.protocol.errors import ReplyError
from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap import search_keys as k
from netmail_pop_imap.protocol.imap.errors import BadCommand, Refused
from netmail_pop_imap.protocol.imap.parser import VERBS, parse_append, parse_command, tag_of
from netmail_pop_imap.protocol.imap.sequence import STAR, SequenceSet


def sequence(*ranges: tuple[int, int]) -> SequenceSet:
    return SequenceSet(ranges)


@pytest.mark.parametrize(
    ("octets", "command"),
    [
        (b"a NOOP", c.Command("a", "NOOP")),
        (b"a noop", c.Command("a", "NOOP")),
        (b"a LOGIN alice secret", c.Login("a", "LOGIN", b"alice", b"secret")),
        (b'a LOGIN "al\\"ice" {3}\r\na b', c.Login("a", "LOGIN", b'al"ice', b"a b")),
        (b"a LOGIN a]b c", c.Login("a", "LOGIN", b"a]b", b"c")),
        (b"a AUTHENTICATE plain", c.Authenticate("a", "AUTHENTICATE", "PLAIN", None)),
        (b"a AUTHENTICATE PLAIN =", c.Authenticate("a", "AUTHENTICATE", "PLAIN", b"=")),
        (b"a SELECT inbox", c.Select("a", "SELECT", "INBOX", condstore=False)),
        (b"a EXAMINE InBox/x", c.Select("a", "EXAMINE", "INBOX/x", condstore=False)),
        (b"a SELECT x (CONDSTORE)", c.Select("a", "SELECT", "x", condstore=True)),
        (b'a CREATE "&ZeVnLIqe-"', c.Create("a", "CREATE", "日本語", "")),
        (b"a CREATE x (USE (\\sent))", c.Create("a", "CREATE", "x", "Sent")),
        (b"a RENAME a b", c.Rename("a", "RENAME", "a", "b")),
        (b"a STATUS x (MESSAGES size)", c.Status("a", "STATUS", "x", ("MESSAGES", "SIZE"))),
        (b"a ENABLE condstore x", c.Enable("a", "ENABLE", ("CONDSTORE", "X"))),
        (b"a ID NIL", c.Identify("a", "ID", {})),
        (b'a ID ("Name" "mutt" "os" NIL)', c.Identify("a", "ID", {"name": "mutt"})),
        (b"a UID EXPUNGE 1:3", c.Expunge("a", "UID EXPUNGE", sequence((1, 3)))),
        (b"a COPY 1,2 x", c.Copy("a", "COPY", sequence((1, 1), (2, 2)), "x", uid=False)),
        (b"a UID MOVE * x",
         c.Copy("a", "UID MOVE", sequence((STAR, STAR)), "x", uid=True, move=True)),
        (
            b"a STORE 9:7 (UNCHANGEDSINCE 12) -FLAGS.SILENT (\\SEEN $x)",
            c.Store("a", "STORE", sequence((7, 9)), c.StoreMode.REMOVE, ("\\Seen", "$x"),
                    silent=True, uid=False, unchanged_since=12),
        ),
        (
            b"a UID STORE 1:* FLAGS \\Deleted \\Draft",
            c.Store("a", "UID STORE", sequence((1, STAR)), c.StoreMode.REPLACE,
                    ("\\Deleted", "\\Draft"), silent=False, uid=True),
        ),
        (
            b"a STORE 1 FLAGS ()",
            c.Store("a", "STORE", sequence((1, 1)), c.StoreMode.REPLACE, (),
                    silent=False, uid=False),
        ),
    ],
)  # fmt: skip
def test_a_command_is_understood(octets: bytes, command: c.Command) -> None:
    assert parse_command(octets) == command


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"a",
        b"a ",
        b" NOOP",
        b"a  NOOP",
        b"a NOOP x",
        b"a FROBNICATE",
        b"+ NOOP",
        b"a LOGIN alice",
        b"a LOGIN alice \xff",
        b'a LOGIN "alice secret',
        b'a LOGIN "a\\b" c',
        b"a LOGIN {5}\r\nab c",
        b"a SELECT",
        b"a SELECT &",
        b"a SELECT &!!!-",
        b"a SELECT &AGE-",  # plain ASCII may not be shifted
        b"a SELECT x (QRESYNC)",
        b"a CREATE x (USE ())",
        b"a STATUS x ()",
        b"a STATUS x (FOO)",
        b"a FETCH 0 FLAGS",
        b"a FETCH 1:2:3 FLAGS",
        b"a FETCH 1, FLAGS",
        b"a FETCH 4294967296 FLAGS",
        b"a FETCH 1 ()",
        b"a FETCH 1 FOO",
        b"a FETCH 1 BODY[",
        b"a FETCH 1 BODY[MIME]",
        b"a FETCH 1 BODY[1.0]",
        b"a FETCH 1 BODY[]<0.0>",
        b"a FETCH 1 BODY[HEADER.FIELDS ()]",
        b"a FETCH 1 (FLAGS",
        b"a FETCH 1 FLAGS (CHANGEDSINCE)",
        b"a STORE 1 FLAGS",
        b"a STORE 1 FLAGS (\\Recent)",
        b"a STORE 1 FLAGS (\\Nonsense)",
        b"a SEARCH",
        b"a SEARCH FOO",
        b"a SEARCH NOT",
        b"a SEARCH OR SEEN",
        b"a SEARCH ()",
        b"a SEARCH BEFORE 31-Feb-2020",
        b"a SEARCH LARGER x",
        b"a SEARCH RETURN (FOO) ALL",
        b"a SEARCH " + b"(" * 500 + b"ALL" + b")" * 500,
        b"a SEARCH " + b"NOT " * 500 + b"ALL",
        b"a LIST",
        b'a LIST ""',
        b'a LIST (RECURSIVEMATCH) "" *',
        b'a LIST (FOO) "" *',
        b'a LIST "" * RETURN (FOO)',
        b"a APPEND x (\\Seen)",
        b"a UID NOOP",
        b"a ENABLE",
        b'a ID ("name")',
    ],
)
def test_what_is_no_command_is_bad(octets: bytes) -> None:
    with pytest.raises(BadCommand):
        parse_command(octets)


def test_an_unknown_charset_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(Refused) as caught:
        parse_command(b"a SEARCH CHARSET KLINGON ALL")
    assert caught.value.imap_code == b"BADCHARSET (US-ASCII UTF-8)"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("BODY", (c.Metadata.BODY,)),
        ("FAST", (c.Metadata.FLAGS, c.Metadata.INTERNALDATE, c.Metadata.SIZE)),
        ("BODY[]", (c.Section(b"BODY[]"),)),
        ("BODY.PEEK[]<5.10>", (c.Section(b"BODY[]<5>", partial=(5, 10), seen=False),)),
        ("BODY[1.2.MIME]", (c.Section(b"BODY[1.2.MIME]", (1, 2), c.SectionText.MIME),)),
        ("BODY[text]", (c.Section(b"BODY[TEXT]", text=c.SectionText.TEXT),)),
        (
            "BODY.PEEK[HEADER.FIELDS (from X-Y)]",
            (
                c.Section(
                    b"BODY[HEADER.FIELDS (from X-Y)]",
                    text=c.SectionText.HEADER_FIELDS,
                    fields=frozenset({b"FROM", b"X-Y"}),
                    seen=False,
                ),
            ),
        ),
        ("RFC822.HEADER", (c.Section(b"RFC822.HEADER", text=c.SectionText.HEADER, seen=False),)),
        ("(UID FLAGS UID)", (c.Metadata.UID, c.Metadata.FLAGS)),
    ],
)
def test_fetch_items(item: str, expected: tuple[object, ...]) -> None:
    command = parse_command(f"a FETCH 1 {item}".encode())
    assert isinstance(command, c.Fetch)
    assert command.items == expected


def test_uid_fetch_gives_uids_and_changedsince_modseqs_without_being_asked() -> None:
    command = parse_command(b"a UID FETCH 1 FLAGS (CHANGEDSINCE 9)")
    assert isinstance(command, c.Fetch)
    assert command.items == (c.Metadata.UID, c.Metadata.FLAGS, c.Metadata.MODSEQ)
    assert command.changed_since == 9


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("ALL", k.AllOf(())),
        ("UNSEEN", k.Not(k.HasFlag("\\Seen"))),
        ("NEW", k.AllOf((k.IsRecent(), k.Not(k.HasFlag("\\Seen"))))),
        ("KEYWORD $x", k.HasFlag("$x")),
        ("1:3", k.InSet(sequence((1, 3)), uid=False)),
        ("UID 5", k.InSet(sequence((5, 5)), uid=True)),
        ('FROM "a b"', k.InHeader("From", "a b")),
        ("HEADER X-Y {1}\r\nz", k.InHeader("X-Y", "z")),
        ("SENTSINCE 1-Jan-1970", k.DateIs(k.DateKind.SENT, k.Relation.SINCE, 0)),
        ("SAVEDBEFORE 2-Jan-1970", k.DateIs(k.DateKind.SAVED, k.Relation.BEFORE, 1)),
        ("OR SEEN NOT (DELETED LARGER 5)",
         k.AnyOf(k.HasFlag("\\Seen"),
                 k.Not(k.AllOf((k.HasFlag("\\Deleted"), k.SizeIs(larger=True, octets=5)))))),
        ("MODSEQ 7", k.ModSeqAtLeast(7)),
        ('MODSEQ "/flags/\\\\Seen" all 7', k.ModSeqAtLeast(7)),
        ("CHARSET UTF-8 BODY {2}\r\n\xe9", k.InBody("é")),
        ("CHARSET iso-8859-1 BODY {2}\r\n\xe9", k.InBody("Ã©")),
    ],
)  # fmt: skip
def test_search_keys(keys: str, expected: k.SearchKey) -> None:
    command = parse_command(b"a SEARCH " + keys.encode("utf-8"))
    assert isinstance(command, c.Search)
    assert command.key == expected


def test_empty_return_options_mean_all() -> None:
    command = parse_command(b"a UID SEARCH RETURN () SEEN")
    assert isinstance(command, c.Search)
    assert command.results == frozenset({"ALL"})


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (b"a APPEND x ", c.Append("a", "APPEND", "x", (), None)),
        (b"a append inbox (\\seen $x) ", c.Append("a", "APPEND", "INBOX", ("\\Seen", "$x"), None)),
        (
            b'a APPEND {1}\r\nx () " 1-Jan-1970 01:00:00 +0100" ',
            c.Append("a", "APPEND", "x", (), 0),
        ),
        (b"a APPEND ", None),
        (b"a LOGIN ", None),
    ],
)
def test_append_is_known_by_what_comes_before_its_message(
    prefix: bytes, expected: c.Append | None
) -> None:
    assert parse_append(prefix) == expected


@pytest.mark.parametrize(
    "prefix", [b"a APPEND x y ", b"a APPEND x (\\Recent) ", b'a APPEND x "1" ']
)
def test_append_with_other_things_before_its_message_is_bad(prefix: bytes) -> None:
    with pytest.raises(BadCommand):
        parse_append(prefix)


def test_a_reply_without_a_readable_tag_is_untagged() -> None:
    assert tag_of(b"a1 X") == "a1"
    assert tag_of(b"+x") == "*"
    assert tag_of(b"a{ X") == "*"
    assert tag_of(b"") == "*"


WORDS = st.sampled_from(
    [
        *(verb.encode() for verb in sorted(VERBS)),
        *b'a|1:*|(|)|"x"|"|{1}\r\nx|FLAGS|BODY[|]|HEADER.FIELDS|<0.1>|\\Seen|RETURN|NOT|OR|ALL|'
        b"FROM|(FLAGS)|&-|*|%|1-Jan-2020|CHARSET|UTF-8|\xff|BODY[1.MIME]".split(b"|"),
    ]
)


def refusal(octets: bytes) -> str:
    """What the client is told; empty: it is a command."""
    try:
        parse_command(octets)
        parse_append(octets)
    except ReplyError as error:
        return error.text
    return ""


@given(st.lists(WORDS, max_size=9).map(b" ".join))
def test_words_in_any_order_parse_or_are_refused_with_a_reply(octets: bytes) -> None:
    for data in (octets, b"a " + octets):
        assert refusal(data).isascii()


@given(st.binary(max_size=200))
def test_any_octets_parse_or_are_refused_with_a_reply(octets: bytes) -> None:
    assert refusal(b"a " + octets).isprintable()
