"""BODY[section] (RFC 3501 6.4.5), cut out of a message's octets."""

import re
from collections.abc import Callable
from functools import lru_cache

from netmail_pop_imap.protocol.imap.commands import Section, SectionText
from netmail_pop_imap.protocol.mime.fields import header_end
from netmail_pop_imap.protocol.mime.structure import Part, parse_structure

_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:.*(?:\n[ \t].*)*\n?", re.MULTILINE)
_HEADER_FIELDS = {SectionText.HEADER_FIELDS, SectionText.HEADER_FIELDS_NOT}


@lru_cache(maxsize=256)
def _only(fields: frozenset[bytes]) -> re.Pattern[bytes]:
    names = b"|".join(re.escape(name) for name in sorted(fields, reverse=True))
    return re.compile(
        rb"^(?:" + names + rb")[ \t]*:.*(?:\n[ \t].*)*\n?", re.IGNORECASE | re.MULTILINE
    )


def field_selector(section: Section) -> Callable[[bytes], bytes]:
    """A function from a header's octets to the fields that HEADER.FIELDS(.NOT) asks for.

    Fields stay as they are, in their order; an empty line ends them.
    """
    if section.text is SectionText.HEADER_FIELDS:
        find = _only(section.fields).findall
        return lambda header: b"".join(find(header)) + b"\r\n"
    excluded = section.fields
    return lambda header: (
        b"".join(m[0] for m in _FIELD.finditer(header) if m[1].upper() not in excluded) + b"\r\n"
    )


class SectionReader:
    """Cuts sections out of one message; its structure is parsed at most once."""

    __slots__ = ("_root", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._root: Part | None = None

    @property
    def root(self) -> Part:
        """The message's tree."""
        if self._root is None:
            self._root = parse_structure(self.data)
        return self._root

    def read(self, section: Section) -> bytes | None:
        """The section's octets, before any partial. None: the message has no such part."""
        if not section.part:
            return self._of_message(section)
        part = self._part(section.part)
        if part is None:
            return None
        match section.text:
            case SectionText.ALL:
                return self.data[part.body : part.end]
            case SectionText.MIME:
                return self.data[part.start : part.body]
        inner = part.message
        if inner is None:
            return None
        if section.text is SectionText.TEXT:
            return self.data[inner.body : inner.end]
        return self._header(section, self.data[inner.start : inner.body])

    def _of_message(self, section: Section) -> bytes:
        if section.text is SectionText.ALL:
            return self.data
        body = header_end(self.data, 0, len(self.data))
        if section.text is SectionText.TEXT:
            return self.data[body:]
        return self._header(section, self.data[:body])

    @staticmethod
    def _header(section: Section, header: bytes) -> bytes:
        return field_selector(section)(header) if section.text in _HEADER_FIELDS else header

    def _part(self, numbers: tuple[int, ...]) -> Part | None:
        part = self.root
        container: Part | None = part
        for number in numbers:
            if container is None:
                return None
            if container.is_multipart:
                if number > len(container.children):
                    return None
                part = container.children[number - 1]
            elif number == 1:  # the one part of a message that is no multipart
                part = container
            else:
                return None
            container = part.message or (part if part.is_multipart else None)
        return part
