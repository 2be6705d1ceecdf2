"""`netmail user device ...`: passwords of single devices."""

from typing import Annotated, Any

import typer
from netmail.nmap.v1 import directory_pb2 as pb
from netmail_common.config import Duration
from pydantic import TypeAdapter, ValidationError

from netmail_cli.admin import administrator
from netmail_cli.commands.users import UserArgument, find_user, user_ref
from netmail_cli.context import ConfigOption, Failure, JsonOption, Output, StateOption, perform
from netmail_cli.exit_codes import ExitCode

__all__ = ["device_app"]

device_app = typer.Typer(
    no_args_is_help=True, help="Passwords of single devices: a copier, a camera, an old program."
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The device's name.")]

_COLUMNS = ("name", "services", "networks", "expires_in_seconds", "used_seconds_ago", "used_from")


@device_app.command("add")
def add(
    user: UserArgument,
    name: NameArgument,
    service: Annotated[
        list[str] | None, typer.Option("--service", help="smtp, pop3 or imap; default: all.")
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option("--network", help="In CIDR form; default: anywhere.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="90d, 12h; default: never.")
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Makes a password for one device and shows it, this once."""
    output = Output(json)

    async def work() -> None:
        wanted = pb.DevicePassword(
            name=name,
            services=service or [],
            networks=network or [],
            expires_in_seconds=None if expires is None else _seconds(expires),
        )
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, None)
            answer = await admin.directory(server).CreateDevicePassword(
                pb.CreateDevicePasswordRequest(user=user_ref(found), device=wanted)
            )
        record = {**_record(answer.device), "password": answer.password}
        output.done(f"password of {name} for {found.name}: {answer.password}", record)

    perform(output, work)


@device_app.command("list")
def list_devices(
    user: UserArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Lists a user's device passwords and when each was used last."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, None)
            answer = await admin.directory(server).ListDevicePasswords(
                pb.ListDevicePasswordsRequest(user=user_ref(found))
            )
        output.records("Device passwords", _COLUMNS, [_record(one) for one in answer.devices])

    perform(output, work)


@device_app.command("remove")
def remove(
    user: UserArgument,
    name: NameArgument,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Removes a device password; ends the user's logins and sessions."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, None)
            await admin.directory(server).DeleteDevicePassword(
                pb.DeleteDevicePasswordRequest(user=user_ref(found), name=name)
            )
        output.done(f"{name} of {found.name} is removed", {"removed": name})

    perform(output, work)


def _seconds(text: str) -> int:
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise Failure(ExitCode.USAGE, f"{text} is no time: a number with s, m, h or d") from None


def _record(device: pb.DevicePassword) -> dict[str, Any]:
    return {
        "name": device.name,
        "services": list(device.services) or ["all"],
        "networks": list(device.networks) or ["any"],
        "expires_in_seconds": (
            device.expires_in_seconds if device.HasField("expires_in_seconds") else "never"
        ),
        "created_seconds_ago": device.created_seconds_ago,
        "used_seconds_ago": (
            device.used_seconds_ago if device.HasField("used_seconds_ago") else "never"
        ),
        "used_from": device.used_from,
    }
