"""Who is meant: by a login name, by a mail address. Decisions over one snapshot of the users."""

from collections import deque
from dataclasses import dataclass

from netmail_common.mail_address import (
    AddressError,
    MailAddress,
    fold,
    parse_mail_address,
    split_subaddress,
)

from netmail_nmap.domain.delivery import Expansion
from netmail_nmap.domain.users import UserLookup, UserRecord

ROLE_ADDRESSES = frozenset({"postmaster", "abuse"})
"""Always accepted in every domain of ours (RFC 5321 4.5.1, RFC 2142)."""

MAX_FORWARDS = 100
"""Users that forwarding from one address reaches."""


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """What the configuration says about one Messaging Server's directory.

    Attributes:
        server: name of the Messaging Server.
        contexts: in the order in which bare names are looked up.
        domains: lower-case A-labels; the first is the primary.
        catch_all: gets mail to unknown local parts.
        postmaster: gets mail to postmaster and abuse; None: the first user.
        separator: of subaddresses; empty: none.
        other_domains: of the installation's other Messaging Servers.
    """

    server: str
    contexts: tuple[str, ...]
    domains: tuple[str, ...]
    catch_all: MailAddress | None = None
    postmaster: MailAddress | None = None
    separator: str = "+"
    other_domains: frozenset[str] = frozenset()


class Recipients:
    """Finds users in one snapshot."""

    def __init__(self, settings: DirectorySettings, lookup: UserLookup) -> None:
        self._settings = settings
        self._lookup = lookup

    def for_login(self, username: str) -> UserRecord | None:
        """The user who logs in with this bare name or mail address; a disabled one is not there."""
        if "@" in username:
            try:
                address = parse_mail_address(username)
            except AddressError:
                address = None
            if address is not None and address.domain in self._settings.domains:
                user = self._enabled(self._lookup.by_address(address.key()))
                if user is not None:
                    return user
        key = fold(username)
        for context in self._settings.contexts:
            user = self._enabled(self._lookup.by_name(context, key))
            if user is not None:
                return user
        return None

    def for_address(self, address: MailAddress) -> UserRecord | None:
        """The user who gets mail to an address in one of our domains; None: nobody does.

        Its owner, else the catch-all user.
        """
        owner = self.owner(address)
        if owner is None and self._settings.catch_all is not None:
            return self._enabled(self._lookup.by_address(self._settings.catch_all.key()))
        return owner

    def owner(self, address: MailAddress) -> UserRecord | None:
        """The user whose address it is; None: nobody's, though the catch-all user gets its mail.

        In this order: the address itself, without its subaddress, postmaster and abuse.
        """
        user = self._enabled(self._lookup.by_address(address.key()))
        if user is not None:
            return user
        base, tag = split_subaddress(address.local, self._settings.separator)
        plain = MailAddress(base, address.domain) if tag or base != address.local else address
        if plain is not address:
            user = self._enabled(self._lookup.by_address(plain.key()))
            if user is not None:
                return user
        if is_role_address(plain):
            return self._postmaster()
        return None

    def is_local(self, address: MailAddress) -> bool:
        """Whether the domain is one of ours."""
        return address.domain in self._settings.domains

    def expand(self, text: str, *, handed_over: bool = False) -> tuple[list[UserRecord], list[str]]:
        """Where mail to an address (wire spelling) goes: users, and addresses elsewhere.

        A message that another NMAP agent hands over (`handed_over`) is not forwarded to one again,
        but kept: between agents nothing counts hops, so a loop would end in nobody's mailbox.
        """
        try:
            address = MailAddress.from_wire(text)
        except AddressError:
            return [], []
        if not self.is_local(address):
            return [], [text]
        user = self.for_address(address)
        if user is None:
            return [], []
        return self._follow_forwarding(user, handed_over=handed_over)

    def _follow_forwarding(
        self, first: UserRecord, *, handed_over: bool
    ) -> tuple[list[UserRecord], list[str]]:
        """Each user is followed once, so that a loop ends and a tree of forwards stays small."""
        users: list[UserRecord] = []
        remote: dict[str, str] = {}
        seen = {_identity(first)}
        waiting = deque([first])
        while waiting:
            user = waiting.popleft()
            targets = [MailAddress.from_wire(target) for target in user.forward_to]
            stays = [
                address
                for address in targets
                if handed_over and address.domain in self._settings.other_domains
            ]
            if not targets or user.keep_copy or stays:
                users.append(user)
            for address in targets:
                if address in stays:
                    continue
                if not self.is_local(address):
                    remote[address.key()] = address.wire
                    continue
                next_user = self.for_address(address)
                if next_user is None or _identity(next_user) in seen:
                    continue
                seen.add(_identity(next_user))
                if len(seen) > MAX_FORWARDS:
                    users.append(next_user)  # follows no further; the mail stays with him
                else:
                    waiting.append(next_user)
        if not users and not remote:
            users.append(first)  # forwarding leads nowhere, or in a circle: the mail is kept
        return users, list(remote.values())

    def _postmaster(self) -> UserRecord | None:
        if self._settings.postmaster is not None:
            user = self._enabled(self._lookup.by_address(self._settings.postmaster.key()))
            if user is not None:
                return user
        for context in self._settings.contexts:
            user = self._lookup.first(context)
            if user is not None:
                return user
        return None

    def _enabled(self, user: UserRecord | None) -> UserRecord | None:
        if user is None or user.disabled or user.context not in self._settings.contexts:
            return None
        return user


def is_role_address(address: MailAddress) -> bool:
    """Whether it is postmaster or abuse."""
    return fold(address.local) in ROLE_ADDRESSES


def to_expansion(users: list[UserRecord], remote: list[str]) -> Expansion:
    """The same, as delivery wants it. Every user must have an id."""
    return Expansion(tuple(user.id for user in users), tuple(remote))


def _identity(user: UserRecord) -> tuple[str, str]:
    return user.context, user.name_key
