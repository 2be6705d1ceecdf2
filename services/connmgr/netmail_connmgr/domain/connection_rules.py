"""The rules about connections, in their order: lists, DNSBL, reverse DNS, failed logins.

What the rules have to know is found out elsewhere; here it is judged, and put into words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network

from netmail_common.address_ranges import Ranges
from netmail_common.networks import Address, Standing

from netmail_connmgr.domain.connections import ConnectionVerdict, Service, Verdict
from netmail_connmgr.domain.lists import Listing

__all__ = [
    "MAIL_SERVICES",
    "BlockZone",
    "Findings",
    "Reverse",
    "ReverseName",
    "ZoneAnswer",
    "explain",
    "judge",
    "worth_looking_up",
    "zones_for",
]

_RULE_LIST, _RULE_DNSBL, _RULE_REVERSE = "list", "dnsbl", "reverse_dns"
_ON_THE_INTERNET = frozenset({Standing.GRANTS, Standing.LISTED, Standing.BLOCKED})
_PRIVATE_V4 = Ranges([IPv4Network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")])
MAIL_SERVICES = frozenset({Service.SMTP, Service.UNKNOWN})
"""Who comes without a service comes to a mail server."""
_NO_OBJECTION = ConnectionVerdict()


@dataclass(frozen=True, slots=True)
class BlockZone:
    """One DNS list (RFC 5782).

    Attributes:
        name: of the zone, A-labels.
        answers: IPv4 addresses that count as listed.
        services: whose clients are looked up.
        denies: a listed client may not connect. False: it must authenticate.
        comment: for the client; {address} stands for its address. Empty: names the zone.
    """

    name: str
    answers: Ranges
    services: frozenset[Service] = MAIL_SERVICES
    denies: bool = True
    comment: str = ""

    def comment_for(self, address: Address) -> str:
        """What a listed client is told."""
        text = self.comment or "{address} is listed by " + self.name
        return text.replace("{address}", str(address))


@dataclass(frozen=True, slots=True)
class ZoneAnswer:
    """What one zone said: its answers that count (text), or that it said nothing in time."""

    zone: BlockZone
    listed: tuple[str, ...] = ()
    unknown: bool = False


class Reverse(Enum):
    """What became of the reverse lookup."""

    CONFIRMED = "resolves back"
    UNCONFIRMED = "does not resolve back"
    MISSING = "there is none"
    UNKNOWN = "DNS gave no answer in time"


@dataclass(frozen=True, slots=True)
class ReverseName:
    """A reverse lookup and the name that it was about, if there was one."""

    result: Reverse
    name: str = ""

    @property
    def fails(self) -> bool:
        """Whether it is known that no reverse name resolves back."""
        return self.result in {Reverse.UNCONFIRMED, Reverse.MISSING}


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a client.

    Attributes:
        address: the client's own (domain/lists.client_address).
        standing: of its network.
        known: a live login vouches for its network; None: nobody could say.
        zones: in the order of the configuration; None: none was asked.
        reverse: None: nobody asked.
        guessing: what the failed logins say; None: nobody counts them.
    """

    address: Address
    standing: Standing
    listing: Listing = Listing.NONE
    known: bool | None = False
    zones: Sequence[ZoneAnswer] | None = None
    reverse: ReverseName | None = None
    guessing: ConnectionVerdict | None = None


def worth_looking_up(address: Address, standing: Standing) -> bool:
    """Whether DNS can know anything about a client: it must be on the Internet."""
    if standing not in _ON_THE_INTERNET:
        return False
    number = int(address)
    if address.version == 4:
        return not _PRIVATE_V4.touch(number, number)
    return number >> 121 != 0xFC >> 1


def zones_for(service: Service, zones: Sequence[BlockZone]) -> list[BlockZone]:
    """The zones that clients of a service are looked up in."""
    return [zone for zone in zones if service in zone.services]


def judge(found: Findings) -> ConnectionVerdict:
    """Judges by the first rule that denies; whatever is not known speaks for the client.

    A client that a login vouches for is none of DNS's business.
    """
    if found.listing is Listing.ALLOWED:
        return ConnectionVerdict(rule=_RULE_LIST)
    if found.listing is Listing.BLOCKED:
        comment = f"{found.address} is not welcome here"
        return ConnectionVerdict(Verdict.DENY_PERMANENT, comment, rule=_RULE_LIST)
    by_dns = _NO_OBJECTION if found.known else _by_dns(found)
    if by_dns.verdict is not Verdict.ALLOWED or found.guessing is None:
        return by_dns
    return _both(by_dns, found.guessing)


def _by_dns(found: Findings) -> ConnectionVerdict:
    hits = [answer.zone for answer in found.zones or () if answer.listed]
    for zone in hits:
        if zone.denies:
            comment = zone.comment_for(found.address)
            # It may be one of our users: who cannot tell says "not now".
            verdict = Verdict.DENY_PERMANENT if found.known is False else Verdict.DENY_TEMPORARY
            return ConnectionVerdict(verdict, comment, rule=_RULE_DNSBL)
    if hits:
        comment = hits[0].comment_for(found.address)
        return ConnectionVerdict(comment=comment, require_auth=True, rule=_RULE_DNSBL)
    if found.reverse is not None and found.reverse.fails:
        comment = f"{found.address} has no reverse name that resolves back"
        return ConnectionVerdict(comment=comment, require_auth=True, rule=_RULE_REVERSE)
    return _NO_OBJECTION


def _both(dns: ConnectionVerdict, guessing: ConnectionVerdict) -> ConnectionVerdict:
    """Two verdicts that both have something to say; the second may deny."""
    return ConnectionVerdict(
        verdict=guessing.verdict,
        comment=guessing.comment or dns.comment,
        require_auth=dns.require_auth or guessing.require_auth,
        delay=guessing.delay,
        deny_for=guessing.deny_for,
        rule=guessing.rule or dns.rule,
    )


def explain(found: Findings) -> list[str]:
    """Each rule in its order, and what it said."""
    return list(_lines(found))


def _lines(found: Findings) -> Iterator[str]:
    yield f"lists: {found.listing.value}"
    yield from _dnsbl_lines(found)
    if found.reverse is None:
        yield "reverse DNS: not asked"
    else:
        about = f"{found.reverse.name} " if found.reverse.name else ""
        yield f"reverse DNS: {about}{found.reverse.result.value}"
    yield from _guessing_lines(found.guessing)
    if found.known:
        yield "a live login vouches for the network: DNS does not count"
    elif found.known is None:
        yield "whether a live login vouches for the network could not be found out"


def _dnsbl_lines(found: Findings) -> Iterator[str]:
    if found.zones is None:
        yield "dnsbl: not asked"
        return
    for answer in found.zones:
        if answer.unknown:
            said = "no answer in time"
        elif answer.listed:
            action = "may not connect" if answer.zone.denies else "must authenticate"
            said = f"listed ({', '.join(answer.listed)}): {action}"
        else:
            said = "not listed"
        yield f"dnsbl {answer.zone.name}: {said}"


def _guessing_lines(verdict: ConnectionVerdict | None) -> Iterator[str]:
    if verdict is None:
        yield "failed logins: not counted"
    elif verdict.verdict is not Verdict.ALLOWED:
        yield f"failed logins: {verdict.verdict.value}, for {verdict.deny_for:.0f} s about"
    elif verdict.delay:
        yield f"failed logins: answers wait {verdict.delay:.1f} s"
    else:
        yield "failed logins: nothing against it"
