"""What a commit tells the rest of the process."""

from dataclasses import dataclass

from netmail_nmap.domain.mail import MailboxChange


@dataclass(frozen=True, slots=True)
class QueueGrew:
    """Items of the queue became due, or will: whoever waits for a lease looks again."""


@dataclass(frozen=True, slots=True)
class UserEnded:
    """A user's credentials changed, or he was disabled or removed: his open sessions must end."""

    user_id: int


@dataclass(frozen=True, slots=True)
class DirectoryChanged:
    """Something of a user changed: what was remembered of users may be wrong."""


Event = MailboxChange | QueueGrew | UserEnded | DirectoryChanged
