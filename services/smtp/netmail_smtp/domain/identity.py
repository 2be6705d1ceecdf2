"""Sender identity: which addresses a message claims to come from, and whether it may.

Senders are the envelope sender unless null, and every address in From, Sender, Resent-From and
Resent-Sender.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from netmail_common.address_list import AddressField, AddressFieldError, parse_address_field
from netmail_common.config import SenderBinding
from netmail_common.header import Header, HeaderField
from netmail_common.mail_address import AddressError, MailAddress, split_subaddress

from netmail_smtp.domain.relay import sender_refused
from netmail_smtp.protocol.reply import MessageRefused

_MANY = ("from", "resent-from")
_SINGLE = ("sender", "resent-sender")
SENDER_FIELDS = frozenset(_MANY + _SINGLE)
_MAX_RESENT = 100
"""Resent-From and Resent-Sender fields in one message."""


def header_senders(header: Header) -> list[MailAddress]:
    """Every address that the header claims as a sender, each once, in order.

    Raises: MessageRefused: 550 5.6.0 for what two readers might read in two ways.
    """
    if header.stray_lines or not header.begins_with_field:
        raise _refuse("The header has a line that is no header field")
    if header.count("from") != 1:
        raise _refuse(f"The message has {header.count('from') or 'no'} From fields; it needs one")
    if header.count("sender") > 1:
        raise _refuse("The message has more than one Sender field")
    fields = [field for field in header.fields if field.name in SENDER_FIELDS]
    if len(fields) > _MAX_RESENT:
        raise _refuse("The message has too many Resent fields")
    found: dict[str, MailAddress] = {}
    for field in fields:
        for address in _read(header, field).addresses:
            found.setdefault(address.key(), address)
    return list(found.values())


def _read(header: Header, field: HeaderField) -> AddressField:
    name = field.name.title()
    if field.space_before_colon:
        raise _refuse(f"White space stands between {name} and its colon")
    try:
        read = parse_address_field(header.value(field))
    except AddressFieldError as error:
        raise _refuse(f"The {name} field is malformed: {error}") from error
    if not read.addresses:
        raise _refuse(f"The {name} field has no address")
    if field.name in _SINGLE and (len(read.addresses) != 1 or read.has_group):
        raise _refuse(f"The {name} field needs exactly one address")
    return read


def _refuse(text: str) -> MessageRefused:
    return MessageRefused(550, "5.6.0", text)


@dataclass(frozen=True, slots=True)
class UserName:
    """A user by name and context."""

    name: str
    context: str


class OwnAddresses:
    """The addresses of one user, subaddresses (`user+tag`) included."""

    def __init__(self, addresses: Iterable[str], separator: str) -> None:
        self._separator = separator
        self._keys = set()
        for text in addresses:
            try:
                self._keys.add(MailAddress.from_wire(text).key())
            except AddressError:
                continue

    def __contains__(self, address: MailAddress) -> bool:
        """Whether the address is the user's own."""
        if address.key() in self._keys:
            return True
        user, tag = split_subaddress(address.local, self._separator)
        return bool(tag) and MailAddress(user, address.domain).key() in self._keys


@dataclass(frozen=True, slots=True)
class AuthenticatedSender:
    """A user who authenticated, and what he may send as.

    Attributes:
        user: name and context.
        own: his addresses.
        domains: of the Messaging Server that holds him.
        binding: the listener's `sender_binding.after_auth`.
    """

    user: UserName
    own: OwnAddresses
    domains: frozenset[str]
    binding: SenderBinding

    def needing_owner(self, senders: Sequence[MailAddress]) -> list[MailAddress]:
        """Those whose owner the directory must tell before `check` can decide."""
        if self.binding is not SenderBinding.DOMAIN:
            return []
        return [s for s in senders if s not in self.own and s.domain in self.domains]

    def check(
        self, senders: Iterable[MailAddress], owners: Mapping[MailAddress, UserName | None]
    ) -> None:
        """Checks that every sender may be used.

        Args:
            senders: of the message.
            owners: of the addresses that `needing_owner` named; None: nobody's. What is missing
                could not be found out, and is refused.

        Raises: MessageRefused: 550 5.7.1, naming the address and the user.
        """
        if self.binding is SenderBinding.ANY:
            return
        for sender in senders:
            if sender in self.own:
                continue
            allowed = (
                self.binding is SenderBinding.DOMAIN
                and sender.domain in self.domains
                and owners.get(sender, UserName("", "")) in (None, self.user)
            )
            if not allowed:
                reply = sender_refused(str(sender), self.user.name)
                raise MessageRefused(reply.code, reply.enhanced, reply.text)
