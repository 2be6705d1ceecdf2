"""`netmail export` and `netmail import`: a user's mail into files and out of them."""

import asyncio
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import grpc
import typer
from netmail_common.grpc_errors import error_reason

from netmail_cli.command import Call, asking
from netmail_cli.commands.users import UserArgument, find_user
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode
from netmail_cli.mailbox_client import MailboxClient, OpenMailbox, Present
from netmail_cli.mailfiles.maildir import (
    MaildirFolder,
    maildir_mailboxes,
    read_folder,
    read_subscriptions,
    write_subscriptions,
)
from netmail_cli.mailfiles.mbox import mbox_entry, read_mbox
from netmail_cli.mailfiles.message import FileMessage, MailFileError, Problem, is_keyword
from netmail_cli.mailfiles.names import INBOX

__all__ = ["export_mail", "import_mail"]

_LONE_LF = re.compile(rb"(?<!\r)\n")
_REFUSED = {"MESSAGE_TOO_BIG", "TOO_MANY_KEYWORDS", "INVALID_REQUEST"}
"""Reasons that concern one message; after any other nothing more would go in."""
_SHOWN = 20
"""Problems that are printed; JSON has all of them."""

ContextOption = Annotated[
    str | None, typer.Option("--context", metavar="CONTEXT", help="Where the user is.")
]
MaildirOption = Annotated[
    Path | None, typer.Option("--maildir", metavar="DIR", help="A Maildir (Maildir++).")
]
MboxOption = Annotated[Path | None, typer.Option("--mbox", metavar="FILE", help="An mbox.")]
MailboxOption = Annotated[
    list[str] | None,
    typer.Option("--mailbox", metavar="NAME", help="Only this mailbox; several may be given."),
]


class LineEnds(StrEnum):
    """What happens to messages whose lines end in LF alone."""

    CRLF = "crlf"
    KEEP = "keep"


@asking
async def export_mail(
    call: Call,
    user: UserArgument,
    maildir: MaildirOption = None,
    mbox: MboxOption = None,
    mailbox: MailboxOption = None,
    context: ContextOption = None,
) -> None:
    """Writes a user's mail to a Maildir, where an earlier export goes on, or to a new mbox."""
    _one_of(maildir, mbox)
    server, found = await find_user(call.admin, user, context)
    client = MailboxClient(call.admin.mailboxes(server), found.id)
    names = await client.names()
    for name in mailbox or ():
        if name not in names:
            raise Failure(ExitCode.NOT_FOUND, f"{found.name} has no mailbox {name}")
    chosen = [name for name in names if not mailbox or name in mailbox]
    counts: Counter[str] = Counter()
    with _written_files(maildir or mbox):
        if maildir is not None:
            MaildirFolder(maildir, INBOX)  # what makes it a Maildir
            for name in chosen:
                await _to_maildir(client, maildir, name, counts)
            subscribed = [
                name for name in await client.subscriptions() if not mailbox or name in mailbox
            ]
            write_subscriptions(maildir, subscribed)
            await asyncio.to_thread(os.sync)
        elif mbox is not None:
            with _new_file(mbox) as file:
                for name in chosen:
                    await _to_mbox(client, file, name, counts)
    record = {"mailboxes": len(chosen), "written": counts["written"], "present": counts["present"]}
    call.output.done(
        f"{found.name}: {len(chosen)} mailboxes, {counts['written']} messages written,"
        f" {counts['present']} were there",
        record,
    )


@asking
async def import_mail(  # noqa: PLR0917 - the options of a command
    call: Call,
    user: UserArgument,
    maildir: MaildirOption = None,
    mbox: MboxOption = None,
    mailbox: MailboxOption = None,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="NAME", help="Everything goes into this mailbox."),
    ] = None,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing", help="Leave out what the mailbox has: to go on after a stop."
        ),
    ] = False,
    line_ends: Annotated[
        LineEnds | None,
        typer.Option(
            "--line-ends", help="Messages with LF alone: make it CRLF (usual), or keep it."
        ),
    ] = None,
    context: ContextOption = None,
) -> None:
    """Puts mail from a Maildir or an mbox into a user's mailboxes, which are made if need be."""
    _one_of(maildir, mbox)
    server, found = await find_user(call.admin, user, context)
    client = MailboxClient(call.admin.mailboxes(server), found.id)
    work = _Import(client, into, skip_existing=skip_existing, line_ends=line_ends)
    limit = server.nmap.max_message_size
    try:
        if maildir is not None:
            await work.maildir(maildir, mailbox, limit)
        elif mbox is not None:
            await work.mbox(mbox, mailbox, limit)
    except MailFileError as error:
        raise Failure(ExitCode.FAILED, str(error)) from error
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{error.filename}: {error.strerror}") from error
    except grpc.aio.AioRpcError as error:
        words = error.details() or error.code().name
        text = f"{words}, after {work.imported} messages; go on later with --skip-existing"
        raise Failure(ExitCode.FAILED, text, error_reason(error)) from error
    record = {
        "imported": work.imported,
        "present": work.present,
        "problems": [str(problem) for problem in work.problems],
    }
    call.output.done(
        f"{found.name}: {work.imported} messages imported, {work.present} were there", record
    )
    if work.problems:
        lines = [str(problem) for problem in work.problems[:_SHOWN]]
        more = len(work.problems) - len(lines)
        lines += [f"and {more} more"] if more else []
        raise Failure(ExitCode.FAILED, "not everything went in:\n  " + "\n  ".join(lines))


# -- export ------------------------------------------------------------------------------------


async def _to_maildir(client: MailboxClient, root: Path, name: str, counts: Counter[str]) -> None:
    opened = await client.open(name)
    folder = MaildirFolder(root, name)
    bases = {
        one.uid: folder.base(one.date, one.uid, opened.uid_validity, one.size)
        for one in opened.messages
    }
    for one in opened.messages:
        if folder.has(bases[one.uid]):
            folder.set_flags(bases[one.uid], one.flags)
            counts["present"] += 1
    missing = [uid for uid, base in bases.items() if not folder.has(base)]
    async for uid, message in _messages(client, name, opened, missing):
        folder.add(bases[uid], message)
        counts["written"] += 1
    folder.finish()


async def _to_mbox(client: MailboxClient, file: BinaryIO, name: str, counts: Counter[str]) -> None:
    opened = await client.open(name)
    uids = [one.uid for one in opened.messages]
    async for _, message in _messages(client, name, opened, uids):
        file.write(mbox_entry(message))
        counts["written"] += 1


async def _messages(
    client: MailboxClient, name: str, opened: OpenMailbox, uids: list[int]
) -> AsyncIterator[tuple[int, FileMessage]]:
    known = {one.uid: one for one in opened.messages}
    async for uid, data in client.bodies(opened.id, uids):
        yield uid, FileMessage(name, known[uid].flags, known[uid].date, data)


@contextmanager
def _written_files(place: Path | None) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise Failure(ExitCode.EXISTS, f"{place} exists") from None
    except OSError as error:
        text = f"{error.filename or place} cannot be written: {error.strerror}"
        raise Failure(ExitCode.FAILED, text) from error


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole. Raises: FileExistsError."""
    if path.exists():
        raise FileExistsError(path)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


# -- import ------------------------------------------------------------------------------------


class _Import:
    """One run of an import, and what came of it so far."""

    def __init__(
        self,
        client: MailboxClient,
        into: str | None,
        *,
        skip_existing: bool,
        line_ends: LineEnds | None,
    ) -> None:
        self._client = client
        self._into = into
        self._skip_existing = skip_existing
        self._line_ends = line_ends
        self._mailboxes: set[str] | None = None
        self._created: list[str] = []
        self._present: dict[str, Present] = {}
        self.imported = 0
        self.present = 0
        self.problems: list[Problem] = []

    async def maildir(self, root: Path, chosen: list[str] | None, limit: int) -> None:
        """Raises: MailFileError, Failure, OSError, AioRpcError."""
        folders, problems = maildir_mailboxes(root)
        self.problems += problems
        _check_chosen(chosen, [name for name, _ in folders], root)
        for name, folder in folders:
            if chosen and name not in chosen:
                continue
            if self._into is None and not await self._need(name, str(folder)):
                continue
            for found in read_folder(name, folder, limit=limit):
                await self._take(found)
        if self._into is None:
            subscribed = await asyncio.to_thread(read_subscriptions, root)
            wanted = self._created if subscribed is None else subscribed
            for name in wanted:
                if not chosen or name in chosen:
                    await self._client.subscribe(name)

    async def mbox(self, path: Path, chosen: list[str] | None, limit: int) -> None:
        """Raises: MailFileError, Failure, OSError, AioRpcError."""
        with path.open("rb") as file:
            for found in read_mbox(file, str(path), limit=limit):
                if isinstance(found, Problem) or not chosen or found.mailbox in chosen:
                    await self._take(found)
        for name in self._created:
            await self._client.subscribe(name)

    async def _take(self, found: FileMessage | Problem) -> None:
        if isinstance(found, Problem):
            self.problems.append(found)
            return
        message = self._with_line_ends(found)
        mailbox = self._into or message.mailbox
        if not await self._need(mailbox, message.origin):
            return
        if self._skip_existing and await self._is_there(mailbox, message):
            self.present += 1
            return
        flags = [one for one in message.flags if one.startswith("\\") or is_keyword(one)]
        if len(flags) < len(message.flags):
            self.problems.append(Problem(message.origin, "a keyword is none; it was left out"))
        try:
            await self._client.append(message, mailbox, flags)
        except grpc.aio.AioRpcError as error:
            if error_reason(error) not in _REFUSED:
                raise
            self.problems.append(Problem(message.origin, error.details() or "was refused"))
        else:
            self.imported += 1

    async def _need(self, mailbox: str, origin: str) -> bool:
        """Makes a mailbox unless it is there; False if it cannot have that name."""
        if self._mailboxes is None:
            self._mailboxes = set(await self._client.names())
        if mailbox in self._mailboxes:
            return True
        try:
            await self._client.create(mailbox)
        except grpc.aio.AioRpcError as error:
            if error_reason(error) != "INVALID_REQUEST":
                raise
            self.problems.append(Problem(origin, error.details() or "has no good mailbox name"))
            return False
        self._mailboxes.add(mailbox)
        self._created.append(mailbox)
        return True

    async def _is_there(self, mailbox: str, message: FileMessage) -> bool:
        if mailbox not in self._present:
            self._present[mailbox] = Present(self._client, await self._client.open(mailbox))
        return await self._present[mailbox].take(message)

    def _with_line_ends(self, message: FileMessage) -> FileMessage:
        data = message.data
        if message.exact or b"\n" not in data or b"\r\n" in data:
            return message
        if self._line_ends is None:
            raise Failure(
                ExitCode.USAGE,
                f"{message.origin}: its lines end in LF, not CRLF: say --line-ends crlf, which"
                " makes them as mail has them, or --line-ends keep",
            )
        if self._line_ends is LineEnds.KEEP:
            return message
        changed = _LONE_LF.sub(b"\r\n", data)
        return FileMessage(
            message.mailbox, message.flags, message.date, changed, message.origin, message.exact
        )


def _check_chosen(chosen: list[str] | None, there: list[str], place: Path) -> None:
    for name in chosen or ():
        if name not in there:
            raise Failure(ExitCode.NOT_FOUND, f"{place} has no mailbox {name}")


def _one_of(maildir: Path | None, mbox: Path | None) -> None:
    if (maildir is None) == (mbox is None):
        raise Failure(ExitCode.USAGE, "say --maildir or --mbox")
