"""Mailbox stubs, by the Messaging Server that holds the user."""

from netmail.nmap.v1 import mailbox_pb2_grpc

from netmail_common.nmap._channels import NmapChannels


class MailboxClients:
    """Gives the stub for a user's NMAP agent: `for_server(user.server)`."""

    def __init__(self, channels: NmapChannels) -> None:
        self._channels = channels
        self._stubs: dict[str, mailbox_pb2_grpc.MailboxServiceAsyncStub] = {}

    def for_server(self, name: str) -> "mailbox_pb2_grpc.MailboxServiceAsyncStub":
        """The stub over the channel to that Messaging Server's NMAP agent; it stays good.

        Raises: KeyError when the installation has no such server.
        """
        stub = self._stubs.get(name)
        if stub is None:
            stub = mailbox_pb2_grpc.MailboxServiceStub(self._channels.for_server(name).raw)
            self._stubs[name] = stub
        return stub
