"""`netmail user ...` and `netmail context ...`."""

import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from netmail.nmap.v1 import directory_pb2 as pb
from netmail_common.config import MessagingServerConfig

from netmail_cli.admin import Administrator, administrator, pages
from netmail_cli.context import ConfigOption, Failure, JsonOption, Output, StateOption, perform
from netmail_cli.exit_codes import ExitCode

__all__ = ["UserArgument", "address_app", "context_app", "find_user", "user_app", "user_ref"]

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


@user_app.command("add")
def add(  # noqa: PLR0917 - typer reads options from parameters
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
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Makes a user."""
    output = Output(json)

    async def work() -> None:
        password = _new_password(password_stdin=password_stdin, generate=generate)
        async with administrator(config, state) as admin:
            where, server = _context_for_new_user(admin, context)
            answer = await admin.directory(server).CreateUser(
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
        if json:
            output.data(record)
        else:
            output.done(f"{name} is a user of {where}: {', '.join(answer.user.addresses)}")
            if generate:
                output.done(f"password: {password}")

    perform(output, work)


@user_app.command("list")
def list_users(
    context: ContextOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Lists the users of one context or of all."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            servers = [_holder(admin, context)] if context else admin.installation.messaging_servers
            records = [
                user_record(user)
                for server in servers
                async for user in _all_users(admin, server, context or "")
            ]
        output.records("Users", _COLUMNS, records)

    perform(output, work)


@user_app.command("show")
def show(
    user: UserArgument,
    context: ContextOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Shows a user."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            _, found = await find_user(admin, user, context)
        output.record(user_record(found))

    perform(output, work)


@user_app.command("passwd")
def passwd(
    user: UserArgument,
    context: ContextOption = None,
    password_stdin: PasswordOption = False,
    generate: GenerateOption = False,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Sets a user's password; ends the user's logins and sessions."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, context)
            password = _new_password(password_stdin=password_stdin, generate=generate)
            answer = await admin.directory(server).SetPassword(
                pb.SetPasswordRequest(user=user_ref(found), password=password)
            )
        record = user_record(answer.user)
        if generate:
            record["password"] = password
        text = f"password: {password}" if generate else f"{found.name} has a new password"
        output.done(text, record)

    perform(output, work)


@user_app.command("disable")
def disable(
    user: UserArgument,
    context: ContextOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Disables a user: no login, no mail; mailboxes stay."""
    _set_disabled(user, context, config, state, Output(json), disabled=True)


@user_app.command("enable")
def enable(
    user: UserArgument,
    context: ContextOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Enables a disabled user."""
    _set_disabled(user, context, config, state, Output(json), disabled=False)


@user_app.command("set")
def set_user(  # noqa: PLR0917 - typer reads options from parameters
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
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Sets a user's quota, or where the user's mail is forwarded."""
    output = Output(json)

    async def work() -> None:
        change = pb.UpdateUserRequest()
        if quota is not None:
            change.quota_bytes = quota
        if forward_to or no_forward:
            if forward_to and no_forward:
                raise Failure(ExitCode.USAGE, "--forward-to and --no-forward exclude each other")
            change.forward.CopyFrom(
                pb.ForwardSetting(forward_to=forward_to or [], keep_copy=keep_copy)
            )
        elif quota is None:
            raise Failure(ExitCode.USAGE, "say --quota, --forward-to or --no-forward")
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, context)
            change.user.CopyFrom(user_ref(found))
            answer = await admin.directory(server).UpdateUser(change)
        output.record(user_record(answer.user))

    perform(output, work)


@user_app.command("remove")
def remove(
    user: UserArgument,
    context: ContextOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Removes a user and all the user's mail."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, context)
            name = f"{found.name}@{found.context}"
            if not yes:
                if not sys.stdin.isatty():
                    raise Failure(ExitCode.USAGE, "say --yes to remove a user and all mail")
                typer.confirm(f"Remove {name} and all mail?", abort=True)
            await admin.directory(server).DeleteUser(pb.DeleteUserRequest(user=user_ref(found)))
        output.done(f"{name} is removed", user_record(found))

    perform(output, work)


@address_app.command("add")
def add_address(
    user: UserArgument,
    address: Annotated[str, typer.Argument(help="The mail address.")],
    context: ContextOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Gives a user one more mail address."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, context)
            answer = await admin.directory(server).AddAddress(
                pb.AddAddressRequest(user=user_ref(found), address=address)
            )
        output.done(
            f"{found.name} has {', '.join(answer.user.addresses)}", user_record(answer.user)
        )

    perform(output, work)


@address_app.command("remove")
def remove_address(
    user: UserArgument,
    address: Annotated[str, typer.Argument(help="The mail address.")],
    context: ContextOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Takes a mail address from a user."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, context)
            answer = await admin.directory(server).RemoveAddress(
                pb.RemoveAddressRequest(user=user_ref(found), address=address)
            )
        output.done(
            f"{found.name} has {', '.join(answer.user.addresses)}", user_record(answer.user)
        )

    perform(output, work)


@context_app.command("list")
def list_contexts(
    config: ConfigOption = None, state: StateOption = None, json: JsonOption = False
) -> None:
    """Lists the contexts of the installation."""
    output = Output(json)

    async def work() -> None:
        records: list[dict[str, Any]] = []
        async with administrator(config, state) as admin:
            for server in admin.installation.messaging_servers:
                answer = await admin.directory(server).ListContexts(pb.ListContextsRequest())
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
        output.records(
            "Contexts", ("name", "messaging_server", "backend", "users", "domains"), records
        )

    perform(output, work)


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


def _set_disabled(
    user: str,
    context: str | None,
    config: Path | None,
    state: Path | None,
    output: Output,
    *,
    disabled: bool,
) -> None:
    async def work() -> None:
        async with administrator(config, state) as admin:
            server, found = await find_user(admin, user, context)
            answer = await admin.directory(server).SetUserDisabled(
                pb.SetUserDisabledRequest(user=user_ref(found), disabled=disabled)
            )
        word = "disabled" if disabled else "enabled"
        output.done(f"{found.name}@{found.context} is {word}", user_record(answer.user))

    perform(output, work)


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


def _context_for_new_user(
    admin: Administrator, context: str | None
) -> tuple[str, MessagingServerConfig]:
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
