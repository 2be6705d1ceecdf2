"""Mail clients outside the cluster, with an address of their own.

They are ordinary clients of the standard library in the process of the test; only their sockets are
made in another network namespace.
"""

import imaplib
import poplib
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tests.support.other_network import inside

T = TypeVar("T")
_FURTHER_TRIES = 2
_DEAF_TO_REDIRECTS = """\
for one in /proc/sys/net/ipv4/conf/*/accept_redirects; do echo 0 > $one; done
echo there
exec sleep infinity
"""
"""A router before the nodes may tell a client on its own link which node is nearer (ICMP redirect),
and tells nobody when the pods have left it: for minutes the client would go on to send there."""


class Place(Protocol):
    """Where sockets are made."""

    def within(self, work: Callable[[], T]) -> T:
        """Calls WORK there."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program there."""

    def close(self) -> None:
        """Ends it."""


class HostNamespace:
    """This process's own."""

    def within(self, work: Callable[[], T]) -> T:
        """Calls WORK."""
        return work()

    def command(self, argv: Sequence[str]) -> list[str]:
        """As it is."""
        return list(argv)

    def close(self) -> None:
        """Nothing to end."""


@dataclass(slots=True)
class NamespaceOf:
    """That of a process which was started for it and waits."""

    prefix: list[str]
    process: "subprocess.Popen[str]"

    @classmethod
    def a_process(cls, prefix: list[str]) -> "NamespaceOf":
        """PREFIX: the command line that runs a program there."""
        process = subprocess.Popen(
            [*prefix, "sh", "-c", _DEAF_TO_REDIRECTS],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return cls(prefix, process)

    def within(self, work: Callable[[], T]) -> T:
        """Calls WORK in a thread of its own that is in the namespace."""
        return inside(f"/proc/{self.process.pid}/ns/net", work)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program there."""
        return [*self.prefix, *argv]

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


class _TlsSocket(ssl.SSLSocket):
    """Does not stay open when the server has reset the connection before the handshake began."""

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise ConnectionResetError("before the TLS handshake") from None


def unverified() -> ssl.SSLContext:
    """TLS without a look at the certificate: the installation's own CA made it."""
    context = ssl.create_default_context()
    context.sslsocket_class = _TlsSocket
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class Outside:
    """A client host outside the cluster."""

    address: str
    place: Place

    def connect(self, host: str, port: int, timeout: float = 30) -> socket.socket:
        """A TCP connection from this host's address.

        Tried again from another port when nobody answers: an agent for NetworkPolicies that has
        lost a packet may go on to drop all of that flow.
        """

        def connected(patience: float) -> socket.socket:
            return socket.create_connection((host, port), patience, (self.address, 0))

        for _ in range(_FURTHER_TRIES):
            with suppress(TimeoutError):
                made = self.place.within(lambda: connected(timeout / 3))
                made.settimeout(timeout)
                return made
        return self.place.within(lambda: connected(timeout))

    def reaches(self, host: str, port: int, timeout: float = 30) -> bool:
        """Whether somebody takes a connection from here."""
        try:
            self.connect(host, port, timeout).close()
        except OSError:
            return False
        return True

    def listen(self, port: int) -> socket.socket:
        """A listening socket on this host's address."""
        return self.place.within(lambda: socket.create_server((self.address, port), backlog=256))

    def datagrams(self) -> socket.socket:
        """A UDP socket bound to this host's address."""

        def bound() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((self.address, 0))
            return made

        return self.place.within(bound)

    def run(self, *argv: str, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Runs a program on this host; its result, whatever it is."""
        return subprocess.run(
            self.place.command(argv), capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """Starts a program on this host."""
        return subprocess.Popen(
            self.place.command(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def smtp(
        self, host: str, port: int = 25, *, starttls: bool = False, timeout: float = 30
    ) -> smtplib.SMTP:
        """An SMTP client after its EHLO."""
        outside = self

        class FromThere(smtplib.SMTP):
            def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
                return outside.connect(host, port, timeout)

        client = FromThere(host, port, local_hostname="client.example.com", timeout=timeout)
        try:
            client.ehlo()
            if starttls:
                client.starttls(context=unverified())
                client.ehlo()
        except BaseException:
            client.close()
            raise
        return client

    def smtps(self, host: str, port: int = 465, timeout: float = 30) -> smtplib.SMTP_SSL:
        """The same over implicit TLS."""
        outside = self

        class FromThere(smtplib.SMTP_SSL):
            def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
                return unverified().wrap_socket(outside.connect(host, port, timeout))

        client = FromThere(host, port, local_hostname="client.example.com", timeout=timeout)
        client.ehlo()
        return client

    def pop3(self, host: str, port: int = 995, timeout: float = 30) -> poplib.POP3_SSL:
        """A POP3 client over implicit TLS that has not logged in."""
        outside = self

        class FromThere(poplib.POP3_SSL):
            def _create_socket(self, timeout: float | None) -> socket.socket:
                raw = outside.connect(host, port, timeout or 30)
                return unverified().wrap_socket(raw, server_hostname=host)

        return FromThere(host, port, timeout=timeout, context=unverified())

    def imap(self, host: str, port: int = 993, timeout: float = 30) -> imaplib.IMAP4_SSL:
        """An IMAP client over implicit TLS that has not logged in."""
        outside = self

        class FromThere(imaplib.IMAP4_SSL):
            def _create_socket(self, timeout: float | None) -> socket.socket:
                raw = outside.connect(host, port, timeout or 30)
                return unverified().wrap_socket(raw, server_hostname=host)

        return FromThere(host, port, timeout=timeout, ssl_context=unverified())

    def close(self) -> None:
        """Ends what stands for the host."""
        self.place.close()
