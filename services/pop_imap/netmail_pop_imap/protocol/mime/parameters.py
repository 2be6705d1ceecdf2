"""Content-Type and Content-Disposition: a value and parameters (RFC 2045 5.1, RFC 2183)."""

import re

_TOKEN = rb"[^\x00-\x20()<>@,;:\\\"/\[\]?=\x7f]+"
_MEDIA_TYPE = re.compile(rb"\s*(" + _TOKEN + rb")\s*/\s*(" + _TOKEN + rb")\s*(?=;|\Z)")
_VALUE = re.compile(rb"\s*(" + _TOKEN + rb")\s*(?=;|\Z)")
_PARAMETER = re.compile(
    rb";\s*(" + _TOKEN + rb")\s*=\s*(?:\"((?:[^\"\\]|\\.)*)(?:\"|\Z)|([^;\s]*))\s*", re.DOTALL
)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_MAX_PARAMETERS = 100

Parameters = tuple[tuple[bytes, bytes], ...]


def strip_comments(value: bytes) -> bytes:
    """Without RFC 5322 comments; parentheses in quoted strings stay."""
    if b"(" not in value:
        return value
    kept = bytearray()
    depth = position = 0
    quoted = False
    while position < len(value):
        octet = value[position : position + 1]
        if octet == b"\\":
            octet = value[position : position + 2]
        elif octet == b'"' and depth == 0:
            quoted = not quoted
        elif octet == b"(" and not quoted:
            depth += 1
        if depth == 0:
            kept += octet
        elif octet == b")" and not quoted:
            depth -= 1
        position += len(octet)
    return bytes(kept)


def media_type(value: bytes | None) -> tuple[bytes, bytes, Parameters] | None:
    """Type, subtype, parameters, as written. None: the field is missing or does not parse."""
    if not value:
        return None
    value = strip_comments(value)
    match = _MEDIA_TYPE.match(value)
    if match is None:
        return None
    return match[1], match[2], _parameters(value, match.end())


def disposition(value: bytes | None) -> tuple[bytes, Parameters] | None:
    """Disposition type and parameters. None: the field is missing or does not parse."""
    if not value:
        return None
    value = strip_comments(value)
    match = _VALUE.match(value)
    if match is None:
        return None
    return match[1], _parameters(value, match.end())


def _parameters(value: bytes, position: int) -> Parameters:
    found: list[tuple[bytes, bytes]] = []
    while len(found) < _MAX_PARAMETERS:
        match = _PARAMETER.match(value, position)
        if match is None:
            position = value.find(b";", position + 1)  # pass over what does not parse
            if position < 0:
                break
            continue
        quoted = match[2]
        if quoted is None:
            found.append((match[1], match[3]))
        else:
            found.append((match[1], _QUOTED_PAIR.sub(rb"\1", quoted)))
        position = match.end()
    return tuple(found)
