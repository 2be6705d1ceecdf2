"""What revocations leave behind: a registration that is older than one is refused."""

from dataclasses import replace

from netmail_common.connmgr.model import Revocation, UserKey

__all__ = ["MARK_LIFETIME", "RevocationMarks", "TooManyMarks"]

MARK_LIFETIME = 86_400.0
"""Seconds; the longest lifetime that a login can be given."""

_Key = tuple[UserKey | None, bytes | None, bool]


class TooManyMarks(Exception):
    """There is no room for another revocation; it was not made."""


class RevocationMarks:
    """Revocations that still bind, one for each user, network and way of comparing."""

    def __init__(self, max_marks: int, lifetime: float = MARK_LIFETIME) -> None:
        self._max = max_marks
        self._lifetime = lifetime
        self._marks: dict[_Key, Revocation] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._marks)

    def add(self, revocation: Revocation) -> None:
        """Keeps a revocation; with an earlier one of the same kind the stronger of both.

        Raises: TooManyMarks.
        """
        self._forget(revocation.made)
        key = (revocation.user, revocation.network, bool(revocation.credential_epoch))
        earlier = self._marks.pop(key, None)
        if earlier is not None:
            epoch = max(earlier.credential_epoch, revocation.credential_epoch)
            revocation = replace(revocation, credential_epoch=epoch)
        elif len(self._marks) >= self._max:
            raise TooManyMarks
        self._marks[key] = revocation

    def refuse(
        self,
        user: UserKey,
        network: bytes,
        verified: float,
        credential_epoch: int | None,
        now: float,
    ) -> Revocation | None:
        """The revocation that a login is older than, if there is one."""
        if not self._marks:
            return None
        self._forget(now)
        for subject in ((user, None), (None, network), (user, network)):
            for by_epoch in (False, True):
                mark = self._marks.get((*subject, by_epoch))
                if mark is not None and mark.covers(user, network, verified, credential_epoch):
                    return mark
        return None

    def binding(self, now: float) -> list[Revocation]:
        """All that still bind, oldest first."""
        self._forget(now)
        return list(self._marks.values())

    def _forget(self, now: float) -> None:
        while self._marks:
            key = next(iter(self._marks))
            if self._marks[key].made + self._lifetime > now:
                return
            del self._marks[key]
