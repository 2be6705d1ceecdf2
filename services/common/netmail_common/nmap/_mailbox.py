"""Mailbox stubs, by the Messaging Server that holds the user; small messages on a shared stream."""

import asyncio

import grpc
from netmail.nmap.v1 import mailbox_pb2, mailbox_pb2_grpc

from netmail_common.gather import Gatherer
from netmail_common.grpc_client import CALL_TIMEOUT
from netmail_common.grpc_errors import error_reason
from netmail_common.nmap._channels import NmapChannels
from netmail_common.nmap._kept_stream import KeptStream

_MAX_ITEMS = 64
_MAX_BYTES = 2 * 1024 * 1024
_ITEM_OCTETS = 512
"""About so many beside the message."""

_Item = mailbox_pb2.AppendSmallMessageRequest
_Result = mailbox_pb2.AppendSmallMessageResult


class AppendFailed(Exception):
    """A message was not stored, or nobody knows.

    Attributes:
        reason: of the agent's ErrorInfo; empty: it did not answer, and may have stored it.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "no answer")
        self.reason = reason


class MailboxClients:
    """Gives the stub for a user's NMAP agent: `for_server(user.server)`."""

    def __init__(self, channels: NmapChannels) -> None:
        self._channels = channels
        self._stubs: dict[str, mailbox_pb2_grpc.MailboxServiceAsyncStub] = {}
        self._appenders: dict[str, Gatherer[_Item, _Result]] = {}

    def for_server(self, name: str) -> "mailbox_pb2_grpc.MailboxServiceAsyncStub":
        """The stub over the channel to that Messaging Server's NMAP agent; it stays good.

        Raises: KeyError when the installation has no such server.
        """
        stub = self._stubs.get(name)
        if stub is None:
            stub = mailbox_pb2_grpc.MailboxServiceStub(self._channels.for_server(name).raw)
            self._stubs[name] = stub
        return stub

    async def append_small(self, name: str, item: _Item) -> tuple[int, int]:
        """Stores one message of at most 256 KiB; gives UIDVALIDITY and UID, after the commit.

        What waits meanwhile shares one request and one commit.

        Raises: AppendFailed.
        """
        appender = self._appenders.get(name)
        if appender is None:
            appender = self._appenders[name] = self._appender(name)
        result = await appender(item)
        if result.error_reason:
            raise AppendFailed(result.error_reason)
        return result.uid_validity, result.uid

    def _appender(self, name: str) -> Gatherer[_Item, _Result]:
        stream = KeptStream[
            mailbox_pb2.AppendSmallMessagesRequest, mailbox_pb2.AppendSmallMessagesResponse
        ](lambda: self.for_server(name).AppendSmallMessages())  # type: ignore[call-arg] # optional

        async def append_all(items: list[_Item]) -> list[_Result]:
            request = mailbox_pb2.AppendSmallMessagesRequest(items=items)
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    response = await stream.ask(request)
            except grpc.aio.AioRpcError as error:
                raise AppendFailed(error_reason(error) or "") from error
            except TimeoutError:
                raise AppendFailed from None
            if response is None:
                raise AppendFailed
            return list(response.results)

        return Gatherer(append_all, _MAX_ITEMS, _MAX_BYTES, _size_of)


def _size_of(item: _Item) -> int:
    return len(item.data) + _ITEM_OCTETS
