"""Whom the Connection Manager suspects, as an agent knows it from its stream."""

from netmail_common.connmgr.events import Suspected
from netmail_common.connmgr.model import UserKey

__all__ = ["Suspects"]


class Suspects:
    """Whom the Connection Manager suspects, as far as its stream has told."""

    def __init__(self) -> None:
        self._known: set[UserKey | bytes] = set()
        self._coming: set[UserKey | bytes] | None = None
        self._everybody = False

    def __contains__(self, who: UserKey | bytes) -> bool:
        return self._everybody or who in self._known

    def begin(self) -> None:
        """A stream begins; until it has told all, what was known holds."""
        self._coming = set()

    def change(self, event: Suspected) -> None:
        """Takes what the stream tells."""
        if event.everybody:
            self._everybody, self._coming = True, set()
            return
        target = self._known if self._coming is None else self._coming
        target |= event.added
        target -= event.removed
        if event.complete:
            self._known, self._coming, self._everybody = target, None, False
