"""What is shared because it is ours or the cluster's, kept up to date while the process runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from netmail_common.background import in_background
from netmail_common.logging import get_logger
from netmail_common.networks import Address, AddressRules, NetworkMap
from netmail_common.own_addresses import own_addresses

from netmail_connmgr.adapters import metrics
from netmail_connmgr.adapters.cluster_api import ClusterApi
from netmail_connmgr.adapters.shared_logins import forget_shared_logins
from netmail_connmgr.domain.cluster_networks import ClusterNetworks, Kind, RetiredNetworks
from netmail_connmgr.domain.store import LoginStore

__all__ = ["SharedAddresses", "kept_up_to_date", "known_own_addresses"]

_EVERY = 30.0
_FIRST = 10.0
"""Seconds that the start waits for the cluster's API, at most."""

log = get_logger(__name__)

_Use = Callable[[NetworkMap], None]


def known_own_addresses() -> frozenset[Address]:
    """Addresses of this machine or pod; none if the kernel does not say."""
    try:
        return own_addresses()
    except OSError as error:
        log.warning("own addresses are not known", error=str(error))
        return frozenset()


class SharedAddresses:
    """The rules about addresses, with what was learnt since the start. Belongs to its event loop.

    Args:
        rules: of the configuration, with the own addresses of the start.
        use: told of each new map.
        store: whose logins end where a network becomes shared.
    """

    def __init__(self, rules: AddressRules, use: _Use, store: LoginStore) -> None:
        self._rules = rules
        self._use = use
        self._store = store
        self._cluster = ClusterNetworks()
        self._in_cluster = False
        self._retired = RetiredNetworks(store.login_lifetime)
        self._said: dict[Kind, str] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._again = False

    @property
    def rules(self) -> AddressRules:
        """As they are now."""
        return self._rules

    @property
    def cluster(self) -> ClusterNetworks:
        """What is known of the cluster."""
        return self._cluster.seen_by(self._rules.own_addresses)

    def configure(self, rules: AddressRules) -> None:
        """Takes other rules of the configuration; what was learnt stays."""
        self._change(
            replace(
                rules,
                own_addresses=self._rules.own_addresses,
                cluster_networks=self._rules.cluster_networks,
            )
        )
        self._report()

    def learn_own(self, addresses: frozenset[Address]) -> None:
        """Takes the addresses of this machine or pod; an empty set says nothing."""
        if addresses and addresses != self._rules.own_addresses:
            log.info("own addresses changed", addresses=sorted(map(str, addresses)))
            self._change(replace(self._rules, own_addresses=addresses))
            self._report()

    def learn_cluster(self, known: ClusterNetworks) -> None:
        """Takes what the cluster's API says."""
        if known.networks != self._cluster.networks:
            log.info("networks of the cluster", count=len(known.networks))
            self._retired.change(known.networks, self._store.now())
            asyncio.get_running_loop().call_later(self._retired.keep + 1, self.open_again)
        self._cluster = known
        self._in_cluster = True
        self._report()
        self.open_again()

    def open_again(self) -> None:
        """Opens networks that were the cluster's and have been shared for long enough since."""
        shared = self._retired.shared(self._store.now())
        if shared != self._rules.cluster_networks:
            self._change(replace(self._rules, cluster_networks=shared))

    def not_learnt(self) -> None:
        """Says that nobody asks the cluster, which we are in."""
        self._in_cluster = True
        self._report()
        log.warning(
            "addresses of nodes, pods and Services are not learnt",
            do="set learn_cluster_networks, or name them in shared_networks",
        )

    async def close(self) -> None:
        """Waits for logins that are being ended."""
        if self._sweeping is not None:
            await asyncio.gather(self._sweeping, return_exceptions=True)

    def _change(self, rules: AddressRules) -> None:
        if rules == self._rules:
            return
        self._rules = rules
        self._use(NetworkMap(rules))
        self._again = True
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._sweep())

    async def _sweep(self) -> None:
        """A network that becomes shared loses its logins."""
        while self._again:
            self._again = False
            await forget_shared_logins(self._store, NetworkMap(self._rules))

    def _report(self) -> None:
        """Says what is not known of the cluster, if we are in one."""
        if not self._in_cluster:
            return
        for kind in Kind:
            learnt = self.cluster.of(kind)
            metrics.CLUSTER_NETWORKS.labels(kind.value).set(len(learnt.networks))
            is_open = bool(learnt.unknown) and self._may_grant(kind)
            metrics.CLUSTER_UNKNOWN.labels(kind.value).set(is_open)
            if kind in self._cluster.learnt:
                self._say(kind, learnt.unknown)

    def _may_grant(self, kind: Kind) -> bool:
        """Whether an address of this kind that is not known may let somebody relay.

        Network plug-ins with ranges of their own are common. A pod's address is like ours, which
        is as good as known where it would not grant: nearly always, since it is a private one.
        """
        if kind is not Kind.PODS:
            return True
        nodes = self._cluster.of(Kind.NODES).networks
        own = [a for a in self._rules.own_addresses if not any(a in node for node in nodes)]
        if not own:
            return True
        of_others = NetworkMap(replace(self._rules, own_addresses=frozenset()))
        return any(of_others.locate(address).grants for address in own)

    def _say(self, kind: Kind, unknown: str) -> None:
        """Says once what cannot be learnt, and again when it is for another reason."""
        if unknown == self._said.get(kind, ""):
            return
        self._said[kind] = unknown
        if unknown:
            log.warning(
                "addresses of the cluster are not known",
                kind=kind.value,
                reason=unknown,
                do="name them in shared_networks",
            )
        else:
            log.info("addresses of the cluster are known", kind=kind.value)


@contextlib.asynccontextmanager
async def kept_up_to_date(
    shared: SharedAddresses, *, learn_cluster: bool, in_cluster: bool
) -> AsyncIterator[None]:
    """Follows the own addresses, and the cluster's, until the block ends.

    When the block begins the cluster has been asked, unless it does not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(shared.close)
        await stack.enter_async_context(in_background(_follow_own(shared), "own addresses"))
        if learn_cluster:
            api = ClusterApi(shared.learn_cluster)
            api.start()
            stack.callback(api.stop)
            await api.asked(_FIRST)
        elif in_cluster:
            shared.not_learnt()
        yield


async def _follow_own(shared: SharedAddresses) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        shared.learn_own(known_own_addresses())
