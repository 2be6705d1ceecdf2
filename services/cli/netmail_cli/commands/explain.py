"""`netmail login explain`: what a client may do, and which rule says so."""

import ipaddress
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.nmap.v1 import directory_pb2
from netmail_common.address_ranges import AddressSet
from netmail_common.config import Installation, MessagingServerConfig
from netmail_common.mail_address import AddressError, MailAddress, parse_mail_address
from netmail_common.networks import Address

from netmail_cli.admin import Administrator
from netmail_cli.arguments import address_of
from netmail_cli.command import Call, asking
from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode

__all__ = ["explain"]


class Door(StrEnum):
    """Where a client wants in."""

    SMTP = "smtp"
    SUBMISSION = "submission"
    POP3 = "pop3"
    IMAP = "imap"


class Binding(StrEnum):
    """Which senders a login vouches for."""

    STRICT = "strict"
    DOMAIN = "domain"
    ANY = "any"


_DOORS = {
    Door.SMTP: pb.SERVICE_SMTP,
    Door.SUBMISSION: pb.SERVICE_SUBMISSION,
    Door.POP3: pb.SERVICE_POP3,
    Door.IMAP: pb.SERVICE_IMAP,
}
_BINDINGS = {
    Binding.STRICT: pb.SENDER_BINDING_STRICT,
    Binding.DOMAIN: pb.SENDER_BINDING_DOMAIN,
    Binding.ANY: pb.SENDER_BINDING_ANY,
}
_Place = tuple[str, MessagingServerConfig | None]
"""A Connection Manager's name, and a Messaging Server that asks it."""

AddressArgument = Annotated[str, typer.Argument(metavar="IP", help="The client's IP address.")]
SenderArgument = Annotated[
    str | None, typer.Argument(metavar="SENDER", help="The mail address that it sends as.")
]
ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="NAME", help="Only as this Messaging Server sees it."),
]
DoorOption = Annotated[Door, typer.Option("--service", help="Where the client connects.")]
BindingOption = Annotated[
    Binding | None,
    typer.Option("--binding", help="Default: sender_binding.after_login of the server."),
]


@asking
async def explain(
    call: Call,
    address: AddressArgument,
    sender: SenderArgument = None,
    server: ServerOption = None,
    service: DoorOption = Door.SMTP,
    binding: BindingOption = None,
) -> None:
    """Says whether a client may connect and relay: each rule in its order, and what it said."""
    client, sent_by = address_of(address), _sender(sender)
    records = [
        await _explain(call.admin, place, client, sent_by, service, binding)
        for place in _places(call.admin.installation, server)
    ]
    if call.output.json:
        call.output.data(records)
    else:
        call.output.done("\n\n".join("\n".join(_text(record)) for record in records))


def _sender(text: str | None) -> MailAddress | None:
    if text is None:
        return None
    try:
        return parse_mail_address(text)
    except AddressError as error:
        raise Failure(ExitCode.USAGE, f"{text} is not a mail address: {error}") from None


def _places(installation: Installation, server: str | None) -> list[_Place]:
    """Who asks whom. Raises: Failure when nobody does."""
    if server is not None and not any(one.name == server for one in installation.messaging_servers):
        raise Failure(ExitCode.NOT_FOUND, f"no messaging server is named {server}")
    places: list[_Place] = [
        (one.connection_manager, one)
        for one in installation.messaging_servers
        if one.connection_manager is not None and server in {None, one.name}
    ]
    if server is None:
        asked = {name for name, _ in places}
        places += [
            (one.name, None) for one in installation.connection_managers if one.name not in asked
        ]
    if not places:
        raise Failure(ExitCode.NOT_FOUND, "no Connection Manager is asked")
    return places


async def _explain(
    admin: Administrator,
    place: _Place,
    client: Address,
    sender: MailAddress | None,
    service: Door,
    binding: Binding | None,
) -> dict[str, Any]:
    manager, server = place
    stub = admin.connection_manager(manager)
    name = server.name if server is not None else ""
    connection = pb.ConnectionCheck(
        client_address=client.packed, service=_DOORS[service], messaging_server=name
    )
    connecting = (
        await stub.CheckConnection(pb.CheckConnectionRequest(items=[connection], explain=True))
    ).results[0]
    check = pb.SenderCheck(
        client_address=client.packed,
        senders=[sender.wire] if sender is not None else [],
        binding=_BINDINGS[binding or _binding_of(admin.installation, place)],
        messaging_server=name,
        owners=await _owners(admin, server, sender),
    )
    relaying = (await stub.CheckSender(pb.CheckSenderRequest(items=[check], explain=True))).results[
        0
    ]
    return {
        "connection_manager": manager,
        "messaging_server": name,
        "connecting": _connecting(connecting, service),
        "relaying": _relaying(relaying),
        "settings": _settings(server, client) if server is not None else [],
    }


def _binding_of(installation: Installation, place: _Place) -> Binding:
    manager, server = place
    if server is not None:
        return Binding(server.sender_binding.after_login.value)
    return Binding(installation.connection_manager(manager).postfix_policy.sender_binding)


async def _owners(
    admin: Administrator, server: MessagingServerConfig | None, sender: MailAddress | None
) -> list[pb.SenderOwner]:
    """Whose address the sender is, as the SMTP agent of SERVER would find out."""
    if server is None or sender is None:
        return []
    for holder in admin.installation.reachable_servers(server.name):
        if sender.domain in holder.domains:
            request = directory_pb2.ResolveRequest(
                addresses=[sender.wire], messaging_server=server.name
            )
            found = (await admin.directory(holder).Resolve(request)).results[0]
            return _owner(sender, found)
    return []


def _owner(sender: MailAddress, found: directory_pb2.Resolved) -> list[pb.SenderOwner]:
    if found.name and not found.catch_all:
        owner = pb.UserKey(name=found.name, context=found.context)
        return [pb.SenderOwner(address=sender.wire, owner=owner, known=True)]
    if found.name or found.outcome == directory_pb2.RESOLVE_OUTCOME_UNKNOWN_USER:
        return [pb.SenderOwner(address=sender.wire, known=True)]
    return []


def _settings(server: MessagingServerConfig, client: Address) -> list[str]:
    """What the SMTP agent's own settings say before anybody is asked."""
    lines = []
    networks = AddressSet(ipaddress.ip_network(text) for text in server.smtp.allowed_networks)
    if client in networks:
        lines.append("allowed_networks: relays without a login, on listeners that allow it")
    if not server.ube_relaying.smtp_after_pop:
        lines.append("ube_relaying.smtp_after_pop: off, so nobody is asked about logins")
    without = [one.name for one in server.smtp.listeners if not one.smtp_after_pop]
    if without and server.ube_relaying.smtp_after_pop:
        lines.append(f"smtp_after_pop: off on {', '.join(without)}; no login counts there")
    return lines


def _connecting(decision: pb.ConnectionDecision, service: Door) -> dict[str, Any]:
    verdict = pb.ConnectionVerdict.Name(decision.verdict).removeprefix("CONNECTION_VERDICT_")
    return {
        "service": service.value,
        "verdict": verdict.lower().replace("_", " "),
        "rule": decision.rule,
        "comment": decision.comment,
        "require_auth": decision.require_auth,
        "delay_seconds": decision.delay_ms / 1000,
        "deny_seconds": decision.deny_seconds,
        "explanation": list(decision.explanation),
    }


def _relaying(decision: pb.SenderDecision) -> dict[str, Any]:
    said = pb.Decision.Name(decision.decision).removeprefix("DECISION_")
    reason = pb.Reason.Name(decision.reason).removeprefix("REASON_")
    user = decision.user
    return {
        "decision": said.lower().replace("_", " "),
        "reason": reason.lower().replace("_", " "),
        "user": f"{user.name}@{user.context}" if user.name else "",
        "remaining_seconds": decision.remaining_seconds,
        "refused_sender": decision.refused_sender,
        "explanation": list(decision.explanation),
    }


def _text(record: dict[str, Any]) -> Iterator[str]:
    """For people."""
    server = record["messaging_server"] or "no Messaging Server"
    yield f"{server}, Connection Manager {record['connection_manager']}"
    connecting, relaying = record["connecting"], record["relaying"]
    yield _headline(
        f"connecting by {connecting['service']}: {connecting['verdict']}",
        f"by {connecting['rule']}" if connecting["rule"] else "",
        "must authenticate" if connecting["require_auth"] else "",
        connecting["comment"],
    )
    yield from _indented(connecting["explanation"])
    yield _headline(
        f"relaying: {relaying['decision']}",
        relaying["reason"],
        relaying["user"],
        f"{relaying['remaining_seconds']} s left" if relaying["remaining_seconds"] else "",
    )
    yield from _indented([*record["settings"], *relaying["explanation"]])


def _headline(*parts: str) -> str:
    return "  " + ", ".join(part for part in parts if part)


def _indented(lines: Sequence[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)
