"""Which names LIST and LSUB show, and how (RFC 3501 6.3.8, RFC 5258, RFC 6154)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netmail_pop_imap.protocol.imap.commands import ListMailboxes
from netmail_pop_imap.protocol.imap.patterns import ancestors, compile_patterns
from netmail_pop_imap.protocol.imap.respond import astring
from netmail_pop_imap.protocol.imap.utf7 import encode_mailbox

LIST = b"LIST"
LSUB = b"LSUB"


@dataclass(frozen=True, slots=True)
class Entry:
    """A name of the user's: a mailbox, a level above one, or a subscription alone."""

    name: str
    selectable: bool = False
    subscribed: bool = False
    has_children: bool = False
    special_use: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One response line."""

    name: str
    attributes: tuple[str, ...]
    subscribed_below: bool = False

    def line(self, verb: bytes) -> bytes:
        r"""`* LIST (\HasNoChildren) "/" name`."""
        name = astring(encode_mailbox(self.name))
        info = b' (CHILDINFO ("SUBSCRIBED"))' if self.subscribed_below else b""
        attributes = " ".join(self.attributes).encode("ascii")
        return b'* %b (%b) "/" %b%b\r\n' % (verb, attributes, name, info)


def listing(command: ListMailboxes, names: Mapping[str, Entry]) -> Iterator[Row]:
    """The rows of a LIST or LSUB, in the order of names, INBOX first."""
    matches = compile_patterns(command.reference, command.patterns)
    above = _above(command, names)
    for name in sorted({*names, *above}, key=lambda n: (n.split("/")[0] != "INBOX", n)):
        if not matches(name):
            continue
        entry = names.get(name) or Entry(name, has_children=True)
        below = name in above
        if _selected(command, entry):
            yield _row(command, entry, subscribed_below=below and command.recursive_match)
        elif below:
            yield _above_row(command, entry)


def _above(command: ListMailboxes, names: Mapping[str, Entry]) -> set[str]:
    """Names above a selected one, where they are to be shown for its sake."""
    if command.name == "LSUB":
        # LSUB with %: a name whose child is subscribed is shown as \Noselect (RFC 3501 6.3.9).
        if not any(pattern.endswith("%") for pattern in command.patterns):
            return set()
    elif not command.recursive_match:
        return set()
    return {
        above
        for entry in names.values()
        if _selected(command, entry)
        for above in ancestors(entry.name)
    }


def _selected(command: ListMailboxes, entry: Entry) -> bool:
    if command.select_subscribed and not entry.subscribed:
        return False
    if command.select_special_use and not entry.special_use:
        return False
    if command.select_subscribed:
        return True
    return entry.selectable or entry.has_children


def _row(command: ListMailboxes, entry: Entry, *, subscribed_below: bool) -> Row:
    if command.name == "LSUB":
        attributes = [] if entry.selectable else ["\\Noselect"]
        return Row(entry.name, tuple(attributes))
    attributes = []
    if not entry.selectable:
        attributes.append("\\NonExistent" if command.extended else "\\Noselect")
    if command.return_subscribed and entry.subscribed:
        attributes.append("\\Subscribed")
    attributes.append("\\HasChildren" if entry.has_children else "\\HasNoChildren")
    if entry.special_use:
        attributes.append(f"\\{entry.special_use}")
    return Row(entry.name, tuple(attributes), subscribed_below=subscribed_below)


def _above_row(command: ListMailboxes, entry: Entry) -> Row:
    """A name that is shown only because of one below it."""
    if command.name == "LSUB":
        return Row(entry.name, ("\\Noselect",))
    row = _row(command, entry, subscribed_below=True)
    return Row(row.name, row.attributes, subscribed_below=command.select_subscribed)
