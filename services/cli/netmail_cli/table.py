"""The one table that `netmail run` prints: what runs where, and what to try."""

import ipaddress
import shlex
from collections.abc import Iterator
from pathlib import Path

from netmail_common.config import Installation, MessagingServerConfig
from netmail_common.config._base import parse_host_port
from netmail_common.config.common import ListenerConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_services", "service_rows"]

Row = tuple[str, str, str]


def service_rows(installation: Installation, netmail: str) -> list[Row]:
    """Service, addresses, a command to paste; NETMAIL: how this command line is called."""
    return list(_rows(installation, netmail))


def print_services(installation: Installation, netmail: str, console: Console) -> None:
    """Prints the table; commands are not broken, whatever the terminal's width."""
    table = Table(title=f"NetMail: {installation.installation}", title_justify="left")
    for title in ("service", "address", "what to try"):
        table.add_column(title, no_wrap=True, overflow="ignore")
    for row in service_rows(installation, netmail):
        table.add_row(*(Text(cell) for cell in row))
    width = console.measure(table, options=console.options.update(width=1000)).maximum
    wide = Console(file=console.file, width=max(console.width, width), soft_wrap=False)
    wide.print(table, crop=False)


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
        yield from _listeners(server, _user(installation, server), state / "ca" / "ca.pem")
        name = f"smtp deliver {server.name}"
        yield (name, "-", f"{netmail} queue list{options}")
        yield from _http(name, server.deliver.http.listen)
    for sink in installation.sinks:
        yield (f"sink {sink.name}", " ".join(sink.listen), f"ls {sink.directory}")


def _listeners(server: MessagingServerConfig, user: str, ca: Path) -> Iterator[Row]:
    own = f"{user.partition(':')[0]}@{server.domains[0]}"
    message = f"printf 'From: {own}\\r\\n\\r\\nhello\\r\\n'"
    for smtp in server.smtp.listeners:
        curl = _curl(smtp, "smtp", server, user, ca)
        command = f"{message} | {curl} --mail-from {own} --mail-rcpt {own} -T -"
        yield (f"smtp {smtp.name} {server.name}", " ".join(smtp.listen), command)
    yield from _http(f"smtp serve {server.name}", server.smtp.http.listen)
    for mail in server.pop_imap.listeners:
        curl = _curl(mail, mail.protocol, server, user, ca)
        yield (f"{mail.protocol} {mail.name} {server.name}", " ".join(mail.listen), curl)
    yield from _http(f"pop_imap {server.name}", server.pop_imap.http.listen)


def _curl(
    listener: ListenerConfig, protocol: str, server: MessagingServerConfig, user: str, ca: Path
) -> str:
    """Curl as USER; over TLS by the name in the certificate, which our own CA may have made."""
    target = parse_host_port(listener.listen[0])
    if listener.tls != "implicit":
        return f"curl -s -u {user} {protocol}://{target}/"
    trust = f"--cacert {ca} " if ca.exists() else ""
    resolve = f"--resolve {server.host_name}:{target.port}:{target.host}"
    return f"curl -s {trust}{resolve} -u {user} {protocol}s://{server.host_name}:{target.port}/"


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
