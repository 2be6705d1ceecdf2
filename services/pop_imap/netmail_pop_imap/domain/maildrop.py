"""A POP3 maildrop: the messages of a session and what is to become of them (RFC 1939)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from netmail_pop_imap.protocol.errors import ReplyError

_T = TypeVar("_T")


class NoSuchMessage(ReplyError):
    """No message has that number, or it is marked as deleted."""

    default_text = "no such message"


@dataclass(frozen=True, slots=True)
class MaildropMessage:
    """One message: its number of this session counts from 1."""

    number: int
    uid: int
    size: int
    unique_id: str


class Maildrop:
    """The messages as they were at the login; numbers never change during a session.

    Args:
        uids, sizes (octets), unique_ids: columns of equal length, in UID order.
        seen: UIDs with the flag Seen.
    """

    __slots__ = ("_deleted", "_retrieved", "_seen", "_sizes", "_uids", "_unique_ids", "mailbox_id")

    def __init__(
        self,
        mailbox_id: int,
        uids: Sequence[int],
        sizes: Sequence[int],
        unique_ids: Sequence[str],
        seen: frozenset[int],
    ) -> None:
        self.mailbox_id = mailbox_id
        self._uids = uids
        self._sizes = sizes
        self._unique_ids = unique_ids
        self._seen = seen
        self._deleted: set[int] = set()
        self._retrieved: set[int] = set()

    def message(self, number: int) -> MaildropMessage:
        """Raises: NoSuchMessage."""
        if not 1 <= number <= len(self._uids) or number in self._deleted:
            raise NoSuchMessage
        at = number - 1
        return MaildropMessage(number, self._uids[at], self._sizes[at], self._unique_ids[at])

    def delete(self, number: int) -> None:
        """Marks for the removal at QUIT. Raises: NoSuchMessage."""
        self.message(number)
        self._deleted.add(number)

    def reset(self) -> None:
        """Takes all marks back (RSET)."""
        self._deleted.clear()

    def retrieved(self, message: MaildropMessage) -> None:
        """The client has it whole: it gets the flag Seen at QUIT."""
        if message.uid not in self._seen:
            self._retrieved.add(message.uid)

    def statistics(self) -> tuple[int, int]:
        """Number and octets of the messages that are not marked (STAT)."""
        deleted = sum(self._sizes[number - 1] for number in self._deleted)
        return len(self._uids) - len(self._deleted), sum(self._sizes) - deleted

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Number and octets of each message that is not marked (LIST)."""
        return self._alive(self._sizes)

    def unique_ids(self) -> Iterator[tuple[int, str]]:
        """Number and unique id of each message that is not marked (UIDL)."""
        return self._alive(self._unique_ids)

    def to_remove(self) -> list[int]:
        """UIDs that QUIT removes, sorted."""
        return sorted(self._uids[number - 1] for number in self._deleted)

    def to_flag_seen(self) -> list[int]:
        """UIDs that QUIT flags, sorted."""
        return sorted(self._retrieved.difference(self.to_remove()))

    def _alive(self, column: Sequence[_T]) -> Iterator[tuple[int, _T]]:
        deleted = self._deleted
        return (item for item in enumerate(column, 1) if item[0] not in deleted)
