"""The directory of all contexts that a Messaging Server knows: own NMAP agent first."""

import asyncio
from collections.abc import Sequence

from netmail.nmap.v1 import directory_pb2, directory_pb2_grpc

from netmail_common.config import Installation
from netmail_common.logging import get_logger
from netmail_common.mail_address import AddressError, MailAddress, parse_domain
from netmail_common.nmap._authenticate import AuthenticateStream, Exchange, StreamBroken
from netmail_common.nmap._channels import NmapChannels
from netmail_common.nmap._resolve import Resolution, Resolver, resolve_at_owners
from netmail_common.sasl import (
    AuthenticatedUser,
    AuthFailed,
    AuthMalformed,
    AuthUnavailable,
    IPAddress,
    ScramOutcome,
    parse_client_first,
)

_log = get_logger(__name__)
_STREAM_ATTEMPTS = 2


def scram_offered(installation: Installation, server: str) -> bool:
    """Whether SCRAM may be offered: every context that SERVER knows keeps verifiers."""
    return all(
        context.backend == "internal"
        for reachable in installation.reachable_servers(server)
        for context in reachable.contexts
    )


class DirectoryClient:
    """Asks the own NMAP agent, then those of the other Messaging Servers in their order.

    A login name with the domain of a Messaging Server goes to that one's agent only. An agent that
    is asked and does not answer makes the login fail temporarily: the user could be his.
    Belongs to one event loop.

    Args:
        channels: of the Messaging Server that asks.
        timeout: seconds for one step of an exchange, the agent's restart included.
    """

    def __init__(self, channels: NmapChannels, *, timeout: float = 10.0) -> None:
        self._channels = channels
        self._timeout = timeout
        reachable = channels.installation.reachable_servers(channels.server)
        self._servers = tuple(server.name for server in reachable)
        self._owners = _owners(channels.installation, channels.server)
        self._streams = {
            name: AuthenticateStream(lambda name=name: self._stub(name), name)  # type: ignore[misc]
            for name in self._servers
        }
        self._resolvers = {
            name: Resolver(
                lambda name=name: self._stub(name),  # type: ignore[misc]
                server=name,
                asking=channels.server,
                timeout=timeout,
            )
            for name in self._servers
        }
        self._stubs: dict[str, directory_pb2_grpc.DirectoryServiceAsyncStub] = {}

    def use(self, installation: Installation) -> None:
        """Goes on with another configuration, of the same Messaging Servers at the same places."""
        self._channels.installation = installation
        self._owners = _owners(installation, self._channels.server)

    @property
    def scram_offered(self) -> bool:
        """Whether SCRAM may be offered to clients of this Messaging Server."""
        return scram_offered(self._channels.installation, self._channels.server)

    def owner_of(self, domain: str) -> str | None:
        """The Messaging Server, among those we reach, that has this domain."""
        return self._owners.get(domain)

    async def authenticate_password(
        self, username: str, password: str, *, service: str, client_address: IPAddress
    ) -> AuthenticatedUser:
        """Verifies a password. `username` is a bare name or one of the user's mail addresses.

        Raises: AuthFailed, AuthUnavailable.
        """
        start = directory_pb2.AuthenticateStart(
            mechanism=directory_pb2.MECHANISM_PASSWORD,
            username=username,
            password=password,
            messaging_server=self._channels.server,
            client_address=client_address.packed,
            service=service,
        )
        server, _, response = await self._ask_in_order(start, username)
        return _user(server, response)

    async def start_scram(
        self, client_first: bytes, *, service: str, client_address: IPAddress
    ) -> "ScramExchange":
        """Begins a SCRAM-SHA-256 exchange with the agent that has the user.

        Raises: AuthMalformed, AuthFailed, AuthUnavailable.
        """
        first = parse_client_first(client_first)
        start = directory_pb2.AuthenticateStart(
            mechanism=directory_pb2.MECHANISM_SCRAM_SHA_256,
            client_first=client_first,
            messaging_server=self._channels.server,
            client_address=client_address.packed,
            service=service,
        )
        server, exchange, response = await self._ask_in_order(start, first.username)
        return ScramExchange(self, server, exchange, response.data)

    async def resolve(self, addresses: Sequence[MailAddress], size: int = 0) -> list[Resolution]:
        """Looks up the recipients of one message; one result for each, in order.

        Args:
            addresses: any; those with foreign domains are NOT_LOCAL without a call.
            size: octets of the message as declared, 0 when unknown; for the quota.
        """
        return await resolve_at_owners(
            addresses, size, owner_of=self.owner_of, resolver_of=self._resolvers.__getitem__
        )

    async def close(self) -> None:
        """Ends the streams; exchanges under way fail with AuthUnavailable."""
        await asyncio.gather(*(stream.close() for stream in self._streams.values()))

    def _stub(self, name: str) -> "directory_pb2_grpc.DirectoryServiceAsyncStub":
        stub = self._stubs.get(name)
        if stub is None:
            stub = directory_pb2_grpc.DirectoryServiceStub(self._channels.for_server(name).raw)
            self._stubs[name] = stub
        return stub

    def _order(self, username: str) -> tuple[str, ...]:
        _, at, domain = username.rpartition("@")
        if not at:
            return self._servers
        try:
            owner = self.owner_of(parse_domain(domain))
        except AddressError:
            return self._servers
        return self._servers if owner is None else (owner,)

    async def _ask_in_order(
        self, start: directory_pb2.AuthenticateStart, username: str
    ) -> tuple[str, Exchange, directory_pb2.AuthenticateResponse]:
        order = self._order(username)
        for server in order:
            start.last = server == order[-1]
            exchange, response = await self._start_at(server, start)
            if response.outcome != directory_pb2.AUTHENTICATE_OUTCOME_UNKNOWN_USER:
                _raise_unless_good(response)
                return server, exchange, response
        raise AuthFailed

    async def _start_at(
        self, server: str, start: directory_pb2.AuthenticateStart
    ) -> tuple[Exchange, directory_pb2.AuthenticateResponse]:
        try:
            async with asyncio.timeout(self._timeout):
                for attempt in range(1, _STREAM_ATTEMPTS + 1):
                    exchange = self._streams[server].exchange()
                    try:
                        return exchange, await exchange.start(start)
                    except StreamBroken:
                        # Verifying a password twice does no harm.
                        if attempt == _STREAM_ATTEMPTS:
                            raise
        except (TimeoutError, StreamBroken) as error:
            _log.warning("directory does not answer", server=server)
            raise AuthUnavailable from error
        raise AuthUnavailable

    async def respond(
        self, server: str, exchange: Exchange, client_final: bytes
    ) -> directory_pb2.AuthenticateResponse:
        """Second step of a SCRAM exchange.

        Raises: AuthFailed, AuthMalformed, AuthUnavailable.
        """
        try:
            async with asyncio.timeout(self._timeout):
                response = await exchange.respond(client_final)
        except (TimeoutError, StreamBroken) as error:
            _log.warning("directory does not answer", server=server)
            raise AuthUnavailable from error
        _raise_unless_good(response)
        return response


class ScramExchange:
    """A SCRAM exchange under way with one NMAP agent."""

    def __init__(
        self, client: DirectoryClient, server: str, exchange: Exchange, server_first: bytes
    ) -> None:
        self._client = client
        self._server = server
        self._exchange = exchange
        self._server_first = server_first
        self._open = True

    @property
    def server_first(self) -> bytes:
        """The server-first-message."""
        return self._server_first

    async def finish(self, client_final: bytes) -> ScramOutcome:
        """Checks the client's proof.

        Raises: AuthFailed, AuthMalformed, AuthUnavailable.
        """
        self._open = False
        response = await self._client.respond(self._server, self._exchange, client_final)
        return ScramOutcome(_user(self._server, response), response.data)

    def cancel(self) -> None:
        """Forgets it; does nothing after `finish`."""
        if self._open:
            self._open = False
            self._exchange.cancel()


def _owners(installation: Installation, server: str) -> dict[str, str]:
    """The Messaging Server of each domain that SERVER reaches."""
    reachable = installation.reachable_servers(server)
    return {domain: one.name for one in reachable for domain in one.domains}


def _raise_unless_good(response: directory_pb2.AuthenticateResponse) -> None:
    match response.outcome:
        case directory_pb2.AUTHENTICATE_OUTCOME_OK | directory_pb2.AUTHENTICATE_OUTCOME_CONTINUE:
            return
        case directory_pb2.AUTHENTICATE_OUTCOME_INVALID_CREDENTIALS:
            user = response.user
            raise AuthFailed((user.name, user.context) if user.name else None)
        case directory_pb2.AUTHENTICATE_OUTCOME_MALFORMED:
            raise AuthMalformed
        case _:
            raise AuthUnavailable


def _user(server: str, response: directory_pb2.AuthenticateResponse) -> AuthenticatedUser:
    user = response.user
    return AuthenticatedUser(
        user_id=user.id,
        name=user.name,
        context=user.context,
        server=server,
        addresses=tuple(user.addresses),
        domains=tuple(response.domains),
        credential_epoch=user.credential_epoch,
    )
