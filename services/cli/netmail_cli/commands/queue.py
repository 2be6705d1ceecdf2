"""`netmail queue ...`: mail that is under way to somewhere else."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol, TypeAlias

import grpc
import typer
from netmail.nmap.v1 import queue_pb2 as pb
from netmail.nmap.v1 import queue_pb2_grpc
from netmail_common.config import MessagingServerConfig

from netmail_cli.admin import Administrator, pages
from netmail_cli.command import Call, admin_command
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode

__all__ = ["queue_app"]

queue_app = typer.Typer(no_args_is_help=True, help="The queues of the NMAP agents.")


Stub: TypeAlias = "queue_pb2_grpc.QueueServiceAsyncStub"


class Changed(Protocol):
    """The answer to a change of the queue."""

    @property
    def changed(self) -> int:
        """How many messages."""


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


@admin_command(queue_app, "list")
async def list_queue(
    call: Call,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    server: ServerOption = None,
) -> None:
    """Lists the mail in the queues."""
    query = pb.QueueFilter(destination=destination, sender=sender)
    records = [
        _record(one.name, message)
        for one in _servers(call.admin, server)
        async for message in _messages(call.admin, one, query)
    ]
    if call.output.json:
        call.output.data(records)
        return
    rows = [{**r, "recipients": [_line(x) for x in r["recipients"]]} for r in records]
    call.output.records("Queue", _COLUMNS, rows)


@admin_command(queue_app, "show")
async def show(
    call: Call,
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="Message id of the queue.")],
    server: ServerOption = None,
) -> None:
    """Shows one message of the queue: recipients and header section."""
    for one in _servers(call.admin, server):
        answer = await _get(call.admin, one, message)
        if answer is not None:
            break
    else:
        raise Failure(ExitCode.NOT_FOUND, f"no queue has a message {message}")
    record = _record(one.name, answer.message)
    record["header"] = answer.header.decode("utf-8", "replace")
    if not call.output.json:
        record["recipients"] = [_line(recipient) for recipient in record["recipients"]]
        record["header"] = _printable(record["header"])
    call.output.record(record)


@admin_command(queue_app, "retry")
async def retry(
    call: Call,
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    server: ServerOption = None,
) -> None:
    """Makes deferred mail due now."""
    filters = _filters(messages, destination, sender, everything=everything)

    def change(queue: Stub, which: pb.QueueFilter) -> Awaitable[Changed]:
        return queue.RetryQueue(pb.RetryQueueRequest(filter=which))

    await _change(call, filters, server, change)


@admin_command(queue_app, "hold")
async def hold(
    call: Call,
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    server: ServerOption = None,
) -> None:
    """Keeps mail in the queue until it is released."""
    filters = _filters(messages, destination, sender, everything=everything)

    def change(queue: Stub, which: pb.QueueFilter) -> Awaitable[Changed]:
        return queue.HoldQueue(pb.HoldQueueRequest(filter=which))

    await _change(call, filters, server, change)


@admin_command(queue_app, "release")
async def release(
    call: Call,
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    server: ServerOption = None,
) -> None:
    """Releases held mail."""
    filters = _filters(messages, destination, sender, everything=everything)

    def change(queue: Stub, which: pb.QueueFilter) -> Awaitable[Changed]:
        return queue.ReleaseQueue(pb.ReleaseQueueRequest(filter=which))

    await _change(call, filters, server, change)


@admin_command(queue_app, "remove")
async def remove(
    call: Call,
    messages: MessagesArgument = None,
    destination: DestinationOption = "",
    sender: SenderOption = "",
    everything: AllOption = False,
    bounce: Annotated[
        bool, typer.Option("--bounce", help="Also tell the senders that it failed.")
    ] = False,
    server: ServerOption = None,
) -> None:
    """Removes mail from the queue."""
    filters = _filters(messages, destination, sender, everything=everything)

    def change(queue: Stub, which: pb.QueueFilter) -> Awaitable[Changed]:
        return queue.RemoveQueue(pb.RemoveQueueRequest(filter=which, bounce=bounce))

    await _change(call, filters, server, change)


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


async def _change(
    call: Call,
    filters: Sequence[pb.QueueFilter],
    server: str | None,
    change: Callable[[Stub, pb.QueueFilter], Awaitable[Changed]],
) -> None:
    if not filters:
        raise Failure(ExitCode.USAGE, "say which: message ids, --destination, --sender, --all")
    changed = 0
    for one in _servers(call.admin, server):
        for which in filters:
            changed += (await change(call.admin.queue(one), which)).changed
    if not changed and any(which.message_id for which in filters):
        raise Failure(ExitCode.NOT_FOUND, "no queue has such a message")
    call.output.done(f"{changed} changed", {"changed": changed})


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
