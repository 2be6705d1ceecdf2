"""`netmail user device ...`: passwords of single devices."""

from typing import Annotated, Any

import typer
from netmail.nmap.v1 import directory_pb2 as pb

from netmail_cli.arguments import seconds_of
from netmail_cli.command import Call, admin_command
from netmail_cli.commands.users import UserArgument, find_user, user_ref

__all__ = ["device_app"]

device_app = typer.Typer(
    no_args_is_help=True, help="Passwords of single devices: a copier, a camera, an old program."
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The device's name.")]

_COLUMNS = ("name", "services", "networks", "expires_in_seconds", "used_seconds_ago", "used_from")


@admin_command(device_app, "add")
async def add(
    call: Call,
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
) -> None:
    """Makes a password for one device and shows it, this once."""
    wanted = pb.DevicePassword(
        name=name,
        services=service or [],
        networks=network or [],
        expires_in_seconds=None
        if expires is None
        else seconds_of(expires, f"{expires} is no time: a number with s, m, h or d"),
    )
    server, found = await find_user(call.admin, user, None)
    answer = await call.admin.directory(server).CreateDevicePassword(
        pb.CreateDevicePasswordRequest(user=user_ref(found), device=wanted)
    )
    record = {**_record(answer.device), "password": answer.password}
    call.output.done(f"password of {name} for {found.name}: {answer.password}", record)


@admin_command(device_app, "list")
async def list_devices(
    call: Call,
    user: UserArgument,
) -> None:
    """Lists a user's device passwords and when each was used last."""
    server, found = await find_user(call.admin, user, None)
    answer = await call.admin.directory(server).ListDevicePasswords(
        pb.ListDevicePasswordsRequest(user=user_ref(found))
    )
    call.output.records("Device passwords", _COLUMNS, [_record(one) for one in answer.devices])


@admin_command(device_app, "remove")
async def remove(
    call: Call,
    user: UserArgument,
    name: NameArgument,
) -> None:
    """Removes a device password; ends the user's logins and sessions."""
    server, found = await find_user(call.admin, user, None)
    await call.admin.directory(server).DeleteDevicePassword(
        pb.DeleteDevicePasswordRequest(user=user_ref(found), name=name)
    )
    call.output.done(f"{name} of {found.name} is removed", {"removed": name})


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
