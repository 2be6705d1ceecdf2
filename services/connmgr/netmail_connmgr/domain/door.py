"""The table's door: what comes in by any front end is checked here and nowhere else."""

import contextlib
import functools
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from netmail_common.connmgr.model import ANONYMOUS, LoginProtocol, Profile, Registration, UserKey
from netmail_common.mail_address import AddressError, MailAddress, parse_domain
from netmail_common.networks import NetworkMap

__all__ = ["Candidate", "NotAdmitted", "admit", "check_user"]

MAX_NAME_OCTETS = 255
MAX_ADDRESS_OCTETS = 8192
"""Octets of a user's addresses that a login keeps; whose the others are, the directory says."""
MAX_DOMAINS = 10_000
MAX_AGE = 1e9
"""Seconds; an older login counts as this old."""
_KNOWN = 4096
"""Users whose login was checked lately, with what they said then."""
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


class NotAdmitted(ValueError):
    """What came in is not valid; the text says which part, without repeating it."""


class Candidate(NamedTuple):
    """A login as a front end heard of it, unchecked; the fields are those of Registration."""

    user: UserKey
    client_address: bytes
    protocol: LoginProtocol
    addresses: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    messaging_server: str = ""
    agent: str = ""
    session_id: str = ""
    age: float = 0.0
    credential_epoch: int | None = None
    renewal: bool = False


def admit(candidate: Candidate, networks: NetworkMap) -> Registration:
    """Checks a login and finds its place.

    Addresses and domains that are none are left out: they vouch for nothing.

    Raises: NotAdmitted.
    """
    user, address, protocol, addresses, domains, server, agent, session, age, epoch, renewal = (
        candidate
    )
    profile = _profile(user, addresses, domains)
    if protocol is not LoginProtocol.LEGACY_UDP and user == ANONYMOUS:
        raise NotAdmitted("no user name")
    _check_origin(server, agent)
    _check_text("session id", session)
    if not age >= 0:
        raise NotAdmitted("negative age")
    try:
        place = networks.locate(address).place
    except ValueError:
        raise NotAdmitted("client address") from None
    age = min(age, MAX_AGE)
    return Registration(
        profile, place, address, protocol, server, agent, session, age, epoch, renewal
    )


def check_user(user: UserKey) -> None:
    """Raises: NotAdmitted, for a name or context that may not stand in a header or a log."""
    if user.context and not user.name:
        raise NotAdmitted("a context without a user name")
    _check_text("user name", user.name)
    _check_text("context", user.context)


def _check_text(what: str, text: str) -> None:
    if text.isascii() and text.isprintable() and len(text) <= MAX_NAME_OCTETS:
        return
    if len(text.encode("utf-8", "replace")) > MAX_NAME_OCTETS:
        raise NotAdmitted(f"{what} longer than {MAX_NAME_OCTETS} octets")
    for character in text:
        if unicodedata.category(character) in _REFUSED_CATEGORIES:
            raise NotAdmitted(f"{what} with a control character")


@functools.lru_cache(maxsize=256)
def _check_origin(messaging_server: str, agent: str) -> None:
    """Checks what many logins have in common."""
    _check_text("messaging server", messaging_server)
    _check_text("agent", agent)


@functools.lru_cache(maxsize=_KNOWN)
def _profile(user: UserKey, addresses: tuple[str, ...], domains: tuple[str, ...]) -> Profile:
    check_user(user)
    if len(domains) > MAX_DOMAINS:
        raise NotAdmitted("too many domains")
    if user == ANONYMOUS:
        return Profile(ANONYMOUS)
    spellings = [(address.wire, address.key()) for address in _addresses(addresses)]
    return Profile(
        user=user,
        addresses=tuple([wire for wire, _ in spellings]),
        # Most are spelled like their key, and need no second copy of it.
        address_keys=tuple([wire if key == wire else key for wire, key in spellings]),
        domains=_domain_set(domains),
    )


def _addresses(texts: Iterable[str]) -> Iterable[MailAddress]:
    room = MAX_ADDRESS_OCTETS
    for text in texts:
        try:
            address = MailAddress.from_wire(text)
        except AddressError:
            continue
        room -= len(address.wire.encode())
        if room < 0:
            return
        yield address


@functools.lru_cache(maxsize=256)
def _domain_set(texts: tuple[str, ...]) -> frozenset[str]:
    """The domains of a Messaging Server: one set for all of its users."""
    domains = set()
    for text in texts:
        with contextlib.suppress(AddressError):
            domains.add(parse_domain(text))
    return frozenset(domains)
