"""A small IMAP client for tests: it keeps every untagged response, in order, and checks nothing."""

import re
import socket
from dataclasses import dataclass, field
from typing import BinaryIO

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)\r\n\Z", re.DOTALL)


class Refused(Exception):
    """NO or BAD."""


@dataclass
class ImapClient:
    """One connection."""

    connection: socket.socket
    reader: BinaryIO = field(init=False)
    number: int = 0

    @classmethod
    def connect(cls, port: int, host: str = "127.0.0.1") -> "ImapClient":
        """Connects and takes the greeting."""
        connection = socket.create_connection((host, port), 30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = cls(connection)
        assert client.response().startswith(b"* OK")
        return client

    def __post_init__(self) -> None:
        self.reader = self.connection.makefile("rb")

    def close(self) -> None:
        """Hangs up."""
        self.reader.close()
        self.connection.close()

    def response(self) -> bytes:
        """One response with its literals; empty: the server has closed."""
        line = whole = self.reader.readline()
        while literal := _LITERAL.search(line):
            whole += self.reader.read(int(literal[1]))
            line = self.reader.readline()
            whole += line
        return whole

    def send(self, command: str | bytes) -> str:
        """Sends a command and gives its tag."""
        self.number += 1
        tag = f"t{self.number}"
        octets = command.encode() if isinstance(command, str) else command
        self.connection.sendall(b"%b %b\r\n" % (tag.encode(), octets))
        return tag

    def finish(self, tag: str) -> tuple[list[bytes], bytes]:
        """Untagged responses up to the tagged one, and that one."""
        untagged: list[bytes] = []
        while True:
            response = self.response()
            assert response, "closed"
            if response.startswith(tag.encode() + b" "):
                return untagged, response
            untagged.append(response)

    def command(self, command: str | bytes) -> list[bytes]:
        """Untagged responses. Raises: Refused."""
        untagged, tagged = self.finish(self.send(command))
        if b" OK" not in tagged[:12]:
            raise Refused(tagged.decode(errors="replace"))
        return untagged

    def login(self, user: str, password: str) -> None:
        """Raises: Refused."""
        self.command(f"LOGIN {user} {password}")

    def append(self, mailbox: str, message: bytes, flags: str = "") -> list[bytes]:
        """APPEND with LITERAL+."""
        head = f"APPEND {mailbox} ({flags}) {{{len(message)}+}}\r\n".encode()
        return self.command(head + message)


def fetched(responses: list[bytes]) -> dict[int, bytes]:
    """What FETCH responses say, by sequence number."""
    matches = (_FETCH.match(response) for response in responses)
    return {int(match[1]): match[2] for match in matches if match}
