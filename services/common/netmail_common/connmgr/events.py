"""What a watcher of the login table is told."""

import time
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

from netmail.connmgr.v1 import connmgr_pb2

from netmail_common.connmgr.model import Revocation, UserKey
from netmail_common.networks import AddressRules, NetworkMap

__all__ = [
    "Beaten",
    "Changed",
    "Connected",
    "Held",
    "Lost",
    "Revoked",
    "SnapshotEnded",
    "Suspected",
    "WatchEvent",
    "WatchMode",
    "boot_time",
]


def boot_time() -> float:
    """Seconds since the machine started, time asleep included; it never goes back."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WatchMode(Enum):
    """How much a watcher wants to know."""

    REVOCATIONS = connmgr_pb2.WATCH_MODE_REVOCATIONS
    FULL = connmgr_pb2.WATCH_MODE_FULL
    HELD = connmgr_pb2.WATCH_MODE_HELD


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream has begun.

    Attributes:
        instance_id: another one than before: the Connection Manager has lost its memory.
        lifetime: of a login, seconds.
        resumed: what was missed follows. False: revocations that still bind follow, with FULL
            every live login; what the watcher had is void.
        max_users_per_network: with more users on a network its sender binding is strict; 0: not
            known.
        check_connections: every connection is to be asked about, not only suspected ones.
        logins: in the table, about.
        own_addresses: of the Connection Manager, 4 or 16 octets; they never grant.
        cluster_networks: that the cluster uses itself, in CIDR form; they never grant either.
    """

    instance_id: str
    lifetime: float
    resumed: bool = False
    max_users_per_network: int = 0
    check_connections: bool = False
    logins: int = 0
    own_addresses: tuple[bytes, ...] = ()
    cluster_networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream has ended or gone silent; another try follows by itself."""


@dataclass(frozen=True, slots=True)
class SnapshotEnded:
    """The watcher knows everything up to this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Beaten:
    """A heartbeat has come.

    Attributes:
        logins: in the table, about.
    """

    logins: int


@dataclass(frozen=True, slots=True)
class Changed:
    """Logins that are new, renewed or removed before their time, packed."""

    revision: int
    changes: connmgr_pb2.LoginChanges


@dataclass(frozen=True, slots=True)
class Held:
    """The logins of networks that the watcher asked for; their changes follow."""

    held: connmgr_pb2.HeldNetworks


@dataclass(frozen=True, slots=True)
class Revoked:
    """Logins were revoked.

    Attributes:
        user: whose; None: anybody's.
        client_address: 4 or 16 octets of an address of the network; empty: any network.
        network: Located.key of the network; None: any.
        credential_epoch: those with a smaller one; 0: those that are older than `made`.
        made: when, on this machine's boot_time().
        reason: a word or two for the log.
    """

    user: UserKey | None
    client_address: bytes
    network: bytes | None
    credential_epoch: int
    made: float
    reason: str
    networks: NetworkMap

    def covers(
        self,
        user: UserKey,
        address: IPv4Address | IPv6Address,
        verified: float,
        credential_epoch: int | None,
    ) -> bool:
        """Whether it ends the login of a user from an address.

        Args:
            user: who logged in.
            address: of the client.
            verified: when the password was verified, by boot_time().
            credential_epoch: as Authenticate returned it.
        """
        revocation = Revocation(self.made, self.user, self.network, self.credential_epoch)
        network = self.networks.locate(address).key
        return revocation.covers(user, network, verified, credential_epoch)


@dataclass(frozen=True, slots=True)
class Suspected:
    """Whose logins are to be asked about, since many have failed.

    Attributes:
        added: users, and networks by their key (Located.key).
        removed: those that are suspected no more.
        complete: all that are suspected were told since the stream began.
        everybody: they are too many to be told.
    """

    added: frozenset[UserKey | bytes]
    removed: frozenset[UserKey | bytes] = frozenset()
    complete: bool = False
    everybody: bool = False


WatchEvent = Connected | Lost | SnapshotEnded | Beaten | Changed | Held | Revoked | Suspected


def suspected_event(message: connmgr_pb2.SuspicionChanges) -> Suspected:
    """Reads a change of suspicions."""
    return Suspected(
        added=frozenset(map(_suspect, message.added)),
        removed=frozenset(map(_suspect, message.removed)),
        complete=message.complete,
        everybody=message.everybody,
    )


def _suspect(message: connmgr_pb2.Suspicion) -> UserKey | bytes:
    if message.network:
        return message.network
    return UserKey(message.user.name, message.user.context)


def revoked_event(
    message: connmgr_pb2.Revocation, received: float, networks: NetworkMap | None
) -> Revoked:
    """Reads a revocation that came at a time by boot_time()."""
    user = None
    if message.user.name:
        user = UserKey(message.user.name, message.user.context)
    prefix = message.prefix_length if len(message.network) == 16 else 64
    rules = AddressRules(ipv6_prefix=prefix if prefix != 128 else 64)
    return Revoked(
        user=user,
        client_address=message.client_address,
        network=message.network or None,
        credential_epoch=message.credential_epoch,
        made=received - message.age_ms / 1000,
        reason=message.reason,
        networks=networks or NetworkMap(rules),
    )
