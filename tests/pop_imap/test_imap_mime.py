"""What IMAP shows of a message's inside."""

import email
import email.policy
from email.message import EmailMessage
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_pop_imap.protocol.imap.commands import Fetch, Section
from netmail_pop_imap.protocol.imap.parser import parse_command
from netmail_pop_imap.protocol.mime import SectionReader, body_structure, envelope, parse_structure
from netmail_pop_imap.protocol.mime.address import NO_DOMAIN, parse_addresses
from netmail_pop_imap.protocol.mime.fields import header_end
from netmail_pop_imap.protocol.mime.structure import MAX_DEPTH, MAX_PARTS, Part

MESSAGE = b"""\
From: "Smith, A" <a@b.c>, x@y (Name)\r
To: Friends: u@v, <"q r"@s>;, lost\r
Subject: =?utf-8?q?x?=\r
 y\r
X-Long: one\r
\ttwo\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary="aa"\r
\r
preamble\r
--aa\r
\r
hello\r
--aab is no delimiter\r
--aa\r
Content-Type: message/rfc822\r
\r
Subject: inner\r
Content-Type: multipart/alternative; boundary=bb\r
\r
--bb\r
\r
plain\r
--bb\r
Content-Type: text/html\r
\r
<p>html\r
--bb--\r
--aa\r
Content-Type: image/png; name*0="a"; name*1=b\r
Content-Disposition: attachment; filename="x(y"\r
Content-Language: en, de\r
\r
xx\r
--aa--\r
epilogue\r
"""


def section(text: str) -> Section:
    command = parse_command(f"a FETCH 1 {text}".encode())
    assert isinstance(command, Fetch)
    return cast("Section", command.items[0])


def read(text: str, message: bytes = MESSAGE) -> bytes | None:
    return SectionReader(message).read(section(text))


def structure(message: bytes, *, extended: bool = True) -> str:
    return body_structure(message, parse_structure(message), extended=extended).decode("latin-1")


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("BODY[]", MESSAGE),
        ("BODY[1]", b"hello\r\n--aab is no delimiter"),
        ("BODY[1.MIME]", b"\r\n"),
        ("BODY[1.1]", None),
        ("BODY[1.HEADER]", None),
        ("BODY[2.HEADER]",
         b"Subject: inner\r\nContent-Type: multipart/alternative; boundary=bb\r\n\r\n"),
        ("BODY[2.HEADER.FIELDS (subject)]", b"Subject: inner\r\n\r\n"),
        ("BODY[2.MIME]", b"Content-Type: message/rfc822\r\n\r\n"),
        ("BODY[2.1]", b"plain"),
        ("BODY[2.2]", b"<p>html"),
        ("BODY[2.2.MIME]", b"Content-Type: text/html\r\n\r\n"),
        ("BODY[2.3]", None),
        ("BODY[3]", b"xx"),
        ("BODY[4]", None),
        ("BODY[TEXT]", MESSAGE[MESSAGE.index(b"preamble"):]),
        ("BODY[HEADER]", MESSAGE[: MESSAGE.index(b"preamble")]),
        ("BODY[HEADER.FIELDS (x-long)]", b"X-Long: one\r\n\ttwo\r\n\r\n"),
        ("BODY[HEADER.FIELDS (nothing)]", b"\r\n"),
        ("BODY[HEADER.FIELDS.NOT (from to subject content-type mime-version)]",
         b"X-Long: one\r\n\ttwo\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_section_is_cut_out_as_it_stands(name: str, octets: bytes | None) -> None:
    assert read(name) == octets


def test_the_one_part_of_a_plain_message_is_its_body() -> None:
    message = b"Subject: x\r\n\r\nbody\r\n"
    assert read("BODY[1]", message) == b"body\r\n"
    assert read("BODY[1.MIME]", message) == b"Subject: x\r\n\r\n"
    assert read("BODY[2]", message) is None


def test_envelope() -> None:
    everyone = b'("Smith, A" NIL "a" "b.c")("Name" NIL "x" "y")'
    assert envelope(MESSAGE) == (
        b'(NIL "=?utf-8?q?x?= y" (%b) (%b) (%b)'
        b' ((NIL NIL "Friends" NIL)(NIL NIL "u" "v")(NIL NIL "q r" "s")(NIL NIL NIL NIL)'
        b'(NIL NIL "lost" "MISSING_DOMAIN")) NIL NIL NIL NIL)'
    ) % (everyone, everyone, everyone)


def test_body_structure() -> None:
    assert structure(MESSAGE) == (
        '(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 28 1 NIL NIL NIL NIL)'
        '("message" "rfc822" NIL NIL NIL "7bit" 131'
        ' (NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL)'
        ' (("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0 NIL NIL NIL NIL)'
        '("text" "html" NIL NIL NIL "7bit" 7 0 NIL NIL NIL NIL)'
        ' "alternative" ("boundary" "bb") NIL NIL NIL) 10 NIL NIL NIL NIL)'
        '("image" "png" ("name*0" "a" "name*1" "b") NIL NIL "7bit" 2 NIL'
        ' ("attachment" ("filename" "x(y")) ("en" "de") NIL)'
        ' "mixed" ("boundary" "aa") NIL NIL NIL)'
    )


def test_body_has_no_extension_data() -> None:
    message = b"Content-Type: text/html; charset=utf-8\r\nContent-MD5: x\r\n\r\na\r\nb"
    assert structure(message, extended=False) == (
        '("text" "html" ("charset" "utf-8") NIL NIL "7bit" 4 1)'
    )


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"Content-Type: nonsense\r\n\r\nx",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
    ],
)
def test_what_cannot_be_understood_is_plain_text(message: bytes) -> None:
    assert structure(message).startswith('("text" "plain" ("charset" "us-ascii")')


def test_a_multipart_without_parts_has_an_empty_one() -> None:
    message = b"Content-Type: multipart/mixed; boundary=x\r\n\r\nnothing\r\n"
    assert structure(message, extended=False) == (
        '(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed")'
    )


def test_items_of_a_digest_are_messages() -> None:
    message = (
        b"Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\nSubject: s\r\n\r\nb\r\n--x--"
    )
    assert '"message" "rfc822" NIL NIL NIL "7bit"' in structure(message)
    assert read("BODY[1.HEADER]", message) == b"Subject: s\r\n\r\n"


def test_an_encoded_message_inside_is_not_looked_into_but_well_formed() -> None:
    message = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nabcd\r\n"
    shown = structure(message, extended=False)
    assert shown.endswith(
        '"base64" 6 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)'
        ' ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) 1)'
    )


def test_depth_and_number_of_parts_are_bounded() -> None:
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (i, i) for i in range(200)
    )
    assert structure(deep).count('"mixed"') <= MAX_DEPTH + 1
    wide = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n" + b"--x\r\n\r\na\r\n" * (
        MAX_PARTS * 2
    )
    assert len(parse_structure(wide).children) <= MAX_PARTS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a@b", [(None, b"a", b"b")]),
        (b"<a@b>", [(None, b"a", b"b")]),
        (b"A B <a@b>", [(b"A B", b"a", b"b")]),
        (b'"A \\"q\\" B" <a@b>', [(b'A "q" B', b"a", b"b")]),
        (b"a@b (c (d) e)", [(b"c (d) e", b"a", b"b")]),
        (b"<@r,@s:a@b>", [(None, b"a", b"b")]),
        (b"a.b. c@d", [(None, b"a.b. c", b"d")]),
        (b"a@[192.0.2.1]", [(None, b"a", b"[192.0.2.1]")]),
        (b"x@y <a@b>", [(b"x@y", b"a", b"b")]),
        (b"a", [(None, b"a", NO_DOMAIN)]),
        (b",, a@b ,", [(None, b"a", b"b")]),
        (b"", []),
        (b"g:;", [(None, b"g", None), (None, None, None)]),
        (b"\xff <a@b>", [(b"\xff", b"a", b"b")]),
    ],
)
def test_addresses(value: bytes, expected: list[tuple[bytes | None, ...]]) -> None:
    assert [(a.name, a.mailbox, a.host) for a in parse_addresses(value)] == expected


@given(st.text(st.sampled_from('ab@<>()",;:\\[] .\t\r\né'), max_size=30).map(str.encode))
def test_any_address_list_gives_addresses(value: bytes) -> None:
    parse_addresses(value)


LINES = st.sampled_from(
    [b"", b"a", b"--x", b"--x--", b"--y", b"--y--", b"--xy", b"-- x", b"Content-Type: text/html",
     b"Content-Type: multipart/mixed; boundary=x", b'Content-Type: multipart/digest; boundary="y"',
     b"Content-Type: message/rfc822", b"Content-Disposition: x; a=b", b"Subject: s", b" folded",
     b":", b"From: a@b, (", b"\xff\x00"]
)  # fmt: skip
MESSAGES = st.lists(
    st.tuples(LINES, st.sampled_from([b"\r\n", b"\n", b"\r", b""])), max_size=25
).map(lambda lines: b"".join(text + end for text, end in lines))


def parts(part: Part) -> list[Part]:
    inner = [part.message] if part.message else part.children
    return [part, *(deeper for child in inner for deeper in parts(child))]


def balanced(text: bytes) -> bool:
    """Parentheses match outside of strings, as a client's parser needs."""
    depth = position = 0
    while position < len(text):
        octet = text[position : position + 1]
        if octet == b'"':
            position += 1
            while text[position : position + 1] != b'"':
                position += 2 if text[position : position + 1] == b"\\" else 1
        elif octet == b"{":
            end = text.index(b"}", position)
            position = end + 2 + int(text[position + 1 : end])
        depth += (octet == b"(") - (octet == b")")
        position += 1
        if depth == 0 and position < len(text):
            return False
    return depth == 0


@given(MESSAGES)
def test_any_message_has_a_well_formed_structure(message: bytes) -> None:
    root = parse_structure(message)
    for extended in (False, True):
        assert balanced(body_structure(message, root, extended=extended))
    assert balanced(envelope(message[: header_end(message, 0, len(message))]))


@given(MESSAGES)
def test_parts_lie_inside_each_other_in_order(message: bytes) -> None:
    for part in parts(parse_structure(message)):
        assert part.start <= part.body <= part.end
        inner = [part.message] if part.message else part.children
        edges = [
            part.body,
            *(edge for child in inner for edge in (child.start, child.end)),
            part.end,
        ]
        assert edges == sorted(edges)


@given(MESSAGES)
def test_header_and_text_are_the_whole_message(message: bytes) -> None:
    reader = SectionReader(message)
    header, text = reader.read(section("BODY[HEADER]")), reader.read(section("BODY[TEXT]"))
    assert (header or b"") + (text or b"") == message


@given(MESSAGES, st.integers(1, 3), st.integers(1, 3))
def test_every_section_of_any_message_is_part_of_it_or_nothing(
    message: bytes, first: int, second: int
) -> None:
    reader = SectionReader(message)
    for name in (
        f"{first}",
        f"{first}.{second}",
        f"{first}.MIME",
        f"{first}.TEXT",
        f"{first}.HEADER",
    ):
        octets = reader.read(section(f"BODY[{name}]"))
        assert octets is None or octets in message


@st.composite
def trees(draw: st.DrawFn, depth: int = 0) -> EmailMessage:
    """Messages that Python's own generator writes."""
    kind = draw(st.sampled_from(["text", "text", "mixed", "message"] if depth < 3 else ["text"]))
    message = EmailMessage()
    if kind == "mixed":
        message["Content-Type"] = "multipart/mixed"
        for child in draw(st.lists(trees(depth + 1), min_size=1, max_size=3)):
            message.attach(child)
        return message
    if kind == "message":
        inner = draw(trees(depth + 1))
        inner["Subject"] = "inner"
        message["Content-Type"] = "message/rfc822"
        message.set_payload([inner])
        return message
    message.set_content(draw(st.text("ab \n-", max_size=20)))
    return message


@given(trees())
def test_the_tree_is_the_one_that_pythons_parser_finds(tree: EmailMessage) -> None:
    octets = tree.as_bytes(policy=email.policy.SMTP)
    ours = parse_structure(octets)
    theirs = email.message_from_bytes(octets, policy=email.policy.SMTP)
    assert [(p.type + b"/" + p.subtype).decode() for p in parts(ours)] == [
        part.get_content_type() for part in theirs.walk()
    ]
