"""A client that speaks line by line, prints what both sides say, and knows what it expects."""

import base64
import re
import socket
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.text import Text

__all__ = ["Dialogue", "Differs", "Place"]

_TIMEOUT = 30.0


class Differs(Exception):
    """What happened is not what the design says."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect to, and as whom to be seen."""

    host: str
    port: int
    source: str
    """The client's own address."""


class Dialogue:
    """One connection.

    Args:
        place: where from and where to.
        console: gets both sides' lines.
    """

    def __init__(self, place: Place, console: Console) -> None:
        self._console = console
        try:
            self._socket: socket.socket = socket.create_connection(
                (place.host, place.port), _TIMEOUT, source_address=(place.source, 0)
            )
        except OSError as error:
            raise Differs(f"cannot connect to {place.host}:{place.port}: {error}") from error
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def say(self, line: str, expected: str, *, shown: str | None = None) -> list[str]:
        """Sends LINE; the whole reply must match the regular expression EXPECTED.

        Args:
            line: without its end.
            expected: for the last line of an SMTP reply, or the one line of others.
            shown: printed instead of LINE.

        Raises: Differs.
        """
        self._print("C", shown or line, "cyan")
        self._socket.sendall(line.encode() + b"\r\n")
        return self.expect(expected)

    def expect(self, expected: str) -> list[str]:
        """Reads a reply. Raises: Differs."""
        lines = [self._line()]
        while re.match(r"[0-9]{3}-", lines[-1]) or (
            lines[-1].startswith("* ") and not re.search(expected, lines[-1])
        ):
            lines.append(self._line())
        if not any(re.search(expected, line) for line in lines):
            raise Differs(f"expected {expected!r}, got {lines[-1]!r}")
        return lines

    def send_text(self, lines: list[str]) -> None:
        """Sends lines of a message, and the final dot."""
        for line in [*lines, "."]:
            self._print("C", line, "cyan")
        stuffed = [f".{line}" if line.startswith(".") else line for line in lines]
        self._socket.sendall("".join(f"{line}\r\n" for line in [*stuffed, "."]).encode())

    def read_text(self) -> list[str]:
        """Reads lines up to a final dot."""
        lines = []
        while (line := self._line()) != ".":
            lines.append(line)
        return lines

    def start_tls(self, context: ssl.SSLContext, host_name: str) -> None:
        """Wraps the connection. Raises: Differs when the certificate is not good."""
        try:
            self._socket = context.wrap_socket(self._socket, server_hostname=host_name)
        except (ssl.SSLError, OSError) as error:
            raise Differs(f"TLS: {error}") from error
        self._print("-", f"{self._socket.version()} with {host_name}", "magenta")

    def _line(self) -> str:
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise Differs(f"no answer: {error}") from error
            if not data:
                raise Differs("the server closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        self._print("S", text, "green")
        return text

    def _print(self, side: str, line: str, colour: str) -> None:
        self._console.print(Text(f"  {side}: {line}", style=colour), soft_wrap=True)


def plain(user: str, password: str) -> str:
    """The initial response of SASL PLAIN (RFC 4616)."""
    return base64.b64encode(f"\0{user}\0{password}".encode()).decode()
