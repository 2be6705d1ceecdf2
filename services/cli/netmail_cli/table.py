"""The one table that `netmail run` prints: what runs where, and what to try."""

import io
import ipaddress
import shlex
from collections.abc import Iterator
from pathlib import Path

from netmail_common.config import Installation, MessagingServerConfig, listener_certificate
from netmail_common.config._base import parse_host_port
from netmail_common.config.common import ListenerConfig
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_services", "service_rows"]

Row = tuple[str, str, str]

_ANY_WIDTH = 1000


def service_rows(installation: Installation, netmail: str) -> list[Row]:
    """Service, addresses, a command to paste; NETMAIL: how this command line is called."""
    return list(_rows(installation, netmail))


def print_services(installation: Installation, netmail: str, console: Console) -> None:
    """Prints the table. Commands stay in one piece: a narrow terminal wraps them, nothing else."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("service", "address", "what to try"):
        table.add_column(title, no_wrap=True, overflow="ignore")
    for row in service_rows(installation, netmail):
        table.add_row(*(Text(cell) for cell in row))
    wide = Console(file=io.StringIO(), width=_ANY_WIDTH)
    with wide.capture() as printed:
        wide.print(table, crop=False)
    for line in printed.get().splitlines():
        console.print(Text(line.rstrip().rstrip("─ ")), soft_wrap=True)


def _rows(installation: Installation, netmail: str) -> Iterator[Row]:
    state = installation.state_dir
    options = "" if state == Path("var") else f" --state {shlex.quote(str(state))}"
    for manager in installation.connection_managers:
        name = f"connmgr {manager.name}"
        yield (name, " ".join(manager.listen), f"{netmail} login list{options}")
        yield from _http(name, manager.http.listen)
    for server in installation.messaging_servers:
        name = f"nmap {server.name}"
        yield (name, " ".join(server.nmap.listen), f"{netmail} user list{options}")
        yield from _http(name, server.nmap.http.listen)
        yield from _listeners(installation, server, _user(installation, server))
        name = f"smtp deliver {server.name}"
        yield (name, "-", f"{netmail} queue list{options}")
        yield from _http(name, server.deliver.http.listen)
    for sink in installation.sinks:
        yield (f"sink {sink.name}", " ".join(sink.listen), f"ls {sink.directory}")


def _listeners(
    installation: Installation, server: MessagingServerConfig, user: str
) -> Iterator[Row]:
    own = f"{user.partition(':')[0]}@{server.domains[0]}"
    message = f"printf 'From: {own}\\r\\n\\r\\nhello\\r\\n'"
    for smtp in server.smtp.listeners:
        curl = _curl(installation, server, smtp, "smtp")
        command = f"{message} | {curl} -u {user} --mail-from {own} --mail-rcpt {own} -T -"
        yield (f"smtp {smtp.name} {server.name}", " ".join(smtp.listen), command)
    yield from _http(f"smtp serve {server.name}", server.smtp.http.listen)
    for mail in server.pop_imap.listeners:
        curl = _curl(installation, server, mail, mail.protocol)
        yield (f"{mail.name} {server.name}", " ".join(mail.listen), f"{curl} -u {user}")
    yield from _http(f"pop_imap {server.name}", server.pop_imap.http.listen)


def _curl(
    installation: Installation,
    server: MessagingServerConfig,
    listener: ListenerConfig,
    protocol: str,
) -> str:
    """Curl to a listener; with implicit TLS by a name that its certificate has."""
    target = parse_host_port(listener.listen[0])
    if listener.tls != "implicit":
        return f"curl -s {protocol}://{target}/"
    state = installation.state_dir
    if server.tls.certificate == listener_certificate(state, server.name)[0]:
        return f"curl -s --cacert {state / 'ca' / 'ca.pem'} {protocol}s://{target}/"
    resolve = f"--resolve {server.host_name}:{target.port}:{target.host}"
    return f"curl -s {resolve} {protocol}s://{server.host_name}:{target.port}/"


def _http(name: str, listen: str | None) -> Iterator[Row]:
    if listen is not None:
        yield (f"health, metrics {name}", listen, f"curl -s http://{listen}/metrics")


def _user(installation: Installation, server: MessagingServerConfig) -> str:
    """`name:password` of an initial user if only this machine can use it; else a name."""
    for context in server.contexts:
        for user in context.initial_users:
            if _loopback_only(installation):
                return f"{user.name}:{user.password.get_secret_value()}"
            return user.name
    return "USER"


def _loopback_only(installation: Installation) -> bool:
    for text in installation.all_listen_addresses():
        try:
            if not ipaddress.ip_address(parse_host_port(text).host).is_loopback:
                return False
        except ValueError:
            return False
    return True
