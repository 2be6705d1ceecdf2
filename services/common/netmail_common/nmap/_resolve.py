"""Looking recipients up, each at the NMAP agent that owns its domain."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import grpc
from netmail.nmap.v1 import directory_pb2, directory_pb2_grpc

from netmail_common.connmgr.model import UserKey
from netmail_common.gather import Gatherer
from netmail_common.logging import get_logger
from netmail_common.mail_address import MailAddress

_log = get_logger(__name__)


class ResolveOutcome(Enum):
    """What becomes of mail to an address."""

    LOCAL = directory_pb2.RESOLVE_OUTCOME_LOCAL
    """A mailbox or a forwarding takes it."""
    UNKNOWN_USER = directory_pb2.RESOLVE_OUTCOME_UNKNOWN_USER
    """The domain is ours, the user is not: 550 5.1.1."""
    NOT_LOCAL = directory_pb2.RESOLVE_OUTCOME_NOT_LOCAL
    """Not a domain of a Messaging Server that we reach: relaying."""
    MAILBOX_FULL = directory_pb2.RESOLVE_OUTCOME_MAILBOX_FULL
    """452 4.2.2."""
    TEMPORARY_FAILURE = directory_pb2.RESOLVE_OUTCOME_TEMPORARY_FAILURE
    """Its NMAP agent does not answer: 451 4.3.0."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """One address, looked up.

    Attributes:
        outcome: what becomes of it.
        server: the Messaging Server whose domain it is; empty with NOT_LOCAL.
        user_id: with LOCAL, unique within the NMAP agent of `server`.
        name: with LOCAL, the user's name.
        context: with LOCAL, the user's context.
        catch_all: it is nobody's address; the user gets what nobody has.
    """

    outcome: ResolveOutcome
    server: str = ""
    user_id: int = 0
    name: str = ""
    context: str = ""
    catch_all: bool = False

    @property
    def owner(self) -> UserKey | None:
        """Whose address it is; None: nobody's, or nobody says."""
        return UserKey(self.name, self.context) if self.name and not self.catch_all else None

    @property
    def tells_owner(self) -> bool:
        """Whether `owner` is the directory's answer: None is then nobody."""
        return bool(self.name) or self.outcome is ResolveOutcome.UNKNOWN_USER


@dataclass(frozen=True, slots=True)
class Lookup:
    """The addresses of one message at one NMAP agent."""

    addresses: tuple[str, ...]
    size: int


class Resolver:
    """Looks addresses up at one NMAP agent; what waits goes together.

    Args:
        stub: gives the stub over the agent's channel.
        server: the Messaging Server that the agent belongs to.
        asking: the Messaging Server that asks.
        timeout: seconds for one call.
    """

    def __init__(
        self,
        stub: "Callable[[], directory_pb2_grpc.DirectoryServiceAsyncStub]",
        *,
        server: str,
        asking: str,
        timeout: float,
    ) -> None:
        self._stub = stub
        self._server = server
        self._asking = asking
        self._timeout = timeout
        self._gatherer: Gatherer[Lookup, list[Resolution]] = Gatherer(
            self._call, max_items=256, max_bytes=256 * 1024, size_of=_size_of, in_flight=1
        )

    async def resolve(self, lookup: Lookup) -> list[Resolution]:
        """One result for each address; TEMPORARY_FAILURE for all when the agent does not answer."""
        try:
            return await self._gatherer(lookup)
        except grpc.aio.AioRpcError as error:
            _log.warning("addresses not resolved", server=self._server, code=error.code().name)
            failed = Resolution(ResolveOutcome.TEMPORARY_FAILURE, self._server)
            return [failed] * len(lookup.addresses)

    async def _call(self, lookups: list[Lookup]) -> list[list[Resolution]]:
        request = directory_pb2.ResolveRequest(messaging_server=self._asking)
        for lookup in lookups:
            request.addresses.extend(lookup.addresses)
            request.sizes.extend([lookup.size] * len(lookup.addresses))
        # wait_for_ready: an agent that restarts makes a recipient wait, not fail.
        response = await self._stub().Resolve(request, timeout=self._timeout, wait_for_ready=True)
        results = iter(response.results)
        return [[self._read(next(results)) for _ in lookup.addresses] for lookup in lookups]

    def _read(self, result: directory_pb2.Resolved) -> Resolution:
        try:
            outcome = ResolveOutcome(result.outcome)
        except ValueError:
            outcome = ResolveOutcome.TEMPORARY_FAILURE
        if outcome is ResolveOutcome.NOT_LOCAL:
            return Resolution(outcome)
        return Resolution(
            outcome,
            self._server,
            result.user_id,
            result.name,
            result.context,
            catch_all=result.catch_all,
        )


async def resolve_at_owners(
    addresses: Sequence[MailAddress],
    size: int,
    *,
    owner_of: Callable[[str], str | None],
    resolver_of: Callable[[str], Resolver],
) -> list[Resolution]:
    """Sends each address to the agent that owns its domain, all agents at once.

    Args:
        addresses: of one message.
        size: octets of the message, 0 when unknown.
        owner_of: the Messaging Server of a domain.
        resolver_of: the resolver of a Messaging Server.
    """
    results = [Resolution(ResolveOutcome.NOT_LOCAL)] * len(addresses)
    places: dict[str, list[int]] = {}
    for index, address in enumerate(addresses):
        owner = owner_of(address.domain)
        if owner is not None:
            places.setdefault(owner, []).append(index)

    async def ask(owner: str, indexes: list[int]) -> None:
        lookup = Lookup(tuple(addresses[i].wire for i in indexes), size)
        for index, result in zip(indexes, await resolver_of(owner).resolve(lookup), strict=True):
            results[index] = result

    if len(places) == 1:
        ((owner, indexes),) = places.items()
        await ask(owner, indexes)
    else:
        await asyncio.gather(*(ask(owner, indexes) for owner, indexes in places.items()))
    return results


def _size_of(lookup: Lookup) -> int:
    return sum(map(len, lookup.addresses)) + 16 * len(lookup.addresses)
