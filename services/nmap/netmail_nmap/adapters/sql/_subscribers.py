"""Who hears in this process what commits have changed."""

from collections.abc import Callable, Sequence

from netmail_nmap.adapters.sql._events import Event, QueueGrew, UserEnded
from netmail_nmap.adapters.sql._watch import ChangeHub
from netmail_nmap.domain.ended_users import EndedUsers
from netmail_nmap.domain.mail import MailboxChange


class Subscribers:
    """Hands the events of commits on.

    Attributes:
        mailboxes: hears of changed mailboxes.
        ended_users: hears of users whose sessions must end.
        wake_queue: is called when the queue grew; set once there is a queue.
    """

    def __init__(self) -> None:
        self.mailboxes = ChangeHub()
        self.ended_users = EndedUsers()
        self.wake_queue: Callable[[], None] | None = None

    def publish(self, events: Sequence[Event]) -> None:
        """Called in the event loop."""
        for event in events:
            if isinstance(event, QueueGrew):
                if self.wake_queue is not None:
                    self.wake_queue()
            elif isinstance(event, UserEnded):
                self.ended_users.publish(event.user_id)
            elif isinstance(event, MailboxChange):
                self.mailboxes.publish(event)
