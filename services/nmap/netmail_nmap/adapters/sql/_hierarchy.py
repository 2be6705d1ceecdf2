"""The hierarchy of mailbox names: what LIST shows, what a rename moves."""

from collections.abc import Callable, Iterator, Sequence

from netmail_nmap.adapters.sql._mailboxes import MailboxRow
from netmail_nmap.domain.mail import HIERARCHY_SEPARATOR, MailboxInfo, MailboxStatus


def parents(name: str) -> Iterator[str]:
    """The names above NAME, the nearest first."""
    while True:
        name, separator, _ = name.rpartition(HIERARCHY_SEPARATOR)
        if not separator:
            return
        yield name


def with_children(rows: Sequence[MailboxRow], name: str) -> list[MailboxRow]:
    """The mailbox of that name and all below it."""
    below = name + HIERARCHY_SEPARATOR
    return [row for row in rows if row.name == name or row.name.startswith(below)]


def listing(
    rows: Sequence[MailboxRow],
    subscribed: set[str],
    wanted: str,
    status: Callable[[MailboxRow], MailboxStatus] | None,
) -> list[MailboxInfo]:
    """Mailboxes (only WANTED unless empty), names above them and subscriptions without one."""
    have_children = {parent for row in rows for parent in parents(row.name)}
    known = {row.name for row in rows}
    infos = [
        MailboxInfo(
            row.id,
            row.name,
            row.object_id,
            row.name in subscribed,
            row.special_use,
            row.name in have_children,
            selectable=True,
            status=None if status is None else status(row),
        )
        for row in rows
        if wanted in ("", row.name)
    ]
    infos += [
        MailboxInfo(0, name, "", name in subscribed, "", name in have_children, selectable=False)
        for name in (have_children | subscribed) - known
        if not wanted
    ]
    return sorted(infos, key=lambda info: info.name)
