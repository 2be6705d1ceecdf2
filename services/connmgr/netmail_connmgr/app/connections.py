"""The rules about connections, made from the configuration."""

import contextlib
from collections.abc import AsyncIterator

from netmail_common.config import ConfigError, ConnectionManagerConfig
from netmail_common.networks import AddressRules
from netmail_common.shared_networks import SharedNetworkError, read_trusted_networks

from netmail_connmgr.adapters.connection_checks import ConnectionChecker
from netmail_connmgr.adapters.dns_resolver import Resolver, nameservers
from netmail_connmgr.adapters.dnsbl import BlockLists
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.reverse_dns import ReverseNames
from netmail_connmgr.domain.lists import AddressLists
from netmail_connmgr.domain.store import LoginStore

__all__ = ["ConnectionRules", "connection_rules"]


class ConnectionRules:
    """The rules about connections that are on. Belongs to its event loop.

    Attributes:
        checker: judges by them.
    """

    def __init__(self, checker: ConnectionChecker) -> None:
        self.checker = checker
        self._config: ConnectionManagerConfig | None = None
        self._block_lists: BlockLists | None = None
        self._reverse_names: ReverseNames | None = None

    def use(self, config: ConnectionManagerConfig, rules: AddressRules) -> None:
        """Judges by the configuration from now on; what DNS said stays known where it is the same.

        Raises: ConfigError, as `check_rules`; nothing has changed then.
        """
        check_rules(config, rules)
        resolver = Resolver(nameservers(config.dns_servers))
        before, self._config = self._config, config
        asked_anew = before is None or before.dns_servers != config.dns_servers
        if before is None or asked_anew or before.dnsbl != config.dnsbl:
            self._block_lists = BlockLists(resolver, config.dnsbl) if config.dnsbl.zones else None
        if before is None or asked_anew or before.reverse_dns != config.reverse_dns:
            self._reverse_names = (
                ReverseNames(resolver, config.reverse_dns) if config.reverse_dns.enabled else None
            )
        self.checker.use(
            AddressLists(rules.blocked_networks),
            block_lists=self._block_lists,
            reverse_names=self._reverse_names,
        )


def check_rules(config: ConnectionManagerConfig, rules: AddressRules) -> None:
    """Checks what the schema cannot.

    Raises: ConfigError, for a shared network that is to be allowed, or a resolver that is no IP
    address.
    """
    try:
        read_trusted_networks(config.lists.allowed, rules, "lists.allowed")
    except SharedNetworkError as error:
        raise ConfigError(f"connection manager {config.name!r}: {error}") from error
    try:
        nameservers(config.dns_servers)
    except ValueError as error:
        raise ConfigError(f"connection manager {config.name!r}: dns_servers: {error}") from error


@contextlib.asynccontextmanager
async def connection_rules(
    config: ConnectionManagerConfig, rules: AddressRules, store: LoginStore, desk: LocalDesk
) -> AsyncIterator[ConnectionRules]:
    """Gives the desk the rules about connections that are on.

    Raises: ConfigError, as `check_rules`.
    """
    checker = ConnectionChecker(store, lambda: desk.networks, AddressLists())
    live = ConnectionRules(checker)
    live.use(config, rules)
    desk.connections = checker
    try:
        yield live
    finally:
        await checker.close()
