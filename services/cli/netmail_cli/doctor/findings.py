"""What doctor says."""

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Finding", "Level"]


class Level(StrEnum):
    """How it stands."""

    GOOD = "good"
    UNKNOWN = "unknown"
    """Nothing can be said from here."""
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: a listener, a Service, an agent.
        said: what is so.
        do: what to change; empty: nothing.
        clients: of a listener, the connections by address, most first; for programs.
    """

    level: Level
    about: str
    said: str
    do: str = ""
    clients: dict[str, int] = field(default_factory=dict)
