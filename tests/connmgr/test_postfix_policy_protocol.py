"""Postfix policy delegation: the protocol."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.connmgr.model import Binding
from netmail_connmgr.protocol.postfix_policy import (
    MAX_REQUEST,
    PolicyReader,
    PolicyRequest,
    answer,
    is_action,
)

from tests.connmgr.policy_requests import ADDRESS, MAP, one, request


class TestReading:
    def test_a_request_of_postfix(self) -> None:
        assert one(request(sasl_username="carol")) == PolicyRequest(
            state="RCPT",
            client_address=ADDRESS,
            sender="alice@example.org",
            sasl_username="carol",
            instance="167.6b07039a.9e095.0",
        )

    @pytest.mark.parametrize(
        ("text", "octets"),
        [
            ("2001:db8::1", socket.inet_pton(socket.AF_INET6, "2001:db8::1")),
            ("::ffff:192.0.2.1", socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1")),
            ("unknown", b""),
            ("", b""),
            ("192.0.2.01", b""),
            ("3221225985", b""),
            ("0xc0000201", b""),
            ("192.0.2.1 ", b""),
            ("192.0.2.1\r", b""),
            ("[192.0.2.1]", b""),
            ("IPv6:2001:db8::1", b""),
            ("١٩٢.0.2.1", b""),
        ],
    )
    def test_addresses_are_addresses_or_nothing(self, text: str, octets: bytes) -> None:
        assert one(request(client_address=text)).client_address == octets

    @pytest.mark.parametrize(
        "octets",
        [
            b"\n",
            b"request\n\n",
            b"=smtpd_access_policy\n\n",
            b"request=junk\n\n",
            b"client_address=192.0.2.1\n\n",
            b"request=smtpd_access_policy\nsender=a\nsender=b\n\n",
            b"GET / HTTP/1.1\r\nHost: a=b\r\n\n\n",
            b"request=smtpd_access_policy\n" + b"".join(b"a%d=\n" % n for n in range(200)) + b"\n",
            b"request=smtpd_access_policy\na=" + b"x" * MAX_REQUEST + b"\n\n",
            b"a=" + b"x" * MAX_REQUEST,
        ],
    )
    def test_nothing_comes_out_behind_what_is_no_request(self, octets: bytes) -> None:
        reader = PolicyReader()
        assert len(reader.feed(request() + octets)) == 1
        assert reader.broken
        assert reader.feed(request()) == []
        assert len(reader) == 0

    @given(st.lists(st.sampled_from([request(), request(sender=""), b"x=\n\n", b"\n", b"a"])),
           st.lists(st.integers(1, 400)))  # fmt: skip
    def test_pieces_make_no_difference(self, parts: list[bytes], sizes: list[int]) -> None:
        octets = b"".join(parts)
        whole, piecewise = PolicyReader(), PolicyReader()
        expected = whole.feed(octets)
        found: list[PolicyRequest] = []
        at = 0
        for size in [*sizes, len(octets)]:
            found += piecewise.feed(octets[at : at + size])
            at += size
        assert (found, bool(piecewise.broken)) == (expected, bool(whole.broken))

    def test_text_that_is_no_utf8_is_nobodys(self) -> None:
        octets = request().replace(b"alice@", b"\xff\xfe@")
        assert MAP.sender(one(octets).sender, Binding.STRICT).key != "alice@example.org"

    def test_an_action_is_one_printable_line(self) -> None:
        assert answer("DUNNO") == b"action=DUNNO\n\n"
        assert is_action("REJECT 5.7.1 Log in first")
        for text in ("", " OK", "OK\n", "OK\naction=REJECT", "OK\r", "a\x00b", "x" * 5000):
            assert not is_action(text)
