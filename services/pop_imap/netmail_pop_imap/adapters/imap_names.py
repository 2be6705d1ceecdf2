"""Commands on mailbox names: LIST, LSUB, STATUS, CREATE, DELETE, RENAME, (UN)SUBSCRIBE, quota."""

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc
from netmail.nmap.v1 import mailbox_pb2 as pb

from netmail_pop_imap.adapters.imap_errors import reply_for
from netmail_pop_imap.domain.imap_listing import LIST, LSUB, Entry, listing
from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap.errors import Refused
from netmail_pop_imap.protocol.imap.respond import astring
from netmail_pop_imap.protocol.imap.utf7 import encode_mailbox

if TYPE_CHECKING:
    from netmail_pop_imap.adapters.imap_session import ImapSession

T = TypeVar("T")

MAX_NAME = 1000
"""Octets of a mailbox name in UTF-8."""

SPECIAL_USES = frozenset({"Archive", "Drafts", "Junk", "Sent", "Trash"})
"""Attributes of RFC 6154 that a mailbox can have here."""

_PIECE = 64 * 1024


async def called(call: Awaitable[T]) -> T:
    """The call's answer. Raises: ReplyError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise reply_for(error) from None


async def list_mailboxes(connection: "ImapSession", command: c.ListMailboxes) -> None:
    """LIST, LSUB."""
    if not command.extended and command.patterns == ("",) and command.name == "LIST":
        connection.write(b'* LIST (\\Noselect) "/" ""\r\n')  # asks for the separator only
        connection.complete("LIST completed")
        return
    request = pb.ListMailboxesRequest(
        user_id=connection.user.user_id, with_status=bool(command.return_status)
    )
    response = await called(connection.stub.ListMailboxes(request))
    names = {
        mailbox.name: Entry(
            mailbox.name,
            selectable=mailbox.selectable,
            subscribed=mailbox.subscribed,
            has_children=mailbox.has_children,
            special_use=mailbox.special_use,
        )
        for mailbox in response.mailboxes
    }
    by_name = {mailbox.name: mailbox for mailbox in response.mailboxes}
    verb = LSUB if command.name == "LSUB" else LIST
    for row in listing(command, names):
        connection.write(row.line(verb))
        mailbox = by_name.get(row.name)
        if command.return_status and mailbox is not None and mailbox.selectable:
            connection.write(_status_line(connection, mailbox, command.return_status))
        if connection.unsent > _PIECE:
            await connection.drained()
    connection.complete(f"{command.name} completed")


async def status(connection: "ImapSession", command: c.Status) -> None:
    """STATUS."""
    if "HIGHESTMODSEQ" in command.items:
        connection.enable_condstore()
    request = pb.ListMailboxesRequest(
        user_id=connection.user.user_id, with_status=True, name=command.mailbox
    )
    response = await called(connection.stub.ListMailboxes(request))
    mailbox = next((m for m in response.mailboxes if m.name == command.mailbox), None)
    if mailbox is None or not mailbox.selectable:
        raise Refused("No such mailbox", "NONEXISTENT")
    connection.write(_status_line(connection, mailbox, command.items))
    connection.complete("STATUS completed")


def _status_line(connection: "ImapSession", mailbox: pb.Mailbox, items: Sequence[str]) -> bytes:
    found = mailbox.status
    values = {
        "MESSAGES": found.messages,
        "RECENT": found.recent,
        "UIDNEXT": found.uid_next,
        "UIDVALIDITY": found.uid_validity,
        "UNSEEN": found.unseen,
        "HIGHESTMODSEQ": found.highest_modseq,
        "SIZE": found.size,
        "DELETED": found.deleted,
        "APPENDLIMIT": connection.context.limits.literal,
        "MAILBOXID": f"({mailbox.object_id})",
    }
    pairs = " ".join(f"{item} {values[item]}" for item in items)
    return b"* STATUS %b (%b)\r\n" % (
        astring(encode_mailbox(mailbox.name)),
        pairs.encode("ascii"),
    )


def check_new_name(name: str) -> str:
    """A name that a mailbox can be given; a trailing separator says that children will follow.

    Raises: Refused.
    """
    name = name.removesuffix("/")
    if not name or any(not level for level in name.split("/")):
        raise Refused("Empty level in the mailbox name", "CANNOT")
    if any(wildcard in name for wildcard in "*%"):
        raise Refused("Wildcard in the mailbox name", "CANNOT")
    if not name.isprintable():
        raise Refused("Control character in the mailbox name", "CANNOT")
    if len(name.encode("utf-8", "replace")) > MAX_NAME:
        raise Refused("Mailbox name is too long", "LIMIT")
    return name


async def create(connection: "ImapSession", command: c.Create) -> None:
    """CREATE."""
    name = check_new_name(command.mailbox)
    if command.special_use and command.special_use not in SPECIAL_USES:
        raise Refused("Special use is not supported", "USEATTR")
    if name == "INBOX":
        raise Refused("INBOX is always there", "ALREADYEXISTS")
    request = pb.CreateMailboxRequest(
        user_id=connection.user.user_id, name=name, special_use=command.special_use
    )
    response = await called(connection.stub.CreateMailbox(request))
    object_id = response.mailbox.object_id
    connection.complete("CREATE completed", f"MAILBOXID ({object_id})" if object_id else "")


async def delete(connection: "ImapSession", command: c.OnMailbox) -> None:
    """DELETE."""
    name = command.mailbox
    if name == "INBOX":
        raise Refused("INBOX cannot be deleted", "CANNOT")
    request = pb.DeleteMailboxRequest(user_id=connection.user.user_id, name=name)
    own = connection.in_mailbox and connection.selected.opened.name == name
    if own:
        connection.leave_mailbox()
    await called(connection.stub.DeleteMailbox(request))
    if own:
        connection.write(b"* OK [CLOSED] The selected mailbox was deleted\r\n")
    connection.complete("DELETE completed")


async def rename(connection: "ImapSession", command: c.Rename) -> None:
    """RENAME; of INBOX: its messages move (RFC 3501 6.3.5)."""
    target = check_new_name(command.target)
    if target == "INBOX":
        raise Refused("INBOX is always there", "ALREADYEXISTS")
    request = pb.RenameMailboxRequest(
        user_id=connection.user.user_id, from_name=command.source, to_name=target
    )
    await called(connection.stub.RenameMailbox(request))
    if connection.in_mailbox and command.source == connection.selected.opened.name == "INBOX":
        await connection.sync()
    connection.complete("RENAME completed", expunge=True)


async def subscribe(connection: "ImapSession", command: c.OnMailbox) -> None:
    """SUBSCRIBE, UNSUBSCRIBE."""
    request = pb.SetSubscribedRequest(
        user_id=connection.user.user_id,
        name=command.mailbox.removesuffix("/"),
        subscribed=command.name == "SUBSCRIBE",
    )
    await called(connection.stub.SetSubscribed(request))
    connection.complete(f"{command.name} completed")


async def get_quota(connection: "ImapSession", command: c.GetQuota) -> None:
    """GETQUOTA: there is one root, the empty name (RFC 9208)."""
    if command.root:
        raise Refused("No such quota root", "NONEXISTENT")
    connection.write(await _quota_line(connection))
    connection.complete("GETQUOTA completed")


async def get_quota_root(connection: "ImapSession", command: c.OnMailbox) -> None:
    """GETQUOTAROOT."""
    line = await _quota_line(connection)
    connection.write(b'* QUOTAROOT %b ""\r\n' % astring(encode_mailbox(command.mailbox)))
    connection.write(line)
    connection.complete("GETQUOTAROOT completed")


async def _quota_line(connection: "ImapSession") -> bytes:
    request = pb.GetQuotaRequest(user_id=connection.user.user_id)
    quota = await called(connection.stub.GetQuota(request))
    if not quota.limit_bytes:
        return b'* QUOTA "" ()\r\n'
    used, limit = (n // 1024 for n in (quota.used_bytes + 1023, quota.limit_bytes))
    return b'* QUOTA "" (STORAGE %d %d)\r\n' % (used, limit)
