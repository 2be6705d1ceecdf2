"""What IMAP shows of a message's inside, computed from its octets; nothing is re-serialised."""

from netmail_pop_imap.protocol.mime.bodystructure import body_structure
from netmail_pop_imap.protocol.mime.envelope import envelope
from netmail_pop_imap.protocol.mime.section import SectionReader, field_selector
from netmail_pop_imap.protocol.mime.structure import Part, parse_structure

__all__ = [
    "Part",
    "SectionReader",
    "body_structure",
    "envelope",
    "field_selector",
    "parse_structure",
]
