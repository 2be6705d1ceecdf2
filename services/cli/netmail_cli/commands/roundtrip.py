"""`netmail roundtrip`: really sends, relays and fetches mail, as a user made for it."""

import asyncio
import contextlib
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from netmail.nmap.v1 import directory_pb2 as pb
from netmail_common.config import MessagingServerConfig, SinkConfig
from netmail_common.config._base import parse_host_port

from netmail_cli.command import Call, asking
from netmail_cli.commands.users import context_for_new_user, user_ref
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode
from netmail_cli.roundtrip import Account, Differs, Door, Doors, RoundTrip
from netmail_cli.sink import sink_server

__all__ = ["roundtrip"]


def _door_option(name: str, what: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        f"--{name}", metavar="HOST:PORT", help=f"Where {what} is."
    )
    return option


@asking
async def roundtrip(  # noqa: PLR0917 - a command has its options
    call: Call,
    smtp: Annotated[str, _door_option("smtp", "the MX listener")],
    submission: Annotated[str, _door_option("submission", "submission with STARTTLS")],
    pop3s: Annotated[str, _door_option("pop3s", "POP3 over TLS")],
    imaps: Annotated[str, _door_option("imaps", "IMAP over TLS")],
    sink: Annotated[
        str,
        typer.Option(
            "--sink",
            metavar="ADDRESS:PORT",
            help="An address of this machine that the SMTP agent reaches, and the port it sends "
            "to: mail to the world goes there.",
        ),
    ],
    context: Annotated[
        str | None, typer.Option("--context", help="Default: the installation's only context.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="CA of the listeners' certificate.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not look at the listeners' certificate.")
    ] = False,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds that mail may be under way.")
    ] = 60.0,
) -> None:
    """Makes a user, plays a stranger and that user, and removes the user.

    A stranger sends to the user and may not send to the world; the user fetches by POP3 and IMAP,
    and sends to the world and to himself. Exit code 1 at the first thing that differs.
    """
    where, server = context_for_new_user(call.admin, context)
    tls = _tls(ca, insecure=insecure)
    name = server.host_name

    def door(text: str) -> Door:
        target = parse_host_port(text)
        return Door(target.host, target.port, name, tls)

    doors = Doors(door(smtp), door(submission), door(pop3s), door(imaps))
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if not call.output.json:
            call.output.done(text)

    with tempfile.TemporaryDirectory(prefix="netmail-roundtrip-") as folder:
        receiving = SinkConfig(name="roundtrip", listen=[sink], directory=Path(folder))
        remote = f"world@[{parse_host_port(sink).host}]"
        async with _account(call, server, where) as account, sink_server(receiving):
            trip = RoundTrip(doors, account, remote, Path(folder), patience=patience, say=say)
            try:
                await asyncio.to_thread(trip.play)
            except Differs as difference:
                raise Failure(ExitCode.FAILED, str(difference)) from None
    call.output.done("everything is as it should be", {"steps": said})


@contextlib.asynccontextmanager
async def _account(
    call: Call, server: MessagingServerConfig, context: str
) -> AsyncIterator[Account]:
    """A user that is gone with his mail when the block ends."""
    directory = call.admin.directory(server)
    password = secrets.token_urlsafe(15)
    named = pb.UserRef(name=f"roundtrip-{secrets.token_hex(4)}", context=context)
    made = (await directory.CreateUser(pb.CreateUserRequest(user=named, password=password))).user
    try:
        yield Account(made.name, password, made.addresses[0])
    finally:
        await directory.DeleteUser(pb.DeleteUserRequest(user=user_ref(made)))


def _tls(ca: Path | None, *, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        try:
            context.load_verify_locations(ca)
        except OSError as error:
            raise Failure(ExitCode.CONFIG, f"{ca}: {error}") from None
    return context
