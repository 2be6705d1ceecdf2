"""The table's door: what comes in by any front end is checked here and nowhere else."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from netmail_common.connmgr.model import ANONYMOUS, LoginProtocol, Profile, Registration, UserKey
from netmail_common.mail_address import AddressError, MailAddress, parse_domain
from netmail_common.networks import NetworkMap

__all__ = ["Candidate", "NotAdmitted", "admit", "check_user"]

MAX_NAME_OCTETS = 255
MAX_ADDRESSES = 1000
MAX_DOMAINS = 1000
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


class NotAdmitted(ValueError):
    """What came in is not valid; the text says which part, without repeating it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A login as a front end heard of it, unchecked; the fields are those of Registration."""

    user: UserKey
    client_address: bytes
    protocol: LoginProtocol
    addresses: Iterable[str] = ()
    domains: Iterable[str] = ()
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
    check_user(candidate.user)
    if candidate.user == ANONYMOUS and candidate.protocol is not LoginProtocol.LEGACY_UDP:
        raise NotAdmitted("no user name")
    for what, text in (
        ("messaging server", candidate.messaging_server),
        ("agent", candidate.agent),
        ("session id", candidate.session_id),
    ):
        _check_text(what, text)
    if candidate.age < 0:
        raise NotAdmitted("negative age")
    try:
        place = networks.locate(candidate.client_address).place
    except ValueError:
        raise NotAdmitted("client address") from None
    return Registration(
        profile=_profile(candidate),
        place=place,
        client_address=candidate.client_address,
        protocol=candidate.protocol,
        messaging_server=candidate.messaging_server,
        agent=candidate.agent,
        session_id=candidate.session_id,
        age=candidate.age,
        credential_epoch=candidate.credential_epoch,
        renewal=candidate.renewal,
    )


def check_user(user: UserKey) -> None:
    """Raises: NotAdmitted, for a name or context that may not stand in a header or a log."""
    if user.context and not user.name:
        raise NotAdmitted("a context without a user name")
    _check_text("user name", user.name)
    _check_text("context", user.context)


def _check_text(what: str, text: str) -> None:
    if len(text) > MAX_NAME_OCTETS or len(text.encode("utf-8", "replace")) > MAX_NAME_OCTETS:
        raise NotAdmitted(f"{what} longer than {MAX_NAME_OCTETS} octets")
    if not text.isascii() or not text.isprintable():
        for character in text:
            if unicodedata.category(character) in _REFUSED_CATEGORIES:
                raise NotAdmitted(f"{what} with a control character")


def _profile(candidate: Candidate) -> Profile:
    addresses: list[str] = []
    keys: set[str] = set()
    given = list(candidate.addresses)
    domains = list(candidate.domains)
    if len(given) > MAX_ADDRESSES or len(domains) > MAX_DOMAINS:
        raise NotAdmitted("too many addresses or domains")
    if candidate.user != ANONYMOUS:
        for text in given:
            try:
                address = MailAddress.from_wire(text)
            except AddressError:
                continue
            addresses.append(address.wire)
            keys.add(address.key())
    return Profile(
        user=candidate.user,
        addresses=tuple(addresses),
        address_keys=frozenset(keys),
        domains=frozenset(_domains(domains)),
    )


def _domains(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        try:
            yield parse_domain(text)
        except AddressError:
            continue
