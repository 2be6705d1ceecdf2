"""The channels of one process to the NMAP agents that it may ask."""

import asyncio

from netmail_common.config import Installation
from netmail_common.grpc_client import Channel
from netmail_common.grpc_security import AgentIdentity
from netmail_common.roles import Role


class NmapChannels:
    """One channel per NMAP agent that a Messaging Server reaches; made when first used.

    Belongs to one event loop. Close it after the clients that use it.
    """

    def __init__(self, installation: Installation, server: str, identity: AgentIdentity) -> None:
        self.installation = installation
        self.server = server
        self._identity = identity
        self._channels: dict[str, Channel] = {}

    def for_server(self, name: str) -> Channel:
        """The channel to the NMAP agent of the Messaging Server NAME.

        Raises: KeyError when the installation has no such server.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = Channel(
                self.installation.messaging_server(name).nmap.target,
                self._identity,
                installation=self.installation.installation,
                expected_role=Role.NMAP,
            )
            self._channels[name] = channel
        return channel

    async def close(self) -> None:
        """Closes every channel."""
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))
