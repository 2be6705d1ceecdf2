"""Mailbox stubs, by the Messaging Server that holds the user."""

import grpc
from netmail.nmap.v1 import mailbox_pb2_grpc

from netmail_common.nmap._channels import NmapChannels


class MailboxClients:
    """Gives the stub for a user's NMAP agent: `for_server(user.server)`."""

    def __init__(self, channels: NmapChannels) -> None:
        self._channels = channels
        self._stubs: dict[
            str, tuple[grpc.aio.Channel, mailbox_pb2_grpc.MailboxServiceAsyncStub]
        ] = {}

    def for_server(self, name: str) -> "mailbox_pb2_grpc.MailboxServiceAsyncStub":
        """The stub over the channel to that Messaging Server's NMAP agent.

        Ask for each call: the channel may have been rebuilt with new certificates since.

        Raises: KeyError when the installation has no such server.
        """
        raw = self._channels.for_server(name).raw
        known = self._stubs.get(name)
        if known is None or known[0] is not raw:
            known = (raw, mailbox_pb2_grpc.MailboxServiceStub(raw))
            self._stubs[name] = known
        return known[1]
