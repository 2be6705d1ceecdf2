"""`netmail login ...`: what the Connection Managers remember."""

import ipaddress
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_cli.admin import Administrator, pages
from netmail_cli.arguments import address_of
from netmail_cli.command import Call, admin_command
from netmail_cli.commands.users import find_user
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode

__all__ = ["login_app"]

login_app = typer.Typer(no_args_is_help=True, help="POP3 and IMAP logins that vouch for a client.")

UserOption = Annotated[
    str | None, typer.Option("--user", metavar="USER", help="A name, name@context or address.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", metavar="IP", help="The client's IP address.")
]

_PAGE = 1000
_COLUMNS = ("user", "network", "protocol", "messaging_server", "remaining_seconds", "grants")
_PROTOCOLS = {
    pb.PROTOCOL_POP3: "pop3",
    pb.PROTOCOL_IMAP: "imap",
    pb.PROTOCOL_LEGACY_UDP: "legacy udp",
    pb.PROTOCOL_WHOSON: "whoson",
    pb.PROTOCOL_AUTH_POLICY: "auth policy",
}


@admin_command(login_app, "list")
async def list_logins(
    call: Call,
    user: UserOption = None,
    address: AddressOption = None,
) -> None:
    """Lists the logins that are remembered now."""
    key, octets = await _filters(call.admin, user, address)
    records = [
        _record(manager.name, login)
        for manager in call.admin.installation.connection_managers
        async for login in _all_logins(call.admin, manager.name, key, octets)
    ]
    call.output.records("Logins", _COLUMNS, records)


@admin_command(login_app, "revoke")
async def revoke(
    call: Call,
    user: UserOption = None,
    address: AddressOption = None,
    reason: Annotated[str, typer.Option("--reason", help="For the log.")] = "by an administrator",
) -> None:
    """Ends logins by user, by address, or both; open sessions of theirs end too."""
    if user is None and address is None:
        raise Failure(ExitCode.USAGE, "say --user, --address, or both")
    revoked = 0
    key, octets = await _filters(call.admin, user, address)
    for manager in call.admin.installation.connection_managers:
        answer = await call.admin.connection_manager(manager.name).RevokeLogins(
            pb.RevokeLoginsRequest(user=key, client_address=octets, reason=reason)
        )
        revoked += answer.revoked
    call.output.done(f"{revoked} revoked", {"revoked": revoked})


@admin_command(login_app, "unblock")
async def unblock(
    call: Call,
    user: UserOption = None,
    address: AddressOption = None,
) -> None:
    """Forgets failed logins of a user, an address, or both, so that they may try again."""
    if user is None and address is None:
        raise Failure(ExitCode.USAGE, "say --user, --address, or both")
    forgotten = 0
    key, octets = await _filters(call.admin, user, address)
    for manager in call.admin.installation.connection_managers:
        answer = await call.admin.connection_manager(manager.name).ForgetFailures(
            pb.ForgetFailuresRequest(user=key, client_address=octets)
        )
        forgotten += answer.forgotten
    what = "counter" if forgotten == 1 else "counters"
    call.output.done(f"{forgotten} {what} forgotten", {"forgotten": forgotten})


async def _filters(
    admin: Administrator, user: str | None, address: str | None
) -> tuple[pb.UserKey | None, bytes]:
    key = None
    if user is not None and not admin.installation.messaging_servers:
        # Nobody has a directory: the name is what other makers' servers call the user.
        key = pb.UserKey(name=user)
    elif user is not None:
        _, found = await find_user(admin, user, None)
        key = pb.UserKey(name=found.name, context=found.context)
    if address is None:
        return key, b""
    return key, address_of(address).packed


async def _all_logins(
    admin: Administrator, manager: str, user: pb.UserKey | None, address: bytes
) -> AsyncIterator[pb.Login]:
    async for page in pages(
        lambda token: admin.connection_manager(manager).ListLogins(
            pb.ListLoginsRequest(
                user=user, client_address=address, page_size=_PAGE, page_token=token
            )
        )
    ):
        for login in page.logins:
            yield login


def _record(manager: str, login: pb.Login) -> dict[str, Any]:
    network = ipaddress.ip_network((login.network, login.prefix_length))
    alone = network.num_addresses == 1
    return {
        "user": _user_text(login.user),
        "network": str(network.network_address) if alone else str(network),
        "client_address": str(ipaddress.ip_address(login.client_address)),
        "protocol": _PROTOCOLS.get(login.protocol, "unknown"),
        "messaging_server": login.messaging_server,
        "connection_manager": manager,
        "remaining_seconds": login.remaining_seconds,
        "age_seconds": login.age_ms // 1000,
        "grants": login.grants,
        "addresses": list(login.addresses),
    }


def _user_text(user: pb.UserKey) -> str:
    return f"{user.name}@{user.context}" if user.context else user.name
