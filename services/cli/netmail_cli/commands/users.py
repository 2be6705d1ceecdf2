"""`netmail user ...` and `netmail context ...`."""

import secrets
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc
import typer
from netmail.nmap.v1 import directory_pb2 as pb
from netmail_common.config import MessagingServerConfig

from netmail_cli.admin import Administrator, pages
from netmail_cli.command import Call, admin_command
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode

__all__ = [
    "UserArgument",
    "address_app",
    "context_app",
    "context_for_new_user",
    "find_user",
    "user_app",
    "user_ref",
]

user_app = typer.Typer(no_args_is_help=True, help="Users of the contexts.")
address_app = typer.Typer(no_args_is_help=True, help="Mail addresses of a user.")
context_app = typer.Typer(no_args_is_help=True, help="Contexts: named sets of users.")
user_app.add_typer(address_app, name="address")

UserArgument = Annotated[
    str,
    typer.Argument(metavar="USER", help="alice, alice@users.demo (context) or a mail address."),
]
ContextOption = Annotated[
    str | None, typer.Option("--context", metavar="CONTEXT", help="Where the user is.")
]
PasswordOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
GenerateOption = Annotated[
    bool, typer.Option("--generate", help="Choose a random password and print it.")
]

_PAGE = 500
_COLUMNS = ("name", "context", "addresses", "disabled", "used_bytes", "quota_bytes")


@admin_command(user_app, "add")
async def add(
    call: Call,
    name: Annotated[str, typer.Argument(help="The new user's name.")],
    context: Annotated[
        str | None,
        typer.Option("--context", help="Default: the installation's only context."),
    ] = None,
    address: Annotated[
        list[str] | None, typer.Option("--address", help="A further mail address.")
    ] = None,
    quota: Annotated[int, typer.Option("--quota", help="Octets; 0: the default.")] = 0,
    password_stdin: PasswordOption = False,
    generate: GenerateOption = False,
) -> None:
    """Makes a user."""
    password = _new_password(password_stdin=password_stdin, generate=generate)
    where, server = context_for_new_user(call.admin, context)
    answer = await call.admin.directory(server).CreateUser(
        pb.CreateUserRequest(
            user=pb.UserRef(name=name, context=where),
            password=password,
            addresses=address or [],
            quota_bytes=quota,
        )
    )
    record = user_record(answer.user)
    if generate:
        record["password"] = password
    if call.output.json:
        call.output.data(record)
    else:
        call.output.done(f"{name} is a user of {where}: {', '.join(answer.user.addresses)}")
        if generate:
            call.output.done(f"password: {password}")


@admin_command(user_app, "list")
async def list_users(
    call: Call,
    context: ContextOption = None,
) -> None:
    """Lists the users of one context or of all."""
    admin = call.admin
    servers = [_holder(admin, context)] if context else admin.installation.messaging_servers
    records = [
        user_record(user)
        for server in servers
        async for user in _all_users(admin, server, context or "")
    ]
    call.output.records("Users", _COLUMNS, records)


@admin_command(user_app, "show")
async def show(
    call: Call,
    user: UserArgument,
    context: ContextOption = None,
) -> None:
    """Shows a user."""
    _, found = await find_user(call.admin, user, context)
    call.output.record(user_record(found))


@admin_command(user_app, "passwd")
async def passwd(
    call: Call,
    user: UserArgument,
    context: ContextOption = None,
    password_stdin: PasswordOption = False,
    generate: GenerateOption = False,
) -> None:
    """Sets a user's password; ends the user's logins and sessions."""
    server, found = await find_user(call.admin, user, context)
    password = _new_password(password_stdin=password_stdin, generate=generate)
    answer = await call.admin.directory(server).SetPassword(
        pb.SetPasswordRequest(user=user_ref(found), password=password)
    )
    record = user_record(answer.user)
    if generate:
        record["password"] = password
    text = f"password: {password}" if generate else f"{found.name} has a new password"
    call.output.done(text, record)


@admin_command(user_app, "disable")
async def disable(call: Call, user: UserArgument, context: ContextOption = None) -> None:
    """Disables a user: no login, no mail; mailboxes stay."""
    await _set_disabled(call, user, context, disabled=True)


@admin_command(user_app, "enable")
async def enable(call: Call, user: UserArgument, context: ContextOption = None) -> None:
    """Enables a disabled user."""
    await _set_disabled(call, user, context, disabled=False)


@admin_command(user_app, "set")
async def set_user(
    call: Call,
    user: UserArgument,
    context: ContextOption = None,
    quota: Annotated[int | None, typer.Option("--quota", help="Octets; 0: unlimited.")] = None,
    forward_to: Annotated[
        list[str] | None, typer.Option("--forward-to", help="Forward mail to this address.")
    ] = None,
    keep_copy: Annotated[
        bool, typer.Option("--keep-copy", help="Forwarded mail also stays in the mailbox.")
    ] = False,
    no_forward: Annotated[bool, typer.Option("--no-forward", help="Forward nothing.")] = False,
) -> None:
    """Sets a user's quota, or where the user's mail is forwarded."""
    change = pb.UpdateUserRequest()
    if quota is not None:
        change.quota_bytes = quota
    if forward_to or no_forward:
        if forward_to and no_forward:
            raise Failure(ExitCode.USAGE, "--forward-to and --no-forward exclude each other")
        change.forward.CopyFrom(pb.ForwardSetting(forward_to=forward_to or [], keep_copy=keep_copy))
    elif quota is None:
        raise Failure(ExitCode.USAGE, "say --quota, --forward-to or --no-forward")
    server, found = await find_user(call.admin, user, context)
    change.user.CopyFrom(user_ref(found))
    answer = await call.admin.directory(server).UpdateUser(change)
    call.output.record(user_record(answer.user))


@admin_command(user_app, "remove")
async def remove(
    call: Call,
    user: UserArgument,
    context: ContextOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Removes a user and all the user's mail."""
    server, found = await find_user(call.admin, user, context)
    name = f"{found.name}@{found.context}"
    if not yes:
        if not sys.stdin.isatty():
            raise Failure(ExitCode.USAGE, "say --yes to remove a user and all mail")
        typer.confirm(f"Remove {name} and all mail?", abort=True)
    await call.admin.directory(server).DeleteUser(pb.DeleteUserRequest(user=user_ref(found)))
    call.output.done(f"{name} is removed", user_record(found))


@admin_command(address_app, "add")
async def add_address(
    call: Call,
    user: UserArgument,
    address: Annotated[str, typer.Argument(help="The mail address.")],
    context: ContextOption = None,
) -> None:
    """Gives a user one more mail address."""
    server, found = await find_user(call.admin, user, context)
    answer = await call.admin.directory(server).AddAddress(
        pb.AddAddressRequest(user=user_ref(found), address=address)
    )
    call.output.done(
        f"{found.name} has {', '.join(answer.user.addresses)}", user_record(answer.user)
    )


@admin_command(address_app, "remove")
async def remove_address(
    call: Call,
    user: UserArgument,
    address: Annotated[str, typer.Argument(help="The mail address.")],
    context: ContextOption = None,
) -> None:
    """Takes a mail address from a user."""
    server, found = await find_user(call.admin, user, context)
    answer = await call.admin.directory(server).RemoveAddress(
        pb.RemoveAddressRequest(user=user_ref(found), address=address)
    )
    call.output.done(
        f"{found.name} has {', '.join(answer.user.addresses)}", user_record(answer.user)
    )


@admin_command(context_app, "list")
async def list_contexts(
    call: Call,
) -> None:
    """Lists the contexts of the installation."""
    records: list[dict[str, Any]] = []
    for server in call.admin.installation.messaging_servers:
        answer = await call.admin.directory(server).ListContexts(pb.ListContextsRequest())
        records += [
            {
                "name": context.name,
                "messaging_server": context.messaging_server,
                "backend": context.backend,
                "users": context.users,
                "domains": list(context.domains),
                "keeps_verifiers": context.keeps_verifiers,
            }
            for context in answer.contexts
            if context.messaging_server == server.name
        ]
    call.output.records(
        "Contexts", ("name", "messaging_server", "backend", "users", "domains"), records
    )


async def find_user(
    admin: Administrator, text: str, context: str | None
) -> tuple[MessagingServerConfig, pb.User]:
    """The user that TEXT means: a name, name@context or a mail address.

    Raises: Failure when there is none, or more than one.
    """
    name, _, after = text.rpartition("@")
    if context is None and name and after in _contexts(admin):
        text, context = name, after
    if context is not None:
        server = _holder(admin, context)
        return server, await _get_user(admin, server, text, context)
    if name:
        return await _find_by_address(admin, text, after)
    found = []
    for where, server in _contexts(admin).items():
        try:
            found.append((server, await _get_user(admin, server, text, where)))
        except Failure:
            continue
    if not found:
        raise Failure(ExitCode.NOT_FOUND, f"no context has a user {text}")
    if len(found) > 1:
        names = ", ".join(user.context for _, user in found)
        raise Failure(ExitCode.USAGE, f"{text} is a user of {names}: say --context")
    return found[0]


def user_record(user: pb.User) -> dict[str, Any]:
    """What programs get of a user."""
    return {
        "name": user.name,
        "context": user.context,
        "addresses": list(user.addresses),
        "disabled": user.disabled,
        "used_bytes": user.used_bytes,
        "quota_bytes": user.quota_bytes,
        "forward_to": list(user.forward_to),
        "keep_copy": user.keep_copy,
        "credential_epoch": user.credential_epoch,
    }


async def _set_disabled(call: Call, user: str, context: str | None, *, disabled: bool) -> None:
    server, found = await find_user(call.admin, user, context)
    answer = await call.admin.directory(server).SetUserDisabled(
        pb.SetUserDisabledRequest(user=user_ref(found), disabled=disabled)
    )
    word = "disabled" if disabled else "enabled"
    call.output.done(f"{found.name}@{found.context} is {word}", user_record(answer.user))


async def _find_by_address(
    admin: Administrator, address: str, domain: str
) -> tuple[MessagingServerConfig, pb.User]:
    for server in admin.installation.messaging_servers:
        if domain.lower() in server.domains:
            return server, await _get_user(admin, server, address, "")
    raise Failure(ExitCode.NOT_FOUND, f"no Messaging Server has the domain {domain}")


async def _get_user(
    admin: Administrator, server: MessagingServerConfig, name: str, context: str
) -> pb.User:
    request = pb.GetUserRequest(user=pb.UserRef(name=name, context=context))
    try:
        return (await admin.directory(server).GetUser(request)).user
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        where = f"{context} has no user" if context else "there is no user"
        raise Failure(ExitCode.NOT_FOUND, f"{where} {name}") from None


async def _all_users(
    admin: Administrator, server: MessagingServerConfig, context: str
) -> AsyncIterator[pb.User]:
    async for page in pages(
        lambda token: admin.directory(server).ListUsers(
            pb.ListUsersRequest(context=context, page_size=_PAGE, page_token=token)
        )
    ):
        for user in page.users:
            yield user


def _contexts(admin: Administrator) -> dict[str, MessagingServerConfig]:
    return {
        context.name: server
        for server in admin.installation.messaging_servers
        for context in server.contexts
    }


def _holder(admin: Administrator, context: str) -> MessagingServerConfig:
    try:
        return _contexts(admin)[context]
    except KeyError:
        raise Failure(ExitCode.NOT_FOUND, f"there is no context {context}") from None


def context_for_new_user(
    admin: Administrator, context: str | None
) -> tuple[str, MessagingServerConfig]:
    """CONTEXT, or the only one there is, and whose it is. Raises: Failure."""
    if context is not None:
        return context, _holder(admin, context)
    contexts = _contexts(admin)
    if len(contexts) > 1:
        raise Failure(ExitCode.USAGE, f"say --context, one of {', '.join(contexts)}")
    return next(iter(contexts.items()))


def user_ref(user: pb.User) -> pb.UserRef:
    """How requests name a user that was found."""
    return pb.UserRef(name=user.name, context=user.context)


def _new_password(*, password_stdin: bool, generate: bool) -> str:
    if generate:
        return secrets.token_urlsafe(15)
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    else:
        raise Failure(ExitCode.USAGE, "say --password-stdin or --generate")
    if not password:
        raise Failure(ExitCode.USAGE, "the password is empty")
    return password
