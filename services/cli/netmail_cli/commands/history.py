"""`netmail login history`: what the audit logs of the Connection Managers say."""

import ipaddress
import json as jsonlib
from typing import Annotated, Any

import grpc
import typer
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.grpc_errors import error_reason

from netmail_cli.admin import Administrator
from netmail_cli.arguments import address_of, seconds_of
from netmail_cli.command import Call, asking
from netmail_cli.commands.logins import AddressOption
from netmail_cli.commands.users import find_user
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode

__all__ = ["history"]

_COLUMNS = ("time", "event", "user", "address", "details")
_IN_COLUMNS = frozenset({"time", "kind", "event", "user", "context", "address", "network"})

WhoArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="USER|IP",
        help="A name, name@context or address of a user, who may be gone; or an IP address.",
    ),
]
WithinOption = Annotated[
    str | None, typer.Option("--within", metavar="TIME", help="Look back so far: 90m, 12h, 7d.")
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=0, max=100_000, help="The newest that many; 0: all.")
]


@asking
async def history(
    call: Call,
    who: WhoArgument = None,
    address: AddressOption = None,
    within: WithinOption = None,
    limit: LimitOption = 100,
) -> None:
    """Says who logged in, relayed, was refused or revoked: of a user, of an IP address, or both."""
    user, octets = _who(who, address)
    seconds = _seconds(within)
    keys = [None] if user is None else await _keys(call.admin, user)
    requests = [
        pb.QueryAuditRequest(user=key, client_address=octets, within_seconds=seconds, limit=limit)
        for key in keys
    ]
    found = await _ask_all(call.admin, requests)
    newest = found[-limit:] if limit else found
    if call.output.json:
        call.output.data(newest)
    else:
        call.output.records("History", _COLUMNS, [_row(record) for record in newest])


def _who(who: str | None, address: str | None) -> tuple[str | None, bytes]:
    """The user's name, if any, and the address, if any."""
    if who is not None and address is None:
        try:
            return None, ipaddress.ip_address(who).packed
        except ValueError:
            return who, b""
    if address is None:
        raise Failure(ExitCode.USAGE, "say a user, --address, or both")
    return who, address_of(address).packed


def _seconds(within: str | None) -> int:
    if within is None:
        return 0
    return seconds_of(within, f"{within}: say --within as in 90m, 12h or 7d")


async def _keys(admin: Administrator, text: str) -> list[pb.UserKey]:
    """Whom TEXT means; who is gone, or known to other servers only, has a history too."""
    try:
        _, found = await find_user(admin, text, None)
    except Failure as failure:
        if failure.code is not ExitCode.NOT_FOUND:
            raise
    except grpc.aio.AioRpcError as error:
        if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            raise
    else:
        return [pb.UserKey(name=found.name, context=found.context)]
    contexts = [
        context.name
        for server in admin.installation.messaging_servers
        for context in server.contexts
    ]
    name, _, after = text.rpartition("@")
    if name and after in contexts:
        return [pb.UserKey(name=name, context=after)]
    return [pb.UserKey(name=text, context=context) for context in contexts or [""]]


async def _ask_all(
    admin: Administrator, requests: list[pb.QueryAuditRequest]
) -> list[dict[str, Any]]:
    """What every Connection Manager that keeps a log knows, oldest first."""
    found: list[dict[str, Any]] = []
    without: grpc.aio.AioRpcError | None = None
    asked = 0
    for manager in admin.installation.connection_managers:
        try:
            for request in requests:
                found.extend(await _ask(admin, manager.name, request))
        except grpc.aio.AioRpcError as error:
            if error_reason(error) != "NO_AUDIT_LOG":
                raise
            without = error
        else:
            asked += 1
    if without is not None and not asked:
        raise without
    return sorted(found, key=lambda record: str(record.get("time")))


async def _ask(
    admin: Administrator, manager: str, request: pb.QueryAuditRequest
) -> list[dict[str, Any]]:
    return [
        {**jsonlib.loads(record.json), "connection_manager": manager}
        async for page in admin.connection_manager(manager).QueryAudit(request)
        for record in page.records
    ]


def _row(record: dict[str, Any]) -> dict[str, Any]:
    user = record.get("user", "")
    context = record.get("context", "")
    return {
        "time": record["time"],
        "event": record["event"],
        "user": f"{user}@{context}" if context else user,
        "address": record.get("address", ""),
        "details": ", ".join(
            f"{name.replace('_', ' ')} {_text(value)}"
            for name, value in record.items()
            if name not in _IN_COLUMNS
        ),
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join("@".join(filter(None, one)) for one in value)
    return str(value)
