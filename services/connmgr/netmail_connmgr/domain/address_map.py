"""Whose a mail address is, for front ends that have no directory.

A file names owners, and in some domains user@domain belongs to the user of that name. What a user
owns is registered with his login; decisions then need no map, but for one thing: under the sender
binding `domain` somebody must say that an address is nobody's.
"""

import functools
from collections.abc import Iterable, Mapping

from netmail_common.connmgr.model import Binding, CheckedSender, UserKey
from netmail_common.mail_address import (
    AddressError,
    MailAddress,
    fold,
    parse_mail_address,
    split_subaddress,
)

from netmail_connmgr.domain.door import NotAdmitted, check_user

__all__ = ["AddressMap", "AddressMapError", "parse_entries"]


_SENDERS = 4096
"""That were asked about lately; a message asks for each of its recipients."""


class AddressMapError(ValueError):
    """A line of the file is none; the text names its number and repeats nothing of it."""


class AddressMap:
    """Addresses and the names of their owners; never changes.

    A user's name is what his server calls him: `alice`, `alice@example.org`, and of a user in a
    context `name@context`.

    Args:
        entries: MailAddress and owners, as the file has them.
        domains: here user@domain belongs to the user of that name, and to `user@domain`, unless
            an entry says otherwise.
        separator: `user+tag` is an address of `user`; empty: it is not.
        default_context: a user of this context counts as one without.
    """

    def __init__(
        self,
        entries: Mapping[MailAddress, Iterable[str]],
        domains: Iterable[str] = (),
        *,
        separator: str = "+",
        default_context: str = "",
    ) -> None:
        self._domains = tuple(dict.fromkeys(domains))
        self._separator = separator
        self._default_context = default_context
        self._listed = frozenset(address.key() for address in entries)
        self._listed_domains = frozenset(a.domain for a in entries).difference(self._domains)
        self._senders = functools.lru_cache(maxsize=_SENDERS)(self._sender)
        self._of_owner: dict[str, list[str]] = {}
        for address, owners in entries.items():
            for owner in owners:
                self._of_owner.setdefault(owner, []).append(address.wire)

    def __len__(self) -> int:
        """Addresses that the file names."""
        return len(self._listed)

    def addresses_of(self, user: UserKey) -> tuple[str, ...]:
        """What a user owns, in wire spelling: to register with his login."""
        own: dict[str, None] = {}
        for name in self._names(user):
            own |= dict.fromkeys(self._of_owner.get(name, ()))
            own |= dict.fromkeys(self._by_rule(name))
        return tuple(own)

    def domains_of(self, user: UserKey) -> tuple[str, ...]:
        """The domains that a user has an address in, for the sender binding `domain`."""
        return tuple(dict.fromkeys(a.rpartition("@")[2] for a in self.addresses_of(user)))

    def sender(self, text: str, binding: Binding) -> CheckedSender:
        """A sender to ask about, in wire spelling.

        A subaddress counts as the address that it belongs to, unless the file names it.
        """
        return self._senders(text, binding)

    def _sender(self, text: str, binding: Binding) -> CheckedSender:
        try:
            address = MailAddress.from_wire(text)
        except AddressError:
            return CheckedSender(text)
        key = address.key()
        if self._separator and self._separator in address.local and key not in self._listed:
            base = split_subaddress(address.local, self._separator)[0]
            key = f"{fold(base)}@{address.domain}"
        return CheckedSender(
            address=text,
            key=key,
            domain=address.domain,
            # Nobody's, as far as there is a file to say so. An owner need not be named: his login
            # knows what is his.
            known=binding is Binding.DOMAIN
            and key not in self._listed
            and address.domain in self._listed_domains,
        )

    def _names(self, user: UserKey) -> Iterable[str]:
        """What the file and the rule may call a user."""
        if user.context:
            yield f"{user.name}@{user.context}"
        if user.name and user.context in {"", self._default_context}:
            yield user.name

    def _by_rule(self, name: str) -> Iterable[str]:
        """Addresses that belong to a name because of their domain, and to nobody else by name."""
        full = "@" in name
        for text in [name] if full else [f"{name}@{domain}" for domain in self._domains]:
            try:
                address = MailAddress.from_wire(text)
            except AddressError:
                continue
            if address.domain in self._domains and address.key() not in self._listed:
                yield address.wire


def parse_entries(text: str) -> dict[MailAddress, list[str]]:
    """Reads a file: lines of `address user` or `address user@context`, `#` begins a comment.

    An address may stand on several lines and then has several owners. It is spelt as in SMTP; one
    with white space cannot be written.

    Raises: AddressMapError.
    """
    entries: dict[str, tuple[MailAddress, list[str]]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        words = _without_comment(line)
        if not words:
            continue
        if len(words) != 2:
            raise AddressMapError(f"line {number}: not an address and a user")
        try:
            address = parse_mail_address(words[0])
            check_user(UserKey(words[1], ""))
        except AddressError as error:
            raise AddressMapError(f"line {number}: {error}") from None
        except NotAdmitted as error:
            raise AddressMapError(f"line {number}: {error}") from None
        _, owners = entries.setdefault(address.key(), (address, []))
        if words[1] not in owners:
            owners.append(words[1])
    return dict(entries.values())


def _without_comment(line: str) -> list[str]:
    words = line.split()
    for index, word in enumerate(words):
        if word.startswith("#"):
            return words[:index]
    return words
