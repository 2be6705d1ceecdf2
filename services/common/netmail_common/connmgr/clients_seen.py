"""Where the clients of this process's listeners came from since the last report."""

import re
from collections import Counter
from ipaddress import IPv4Address, IPv6Address

from netmail.connmgr.v1 import connmgr_pb2 as pb

__all__ = ["PROBE", "ClientsSeen", "probe_token"]

PROBE = "netmail-doctor"
"""What a person outside says before a token: by NOOP in SMTP, ID in IMAP, XDOCTOR in POP3."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{30,64}")
_MAX_ADDRESSES = 1000
"""Of one listener between two reports; the rest is counted together."""


def probe_token(text: str) -> str | None:
    """The token of `netmail-doctor TOKEN`; None: it is something else."""
    word, _, token = text.strip().partition(" ")
    if word != PROBE or _TOKEN.fullmatch(token) is None:
        return None
    return token


class ClientsSeen:
    """Counts connections by listener and address, in bounded space."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[bytes]] = {}
        self._others: Counter[str] = Counter()

    def add(self, listener: str, address: IPv4Address | IPv6Address) -> None:
        """A client has connected."""
        counts = self._counts.get(listener)
        if counts is None:
            counts = self._counts[listener] = Counter()
        packed = address.packed
        if packed in counts or len(counts) < _MAX_ADDRESSES:
            counts[packed] += 1
        else:
            self._others[listener] += 1

    def take(self, messaging_server: str) -> pb.ReportClientsRequest | None:
        """What is to be reported, which is forgotten here; None: nothing."""
        counts, others = self._counts, self._others
        if not counts:
            return None
        self._counts, self._others = {}, Counter()
        return pb.ReportClientsRequest(
            listeners=[
                pb.ListenerClients(
                    messaging_server=messaging_server,
                    listener=listener,
                    clients=[
                        pb.ClientCount(client_address=address, connections=count)
                        for address, count in clients.items()
                    ],
                    others=others[listener],
                )
                for listener, clients in counts.items()
            ]
        )
