"""Fuzz target: the address map's file, and whose an address is by it."""

from collections.abc import Iterable

from netmail_common.connmgr.model import Binding, UserKey
from netmail_common.mail_address import AddressError, MailAddress
from netmail_connmgr.domain.address_map import AddressMap, AddressMapError, parse_entries


def seeds() -> Iterable[bytes]:
    """Files; the first line is the sender that is asked about."""
    yield b"alice+tag@example.org\nalice@example.org alice # a comment\n#\n\nbob@example.org bob\n"
    yield b"sales@example.net\nsales@example.net alice\nSales@EXAMPLE.net bob@users.demo\n"
    yield b"a@example.net\na@example.net b\nx@example.org a\n"
    yield b"+a@example.org\n+a@example.org a\n"
    yield "ü@example.org\nU\u0308@example.org jürgen\n".encode()
    yield b"x\nalice@example.org\n"
    yield b'"a b"@example.org\n"a@b"@example.org a\n'


def one_input(data: bytes) -> None:
    """An address belongs to those that a line or the rule names, and to nobody else."""
    text = data.decode("utf-8", "replace")
    sender, _, lines = text.partition("\n")
    try:
        entries = parse_entries(lines)
    except AddressMapError:
        return
    known = AddressMap(entries, ["example.net"])
    for address, owners in entries.items():
        for owner in owners:
            own = known.addresses_of(UserKey(owner, ""))
            assert address.wire in own
            assert address.domain in known.domains_of(UserKey(owner, ""))
            for one in own:
                _check_owned(one, owner, entries)
        asked = known.sender(address.wire, Binding.DOMAIN)
        assert asked.key == address.key()
        assert not asked.known  # his login says whose it is
    _ask(known, sender, entries)


def _check_owned(wire: str, owner: str, entries: dict[MailAddress, list[str]]) -> None:
    address = MailAddress.from_wire(wire)
    by_line = [owners for one, owners in entries.items() if one.key() == address.key()]
    if by_line:
        assert owner in by_line[0]
    else:
        assert address.domain == "example.net"


def _ask(known: AddressMap, sender: str, entries: dict[MailAddress, list[str]]) -> None:
    for binding in Binding:
        asked = known.sender(sender, binding)
        assert asked.address == sender
        try:
            address = MailAddress.from_wire(sender)
        except AddressError:
            assert asked.key == ""
            continue
        assert asked.key.endswith(f"@{address.domain}")
        assert asked.owner is None
        if asked.known:
            assert binding is Binding.DOMAIN
            assert asked.key not in {one.key() for one in entries}
            assert address.domain in {one.domain for one in entries}
            assert address.domain != "example.net"
