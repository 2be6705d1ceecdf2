"""`netmail queue ...`: mail that is under way to somewhere else."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import grpc
import typer
from netmail.nmap.v1 import queue_pb2 as pb
from netmail_common.config import MessagingServerConfig

from netmail_cli.admin import Administrator, administrator, pages
from netmail_cli.context import ConfigOption, Failure, JsonOption, Output, StateOption, perform
from netmail_cli.exit_codes import ExitCode

__all__ = ["queue_app"]

queue_app = typer.Typer(no_args_is_help=True, help="The queues of the NMAP agents.")

Verb = Literal["retry", "hold", "release", "remove"]
MessagesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[MESSAGE]...", help="Message ids of the queue.")
]
DestinationOption = Annotated[
    str, typer.Option("--destination", metavar="DOMAIN", help="Mail to this domain.")
]
SenderOption = Annotated[
    str, typer.Option("--sender", metavar="ADDRESS", help="Mail of this envelope sender.")
]
AllOption = Annotated[bool, typer.Option("--all", help="Everything.")]
ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="NAME", help="The queue of this Messaging Server only."),
]

_PAGE = 500
_COLUMNS = ("message", "server", "sender", "recipients", "age_seconds", "size")
_STATES = {
    pb.QUEUE_STATE_READY: "ready",
    pb.QUEUE_STATE_LEASED: "under way",
    pb.QUEUE_STATE_DEFERRED: "deferred",
    pb.QUEUE_STATE_HELD: "held",
}


@queue_app.command("list")
def list_queue(
    destination: DestinationOption = "",
    sender: SenderOption = "",
    server: ServerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Lists the mail in the queues."""
    output = Output(json)

    async def work() -> None:
        query = pb.QueueFilter(destination=destination, sender=sender)
        async with administrator(config, state) as admin:
            records = [
                _record(one.name, message)
                for one in _servers(admin, server)
                async for message in _messages(admin, one, query)
            ]
        if json:
            output.data(records)
            return
        rows = [{**r, "recipients": [_line(x) for x in r["recipients"]]} for r in records]
        output.records("Queue", _COLUMNS, rows)

    perform(output, work)


@queue_app.command("show")
def show(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="Message id of the queue.")],
    server: ServerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Shows one message of the queue: recipients and header section."""
    output = Output(json)

    async def work() -> None:
        async with administrator(config, state) as admin:
            for one in _servers(admin, server):
                answer = await _get(admin, one, message)
                if answer is not None:
                    break
            else:
                raise Failure(ExitCode.NOT_FOUND, f"no queue has a message {message}")
        record = _record(one.name, answer.message)
        record["header"] = answer.header.decode("utf-8", "replace")
        if not json:
            record["recipients"] = [_line(recipient) for recipient in record["recipients"]]
            record["header"] = _printable(record["header"])
        output.record(record)

    perform(output, work)


@queue_app.command("retry")
def retry(
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    server: ServerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Makes deferred mail due now."""
    filters = _filters(messages, destination, sender, everything=everything)
    _change("retry", filters, server, config, state, Output(json))


@queue_app.command("hold")
def hold(
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    server: ServerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Keeps mail in the queue until it is released."""
    filters = _filters(messages, destination, sender, everything=everything)
    _change("hold", filters, server, config, state, Output(json))


@queue_app.command("release")
def release(
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    server: ServerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Releases held mail."""
    filters = _filters(messages, destination, sender, everything=everything)
    _change("release", filters, server, config, state, Output(json))


@queue_app.command("remove")
def remove(  # noqa: PLR0917 - typer reads options from parameters
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    bounce: Annotated[
        bool, typer.Option("--bounce", help="Also tell the senders that it failed.")
    ] = False,
    server: ServerOption = None,
    config: ConfigOption = None,
    state: StateOption = None,
    json: JsonOption = False,
) -> None:
    """Removes mail from the queue."""
    filters = _filters(messages, destination, sender, everything=everything)
    _change("remove", filters, server, config, state, Output(json), bounce=bounce)


def _filters(
    messages: Sequence[str] | None, destination: str, sender: str, *, everything: bool
) -> list[pb.QueueFilter]:
    if messages:
        return [
            pb.QueueFilter(message_id=m, destination=destination, sender=sender) for m in messages
        ]
    if destination or sender or everything:
        return [pb.QueueFilter(destination=destination, sender=sender, all=everything)]
    return []


def _change(
    verb: Verb,
    filters: Sequence[pb.QueueFilter],
    server: str | None,
    config: Path | None,
    state: Path | None,
    output: Output,
    *,
    bounce: bool = False,
) -> None:
    async def work() -> None:
        if not filters:
            raise Failure(ExitCode.USAGE, "say which: message ids, --destination, --sender, --all")
        changed = 0
        async with administrator(config, state) as admin:
            for one in _servers(admin, server):
                for query in filters:
                    changed += await _change_in(admin, one, verb, query, bounce=bounce)
        if not changed and any(query.message_id for query in filters):
            raise Failure(ExitCode.NOT_FOUND, "no queue has such a message")
        output.done(f"{changed} changed", {"changed": changed})

    perform(output, work)


async def _change_in(
    admin: Administrator,
    server: MessagingServerConfig,
    verb: Verb,
    query: pb.QueueFilter,
    *,
    bounce: bool,
) -> int:
    queue = admin.queue(server)
    match verb:
        case "retry":
            return (await queue.RetryQueue(pb.RetryQueueRequest(filter=query))).changed
        case "hold":
            return (await queue.HoldQueue(pb.HoldQueueRequest(filter=query))).changed
        case "release":
            return (await queue.ReleaseQueue(pb.ReleaseQueueRequest(filter=query))).changed
        case "remove":
            request = pb.RemoveQueueRequest(filter=query, bounce=bounce)
            return (await queue.RemoveQueue(request)).changed


def _servers(admin: Administrator, name: str | None) -> Sequence[MessagingServerConfig]:
    if name is None:
        return admin.installation.messaging_servers
    try:
        return [admin.installation.messaging_server(name)]
    except KeyError:
        raise Failure(ExitCode.NOT_FOUND, f"there is no Messaging Server {name}") from None


async def _messages(
    admin: Administrator, server: MessagingServerConfig, query: pb.QueueFilter
) -> AsyncIterator[pb.QueueMessage]:
    async for page in pages(
        lambda token: admin.queue(server).ListQueue(
            pb.ListQueueRequest(filter=query, page_size=_PAGE, page_token=token)
        )
    ):
        for message in page.messages:
            yield message


async def _get(
    admin: Administrator, server: MessagingServerConfig, message_id: str
) -> pb.GetQueueMessageResponse | None:
    try:
        return await admin.queue(server).GetQueueMessage(
            pb.GetQueueMessageRequest(message_id=message_id)
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def _record(server: str, message: pb.QueueMessage) -> dict[str, Any]:
    return {
        "message": message.message_id,
        "server": server,
        "sender": message.sender,
        "relayed_for": message.relayed_for,
        "size": message.size,
        "age_seconds": message.age_seconds,
        "recipients": [
            {
                "address": recipient.address,
                "destination": recipient.destination,
                "state": _STATES.get(recipient.state, "unknown"),
                "attempts": recipient.attempts,
                "due_in_seconds": recipient.due_in_seconds,
                "last_status": recipient.last_status,
                "last_diagnostic": recipient.last_diagnostic,
            }
            for recipient in message.recipients
        ],
    }


def _line(recipient: dict[str, Any]) -> str:
    text = f"{recipient['address']}: {recipient['state']}"
    if recipient["attempts"]:
        text += f", {recipient['attempts']} attempts, next in {recipient['due_in_seconds']} s"
    if recipient["last_diagnostic"]:
        text += f", {_printable(recipient['last_diagnostic'])}"
    return text


def _printable(text: str) -> str:
    """Text from outside without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text.replace("\r\n", "\n"))
