"""LIST patterns: `*` matches anything, `%` all but the hierarchy separator (RFC 3501 6.3.8)."""

import re
from collections.abc import Callable, Iterable

SEPARATOR = "/"


def compile_patterns(reference: str, patterns: Iterable[str]) -> Callable[[str], bool]:
    """A function that says whether a mailbox name matches any of the patterns.

    Args:
        reference: put before each pattern, as most servers do.
        patterns: in Unicode, with wildcards.
    """
    matchers = [_matcher(reference + pattern) for pattern in patterns]
    return lambda name: any(match(name) for match in matchers)


def _matcher(pattern: str) -> Callable[[str], bool]:
    # A run of wildcards is one wildcard.
    pattern = re.sub(r"[*%]*\*[*%]*|%+", lambda m: "*" if "*" in m[0] else "%", pattern)
    if pattern[:5].upper() == "INBOX" and pattern[5:6] in {"", SEPARATOR, "*", "%"}:
        pattern = "INBOX" + pattern[5:]
    pieces = re.split(r"([*%])", pattern)
    return lambda name: _match(name, pieces)


def _match(name: str, pieces: list[str]) -> bool:
    """Positions reachable after each piece: linear in name times pieces, whatever the pattern."""
    reachable = {0}
    for piece in pieces:
        if piece == "*":
            reachable = set(range(min(reachable), len(name) + 1))
        elif piece == "%":
            reachable = _until_separator(name, reachable)
        elif piece:
            reachable = {start + len(piece) for start in reachable if name.startswith(piece, start)}
        if not reachable:
            return False
    return len(name) in reachable


def _until_separator(name: str, starts: set[int]) -> set[int]:
    reached: set[int] = set()
    for start in sorted(starts):
        if start in reached:
            continue
        end = name.find(SEPARATOR, start)
        reached.update(range(start, (len(name) if end < 0 else end) + 1))
    return reached


def ancestors(name: str) -> list[str]:
    """`a/b/c` has the ancestors `a/b`, `a`."""
    found = []
    while SEPARATOR in name:
        name = name.rpartition(SEPARATOR)[0]
        found.append(name)
    return found
