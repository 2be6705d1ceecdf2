"""The rules about connections: which one decides, and what each says."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netmail_common.address_ranges import Ranges
from netmail_common.networks import AddressRules, NetworkMap, Standing
from netmail_connmgr.domain.connection_rules import (
    BlockZone,
    Findings,
    Reverse,
    ReverseName,
    ZoneAnswer,
    explain,
    judge,
    worth_looking_up,
    zones_for,
)
from netmail_connmgr.domain.connections import ConnectionVerdict, Service, Verdict
from netmail_connmgr.domain.lists import Listing

ANSWERS = Ranges([IPv4Network("127.0.0.0/24")])
BAD = BlockZone("bad.example", ANSWERS)
DIALUP = BlockZone("dialup.example", ANSWERS, denies=False, comment="{address} is a dial-up")
HIT = ZoneAnswer(BAD, ("127.0.0.2",))
DIALUP_HIT = ZoneAnswer(DIALUP, ("127.0.0.10",))
STRANGER = Findings(IPv4Address("192.0.2.1"), Standing.GRANTS)
NO_NAME = ReverseName(Reverse.MISSING)
GUESSER = ConnectionVerdict(
    Verdict.DENY_TEMPORARY, "Too many failed logins", deny_for=60, rule="guessing"
)


def test_who_nothing_is_known_about_may_connect() -> None:
    assert judge(STRANGER) == ConnectionVerdict()


def test_the_allowed_list_comes_before_everything() -> None:
    found = replace(
        STRANGER, listing=Listing.ALLOWED, zones=[HIT], reverse=NO_NAME, guessing=GUESSER
    )
    assert judge(found) == ConnectionVerdict(rule="list")


def test_a_blocked_client_is_told_its_address() -> None:
    verdict = judge(replace(STRANGER, listing=Listing.BLOCKED))
    assert verdict.verdict is Verdict.DENY_PERMANENT
    assert verdict.comment == "192.0.2.1 is not welcome here"
    assert verdict.rule == "list"


def test_a_listed_client_is_told_by_whom() -> None:
    verdict = judge(replace(STRANGER, zones=[ZoneAnswer(DIALUP), HIT]))
    assert verdict == ConnectionVerdict(
        Verdict.DENY_PERMANENT, "192.0.2.1 is listed by bad.example", rule="dnsbl"
    )


def test_a_zone_that_denies_counts_more_than_an_earlier_one_that_asks_for_authentication() -> None:
    assert judge(replace(STRANGER, zones=[DIALUP_HIT, HIT])).verdict is Verdict.DENY_PERMANENT


def test_a_zone_may_ask_for_authentication_instead() -> None:
    verdict = judge(replace(STRANGER, zones=[DIALUP_HIT, ZoneAnswer(BAD)]))
    assert verdict.verdict is Verdict.ALLOWED
    assert verdict.require_auth
    assert verdict.comment == "192.0.2.1 is a dial-up"


def test_a_client_that_a_login_vouches_for_is_none_of_the_lists_business() -> None:
    assert judge(replace(STRANGER, known=True, zones=[HIT], reverse=NO_NAME)) == ConnectionVerdict()


def test_a_listed_client_that_may_be_known_is_asked_to_come_again() -> None:
    assert judge(replace(STRANGER, known=None, zones=[HIT])).verdict is Verdict.DENY_TEMPORARY


@pytest.mark.parametrize(
    ("result", "required"),
    [
        (Reverse.CONFIRMED, False),
        (Reverse.UNKNOWN, False),
        (Reverse.UNCONFIRMED, True),
        (Reverse.MISSING, True),
    ],
)
def test_only_what_dns_surely_denies_requires_authentication(
    result: Reverse, required: bool
) -> None:
    verdict = judge(replace(STRANGER, reverse=ReverseName(result, "host.example")))
    assert verdict.verdict is Verdict.ALLOWED
    assert verdict.require_auth is required
    assert verdict.rule == ("reverse_dns" if required else "")


def test_a_guesser_is_denied_although_dns_says_nothing_against_him() -> None:
    assert judge(replace(STRANGER, guessing=GUESSER)) == GUESSER


def test_a_slowed_client_without_a_reverse_name_is_slowed_and_must_authenticate() -> None:
    slow = ConnectionVerdict(delay=2.0, rule="guessing")
    verdict = judge(replace(STRANGER, reverse=NO_NAME, guessing=slow))
    assert verdict.require_auth
    assert verdict.delay == 2.0
    assert verdict.rule == "guessing"


def test_zones_are_asked_for_their_services_only() -> None:
    everywhere = replace(DIALUP, services=frozenset(Service))
    assert zones_for(Service.SMTP, [BAD, everywhere]) == [BAD, everywhere]
    assert zones_for(Service.UNKNOWN, [BAD]) == [BAD]
    assert zones_for(Service.IMAP, [BAD, everywhere]) == [everywhere]


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("10.1.2.3", False),
        ("172.31.255.255", False),
        ("172.32.0.0", True),
        ("192.168.0.1", False),
        ("fd00::1", False),
        ("fe00::1", True),
        ("127.0.0.1", False),
        ("100.64.0.1", False),
        ("169.254.0.1", False),
        ("fe80::1", False),
        ("2001::1", False),
    ],
)
def test_dns_is_asked_about_clients_on_the_internet_only(text: str, worth: bool) -> None:
    address = ip_address(text)
    standing = NetworkMap(AddressRules()).locate(address).standing
    assert worth_looking_up(address, standing) is worth


def test_each_rule_says_its_word_in_its_order() -> None:
    found = replace(
        STRANGER,
        known=True,
        zones=[HIT, DIALUP_HIT, ZoneAnswer(replace(BAD, name="slow.example"), unknown=True)],
        reverse=ReverseName(Reverse.UNCONFIRMED, "host.example"),
        guessing=GUESSER,
    )
    assert explain(found) == [
        "lists: in no list",
        "dnsbl bad.example: listed (127.0.0.2): may not connect",
        "dnsbl dialup.example: listed (127.0.0.10): must authenticate",
        "dnsbl slow.example: no answer in time",
        "reverse DNS: host.example does not resolve back",
        "failed logins: denied for now, for 60 s about",
        "a live login vouches for the network: DNS does not count",
    ]


def test_rules_that_were_not_asked_say_so() -> None:
    assert explain(STRANGER) == [
        "lists: in no list",
        "dnsbl: not asked",
        "reverse DNS: not asked",
        "failed logins: not counted",
    ]


findings = st.builds(
    Findings,
    st.just(IPv4Address("192.0.2.1")),
    st.sampled_from(Standing),
    st.sampled_from(Listing),
    known=st.sampled_from([True, False, None]),
    zones=st.none()
    | st.lists(
        st.builds(
            ZoneAnswer,
            st.sampled_from([BAD, DIALUP]),
            st.sampled_from([(), ("127.0.0.2",)]),
        ),
        max_size=3,
    ),
    reverse=st.none() | st.builds(ReverseName, st.sampled_from(Reverse)),
    guessing=st.none() | st.sampled_from([ConnectionVerdict(), GUESSER]),
)


@given(findings)
def test_whatever_is_not_known_speaks_for_the_client(found: Findings) -> None:
    """Taking away what DNS said never makes a verdict worse."""
    order = [Verdict.ALLOWED, Verdict.DENY_TEMPORARY, Verdict.DENY_PERMANENT]
    verdict, silent = judge(found), judge(replace(found, zones=None, reverse=None))
    assert order.index(silent.verdict) <= order.index(verdict.verdict)
    assert not silent.require_auth
    assert not (verdict.verdict is not Verdict.ALLOWED and not verdict.rule)


@given(findings)
def test_comments_are_one_line_of_printable_ascii(found: Findings) -> None:
    comment = judge(found).comment
    assert comment.isascii()
    assert comment.isprintable()
