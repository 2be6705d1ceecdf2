"""The parts of the gRPC service that are about which addresses arrive."""
# ruff: noqa: ARG002 - the API names methods and parameters

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail.connmgr.v1 import connmgr_pb2_grpc
from netmail_common.grpc_errors import RpcError
from netmail_common.networks import NetworkMap

from netmail_connmgr.adapters.memory_store import boot_time
from netmail_connmgr.domain.clients import ClientBook, Seen
from netmail_connmgr.domain.cluster_networks import ClusterNetworks, Kind
from netmail_connmgr.domain.probe import ProbeTokens

__all__ = ["AddressDesk", "AddressMethods"]

_MAX_CLIENTS = 1000
_MAX_LISTENERS = 256
_DESCRIBED = 100
"""Networks of a kind, and clients of a listener, that an answer lists."""


@dataclass(slots=True)
class AddressDesk:
    """What is known about addresses.

    Attributes:
        networks: gives the map of this moment.
        cluster: gives what is known of the cluster.
        tokens: for people outside.
        learns: whether the cluster is asked.
    """

    networks: Callable[[], NetworkMap]
    cluster: Callable[[], ClusterNetworks]
    tokens: ProbeTokens
    learns: bool = False
    clients: ClientBook = field(default_factory=ClientBook)
    clock: Callable[[], float] = boot_time
    wall: Callable[[], float] = time.time


class AddressMethods(connmgr_pb2_grpc.ConnectionManagerServiceServicer):
    """ReportClients, AnswerProbe and DescribeAddresses.

    Attributes:
        addresses: what they answer from; None: nothing is known.
    """

    addresses: AddressDesk | None = None

    async def ReportClients(
        self, request: pb.ReportClientsRequest, context: object
    ) -> pb.ReportClientsResponse:
        """Counts where clients came from."""
        if len(request.listeners) > _MAX_LISTENERS or any(
            len(one.clients) > _MAX_CLIENTS for one in request.listeners
        ):
            raise _invalid("TOO_MANY_ITEMS", f"at most {_MAX_CLIENTS} clients of a listener")
        if self.addresses is not None:
            now = self.addresses.clock()
            for one in request.listeners:
                counts = {client.client_address: client.connections for client in one.clients}
                if any(len(address) not in {4, 16} for address in counts):
                    raise _invalid("BAD_ADDRESS", "an address has 4 or 16 octets")
                seen = Seen(counts, one.others)
                self.addresses.clients.add((one.messaging_server, one.listener), seen, now)
        return pb.ReportClientsResponse()

    async def AnswerProbe(
        self, request: pb.AnswerProbeRequest, context: object
    ) -> pb.AnswerProbeResponse:
        """Says what an address that arrived is worth."""
        desk = self.addresses
        if desk is None or not desk.tokens.knows(request.token, desk.wall()):
            raise RpcError(grpc.StatusCode.NOT_FOUND, "NO_SUCH_TOKEN", "the token is none of ours")
        try:
            located = desk.networks().locate(request.client_address)
        except ValueError:
            raise _invalid("BAD_ADDRESS", "an address has 4 or 16 octets") from None
        return pb.AnswerProbeResponse(grants=located.grants, standing=located.standing.value)

    async def DescribeAddresses(
        self, request: pb.DescribeAddressesRequest, context: object
    ) -> pb.DescribeAddressesResponse:
        """Says what is known of the cluster, and where clients came from in the last hour."""
        desk = self.addresses
        if desk is None:
            return pb.DescribeAddressesResponse()
        answer = pb.DescribeAddressesResponse(
            learns=desk.learns, probe_token=desk.tokens.issue(desk.wall())
        )
        cluster = desk.cluster()
        for kind in Kind if desk.learns else ():
            learnt = cluster.of(kind)
            answer.cluster.add(
                kind=kind.value,
                networks=sorted(map(str, learnt.networks))[:_DESCRIBED],
                count=len(learnt.networks),
                unknown=learnt.unknown,
            )
        for (server, listener), seen in desk.clients.last_hour(desk.clock()):
            answer.listeners.append(_described(server, listener, seen, desk.networks()))
        return answer


def _described(server: str, listener: str, seen: Seen, networks: NetworkMap) -> pb.ListenerClients:
    busiest = sorted(seen.connections.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in busiest[_DESCRIBED:])
    message = pb.ListenerClients(
        messaging_server=server, listener=listener, others=seen.others + rest
    )
    for address, count in busiest[:_DESCRIBED]:
        located = networks.locate(address)
        message.clients.add(
            client_address=address,
            connections=count,
            grants=located.grants,
            standing=located.standing.value,
        )
    return message


def _invalid(reason: str, message: str) -> RpcError:
    return RpcError(grpc.StatusCode.INVALID_ARGUMENT, reason, message)
