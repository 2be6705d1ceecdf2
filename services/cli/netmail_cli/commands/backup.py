"""`netmail backup` and `netmail restore`: everything that an installation stores, in one file."""

import asyncio
import contextlib
import hashlib
import importlib.util
import json as jsonlib
import re
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from netmail.nmap.v1 import backup_pb2 as pb
from netmail_common.backup_archive import PART, Archive, ArchiveError, ArchiveWriter, StoreEntry
from netmail_common.config import Installation, MessagingServerConfig

from netmail_cli.admin import Administrator
from netmail_cli.command import Call, asking
from netmail_cli.context import (
    ConfigOption,
    Failure,
    JsonOption,
    Output,
    StateOption,
    find_configuration,
    perform,
)
from netmail_cli.exit_codes import ExitCode

__all__ = ["backup", "restore"]

_PIECE = 2 * 1024 * 1024
_WAIT = 20
_ABANDONED = 3600
"""Seconds after which nobody writes an unfinished file any more."""
_AGENT = "netmail_nmap"

ServerOption = Annotated[
    list[str] | None,
    typer.Option("--server", metavar="NAME", help="Only this Messaging Server's store."),
]


class QueueChoice(StrEnum):
    """What happens to mail that waited in the queue when the backup was made."""

    HOLD = "hold"
    SEND = "send"


@asking
async def backup(
    call: Call,
    file: Annotated[
        Path, typer.Argument(help="A new file; {time} in its name is the time. -: standard output.")
    ],
    server: ServerOption = None,
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep", min=1, metavar="N", help="Then remove all but the N newest; needs {time}."
        ),
    ] = None,
) -> None:
    """Copies directory, mail and queue of every Messaging Server into one file, while they run."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    to_output = str(file) == "-"
    if keep is not None and "{time}" not in file.name:
        raise Failure(ExitCode.USAGE, "--keep needs {time} in the file's name")
    path = None if to_output else file.with_name(file.name.replace("{time}", moment))
    servers = _chosen(call.admin.installation, server)
    try:
        with ArchiveWriter(path, call.admin.installation.installation) as archive:
            stores = [await _copy(call.admin, one, archive) for one in servers]
            archive.finish()
    except FileExistsError:
        raise Failure(ExitCode.EXISTS, f"{path} exists") from None
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{path} cannot be written: {error.strerror}") from error
    if to_output:
        return
    removed = _remove_older(file, keep) if keep is not None else []
    size = sum(store.size for store in stores)
    names = ", ".join(store.server for store in stores)
    call.output.done(
        f"{path}: {names}, {size} octets",
        {
            "file": str(path),
            "stores": [store.server for store in stores],
            "size": size,
            "removed": removed,
        },
    )


def _remove_older(file: Path, keep: int) -> list[str]:
    """Removes what the same command has written, but for the KEEP newest; gives the names.

    What a killed one has left unfinished goes too.

    Raises: Failure when one cannot be removed.
    """
    name = re.escape(file.name).replace(re.escape("{time}"), r"\d{8}T\d{6}Z")
    found = sorted(one.name for one in file.parent.iterdir() if re.fullmatch(name, one.name))
    removed = found[:-keep]
    try:
        for one in removed:
            file.with_name(one).unlink()
        for left in file.parent.iterdir():
            unfinished = re.fullmatch(name + re.escape(PART), left.name)
            if unfinished and left.stat().st_mtime < time.time() - _ABANDONED:
                left.unlink()
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"an older backup stays: {error.strerror}") from error
    return removed


async def _copy(
    admin: Administrator, server: MessagingServerConfig, archive: ArchiveWriter
) -> StoreEntry:
    """One store. Raises: Failure when what came is not what the agent copied."""
    stub = await admin.backups(server)
    answer = await stub.PrepareBackup(pb.PrepareBackupRequest())
    try:
        while not answer.ready:
            answer = await stub.PrepareBackup(
                pb.PrepareBackupRequest(backup_id=answer.backup_id, wait_seconds=_WAIT)
            )
        entry = StoreEntry(
            server.name,
            answer.engine,
            answer.schema,
            answer.store_id,
            answer.size,
            answer.sha256.hex(),
        )
        archive.begin(entry)
        digest = hashlib.sha256()
        offset = 0
        while offset < answer.size:
            read = pb.ReadBackupRequest(backup_id=answer.backup_id, offset=offset, length=_PIECE)
            data = (await stub.ReadBackup(read)).data
            if not data:
                break
            archive.write(data)
            digest.update(data)
            offset += len(data)
        archive.end()
    finally:
        with contextlib.suppress(Exception):  # it ends by itself too
            await stub.EndBackup(pb.EndBackupRequest(backup_id=answer.backup_id))
    if digest.digest() != answer.sha256:
        raise Failure(ExitCode.FAILED, f"the copy of {server.name} was damaged on its way")
    return entry


def restore(
    file: Annotated[Path, typer.Argument(help="What `netmail backup` wrote.")],
    server: ServerOption = None,
    queue: Annotated[
        QueueChoice,
        typer.Option(
            "--queue",
            help="hold: queued mail waits for `netmail queue release`; send: it goes out again.",
        ),
    ] = QueueChoice.HOLD,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put a store that is not empty aside.")
    ] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Puts a backup in the place of stores that no NMAP agent has open."""
    output = Output(json)

    async def work() -> None:
        config_path, installation = find_configuration(config, state)
        if importlib.util.find_spec(_AGENT) is None:
            raise Failure(ExitCode.FAILED, "the NMAP agent, which restores, is not installed here")
        agent = ["--config", str(config_path), "--state", str(installation.state_dir)]
        agent += ["--hold-queue"] if queue is QueueChoice.HOLD else []
        agent += ["--replace"] if replace else []
        await asyncio.to_thread(_restore_all, output, installation, file, server, agent)

    perform(output, work)


def _restore_all(
    output: Output,
    installation: Installation,
    file: Path,
    names: list[str] | None,
    options: list[str],
) -> None:
    try:
        archive = Archive.open(file)
    except ArchiveError as error:
        raise Failure(ExitCode.FAILED, str(error)) from error
    stores = {store.server: store for store in archive.stores}
    for name in names or ():
        if name not in stores:
            raise Failure(ExitCode.NOT_FOUND, f"{file} has no store of {name}")
    servers = _chosen(installation, names or list(stores))
    done = [_restore_one(archive, stores[server.name], options) for server in servers]
    if output.json:
        output.data({"made_at": archive.made_at, "stores": done})
        return
    for one in done:
        output.done(
            f"{one['server']}, as of {archive.made_at}:"
            f" {one['users']} users, {one['messages']} messages"
        )
        if one["kept"]:
            output.done(f"  the store that was there: {one['kept']}")
        if one["queued"]:
            word = "held" if "--hold-queue" in options else "to be sent"
            output.done(f"  in the queue, {word}: {one['queued']} (`netmail queue list`)")


def _restore_one(archive: Archive, store: StoreEntry, options: list[str]) -> dict[str, Any]:
    """Lets the NMAP agent's own program do it: the store is its. Raises: Failure."""
    argv = [sys.executable, "-m", f"{_AGENT}.restore", *options]
    argv += ["--server", store.server, "--sha256", store.sha256]
    with subprocess.Popen(  # noqa: S603 - our own program
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("pipes were asked for")
        with contextlib.suppress(BrokenPipeError):  # it ended early and says why
            for piece in archive.pieces(store):
                process.stdin.write(piece)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        words, answer = process.stderr.read(), process.stdout.read()
    if process.returncode != 0:
        text = words.decode(errors="replace").strip() or "it was not restored"
        raise Failure(ExitCode.FAILED, f"{store.server}: {text.splitlines()[-1]}")
    return {"server": store.server, **jsonlib.loads(answer)}


def _chosen(installation: Installation, names: list[str] | None) -> list[MessagingServerConfig]:
    if not names:
        return list(installation.messaging_servers)
    try:
        return [installation.messaging_server(name) for name in names]
    except KeyError as error:
        name = error.args[0]
        raise Failure(ExitCode.NOT_FOUND, f"there is no Messaging Server {name}") from None
