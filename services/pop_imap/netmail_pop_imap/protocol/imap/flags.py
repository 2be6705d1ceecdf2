"""Flags (RFC 3501 2.3.2)."""

SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
_CANONICAL = {flag.lower(): flag for flag in SYSTEM_FLAGS}

MAX_KEYWORD = 100
"""Octets of one keyword."""


def canonical_flag(flag: str) -> str | None:
    r"""A system flag in RFC spelling, a keyword as it is.

    None: a flag that no client may set (`\Recent`, an unknown system flag).
    """
    if not flag.startswith("\\"):
        return flag
    return _CANONICAL.get(flag.lower())
