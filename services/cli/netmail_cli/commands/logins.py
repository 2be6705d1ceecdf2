"""`netmail login ...`: what the Connection Managers remember."""

import ipaddress
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_cli.admin import Administrator, administrator, pages
from netmail_cli.commands.users import find_user
from netmail_cli.context import ConfigOption, Failure, JsonOption, Output, StateOption, perform
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


@login_app.command("list")
def list_logins(
    user: UserOption = None,
    address: AddressOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Lists the logins that are remembered now."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            key, octets = await _filters(admin, user, address)
            records = [
                _record(manager.name, login)
                for manager in admin.installation.connection_managers
                async for login in _all_logins(admin, manager.name, key, octets)
            ]
        output.records("Logins", _COLUMNS, records)

    perform(output, work)


@login_app.command("revoke")
def revoke(
    user: UserOption = None,
    address: AddressOption = None,
    reason: Annotated[str, typer.Option("--reason", help="For the log.")] = "by an administrator",
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Ends logins by user, by address, or both; open sessions of theirs end too."""
    output = Output(json)

    async def work() -> None:
        if user is None and address is None:
            raise Failure(ExitCode.USAGE, "say --user, --address, or both")
        revoked = 0
        async with administrator(config, state) as admin:
            key, octets = await _filters(admin, user, address)
            for manager in admin.installation.connection_managers:
                answer = await admin.connection_manager(manager.name).RevokeLogins(
                    pb.RevokeLoginsRequest(user=key, client_address=octets, reason=reason)
                )
                revoked += answer.revoked
        output.done(f"{revoked} revoked", {"revoked": revoked})

    perform(output, work)


@login_app.command("unblock")
def unblock(
    user: UserOption = None,
    address: AddressOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Forgets failed logins of a user, an address, or both, so that they may try again."""
    output = Output(json)

    async def work() -> None:
        if user is None and address is None:
            raise Failure(ExitCode.USAGE, "say --user, --address, or both")
        forgotten = 0
        async with administrator(config, state) as admin:
            key, octets = await _filters(admin, user, address)
            for manager in admin.installation.connection_managers:
                answer = await admin.connection_manager(manager.name).ForgetFailures(
                    pb.ForgetFailuresRequest(user=key, client_address=octets)
                )
                forgotten += answer.forgotten
        what = "counter" if forgotten == 1 else "counters"
        output.done(f"{forgotten} {what} forgotten", {"forgotten": forgotten})

    perform(output, work)


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
    try:
        return key, ipaddress.ip_address(address).packed
    except ValueError:
        raise Failure(ExitCode.USAGE, f"{address} is not an IP address") from None


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
