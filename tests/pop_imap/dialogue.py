r"""Scripted sessions: a text file plays a client against a real agent.

    # the sentence about behaviour
    =message            the lines after it that begin with `| ` are delivered to the user's INBOX
    =connect pop3       connects to the listener of that name; a further one is another client
    =use 1              goes on with the first client
    =tls                begins TLS on the connection
    =closed             the server has closed
    =hangup             the client closes without a word
    =flood 20000        sends that many octets without a line end
    =retry PASS x       USER and this, again while the answer is [IN-USE]; its reply stays unread
    > USER {user}       sends a line
    >> a\r\nb           sends octets as they are
    >64 \0{user}\0x     sends a line, base64 of it
    < +OK*              expects a line; `*` is anything
    <...                passes over lines until the next expected one

`{user}` is a user of the script's own, `{password}` his password.
"""

import base64
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

from tests.pop_imap.agents import PASSWORD, Agents

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|(.))")
_PLAIN = {"r": "\r", "n": "\n", "0": "\0", "\\": "\\"}


def unescaped(text: str) -> bytes:
    r"""Octets of a text with \r, \n, \0, \\ and \xNN."""

    def replace(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else _PLAIN[match[2]]

    return _ESCAPE.sub(replace, text).encode("latin-1")


def matches(pattern: str, line: str) -> bool:
    """Whether a line is what was expected."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), line) is not None


@dataclass
class Client:
    """One connection."""

    connection: socket.socket
    reader: BinaryIO = field(init=False)
    unread: str | None = None

    def __post_init__(self) -> None:
        self.reader = self.connection.makefile("rb")

    def line(self) -> str | None:
        """The next line without its CRLF; None: the server has closed."""
        if self.unread is not None:
            unread, self.unread = self.unread, None
            return unread
        try:
            line = self.reader.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        assert line.endswith(b"\r\n"), f"a line without CRLF: {line!r}"
        return line[:-2].decode("utf-8", "replace")

    def begin_tls(self) -> None:
        """Shakes hands; whose certificate it is does not matter here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.reader.close()
        self.connection = context.wrap_socket(self.connection)
        self.reader = self.connection.makefile("rb")

    def close(self) -> None:
        """Hangs up."""
        self.reader.close()
        self.connection.close()


@dataclass
class Player:
    """Plays one script."""

    agents: Agents
    user: str
    clients: list[Client] = field(default_factory=list)
    current: Client | None = None

    def play(self, script: Path) -> None:
        """Raises: AssertionError with the script's line."""
        try:
            for number, line in _lines(script):
                try:
                    self._step(line)
                except (AssertionError, OSError) as error:
                    raise AssertionError(f"{script.name}:{number}: {line}\n{error}") from error
        finally:
            for client in self.clients:
                client.close()

    def _step(self, line: str) -> None:
        line = line.replace("{user}", self.user).replace("{password}", PASSWORD)
        word, _, rest = line.partition(" ")
        step = self._STEPS.get(word)
        assert step is not None, "no such step"
        step(self, rest)

    def _message(self, rest: str) -> None:
        self.agents.deliver(self.user, unescaped(rest))

    def _use(self, rest: str) -> None:
        self.current = self.clients[int(rest) - 1]

    def _tls(self, _rest: str) -> None:
        self._client.begin_tls()

    def _closed(self, _rest: str) -> None:
        left = self._client.line()
        assert left is None, f"not closed but: {left}"

    def _hangup(self, _rest: str) -> None:
        self._client.close()

    def _flood(self, rest: str) -> None:
        self._client.connection.sendall(b"x" * int(rest))

    def _send_line(self, rest: str) -> None:
        self._client.connection.sendall(unescaped(rest) + b"\r\n")

    def _send_octets(self, rest: str) -> None:
        self._client.connection.sendall(unescaped(rest))

    def _send_base64(self, rest: str) -> None:
        self._client.connection.sendall(base64.b64encode(unescaped(rest)) + b"\r\n")

    def _expect(self, pattern: str) -> None:
        got = self._client.line()
        assert got is not None, "closed"
        assert matches(pattern, got), f"got: {got}"

    def _skip_to(self, pattern: str) -> None:
        while (got := self._client.line()) is not None:
            if matches(pattern, got):
                return
        raise AssertionError("closed")

    def _retry(self, line: str) -> None:
        """The server may learn a moment later than we that another client has hung up."""
        deadline = time.monotonic() + 10
        while True:
            self._client.connection.sendall(unescaped(line) + b"\r\n")
            reply = self._client.line()
            if reply is None or not reply.startswith("-ERR [IN-USE]"):
                self._client.unread = reply
                return
            assert time.monotonic() < deadline, "still in use"
            time.sleep(0.05)
            self._client.connection.sendall(f"USER {self.user}\r\n".encode())
            assert self._client.line() == "+OK send PASS"

    @property
    def _client(self) -> Client:
        assert self.current is not None, "connect first"
        return self.current

    def _connect(self, listener: str) -> None:
        connection = socket.create_connection(("127.0.0.1", self.agents.port(listener)), 20)
        self.current = Client(connection)
        self.clients.append(self.current)

    _STEPS: ClassVar[dict[str, Callable[["Player", str], None]]] = {
        "=message": _message,
        "=connect": _connect,
        "=use": _use,
        "=tls": _tls,
        "=closed": _closed,
        "=hangup": _hangup,
        "=flood": _flood,
        "=retry": _retry,
        ">": _send_line,
        ">>": _send_octets,
        ">64": _send_base64,
        "<": _expect,
        "<...": _skip_to,
    }


def _lines(script: Path) -> Iterator[tuple[int, str]]:
    """Steps with their line numbers; a =message step has its lines joined."""
    message: list[str] | None = None
    start = 0
    for number, line in enumerate(script.read_text(encoding="utf-8").splitlines(), 1):
        if message is not None:
            if line.startswith("|"):
                message.append(line[2:] + "\\r\\n")
                continue
            yield start, "=message " + "".join(message)
            message = None
        if line == "=message":
            start, message = number, []
        elif line and not line.startswith("#"):
            yield number, line
    assert message is None, "a message at the end is seen by nobody"
