"""The rules about connections, made from the configuration."""

import contextlib
from collections.abc import AsyncIterator, Callable

from netmail_common.config import ConfigError, ConnectionManagerConfig
from netmail_common.networks import AddressRules, NetworkMap
from netmail_common.shared_networks import SharedNetworkError, read_trusted_networks

from netmail_connmgr.adapters.connection_checks import ConnectionChecker
from netmail_connmgr.adapters.dns_resolver import Resolver, nameservers
from netmail_connmgr.adapters.dnsbl import BlockLists
from netmail_connmgr.adapters.local_desk import LocalDesk
from netmail_connmgr.adapters.reverse_dns import ReverseNames
from netmail_connmgr.domain.lists import AddressLists
from netmail_connmgr.domain.store import LoginStore

__all__ = ["connection_rules"]


@contextlib.asynccontextmanager
async def connection_rules(
    config: ConnectionManagerConfig, rules: AddressRules, store: LoginStore, desk: LocalDesk
) -> AsyncIterator[ConnectionChecker]:
    """Gives the desk the rules about connections that are on.

    Raises: ConfigError, for a shared network that is to be allowed, or a resolver that is no IP
    address.
    """
    try:
        read_trusted_networks(config.lists.allowed, rules, "lists.allowed")
    except SharedNetworkError as error:
        raise ConfigError(f"connection manager {config.name!r}: {error}") from error
    checker = _checker(config, store, lambda: desk.networks, AddressLists(rules.blocked_networks))
    desk.connections = checker
    try:
        yield checker
    finally:
        await checker.close()


def _checker(
    config: ConnectionManagerConfig,
    store: LoginStore,
    networks: Callable[[], NetworkMap],
    lists: AddressLists,
) -> ConnectionChecker:
    try:
        servers = nameservers(config.dns_servers)
    except ValueError as error:
        raise ConfigError(f"connection manager {config.name!r}: dns_servers: {error}") from error
    block_lists = reverse_names = None
    resolver = Resolver(servers)
    if config.dnsbl.zones:
        block_lists = BlockLists(resolver, config.dnsbl)
    if config.reverse_dns.enabled:
        reverse_names = ReverseNames(resolver, config.reverse_dns)
    return ConnectionChecker(
        store, networks, lists, block_lists=block_lists, reverse_names=reverse_names
    )
