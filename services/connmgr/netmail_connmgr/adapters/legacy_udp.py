"""UDP port 689 by its configuration: who is answered, and what the agents prove themselves with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Network
from pathlib import Path

from netmail_common.config._base import parse_host_port
from netmail_common.logging import get_logger

from netmail_connmgr.adapters.address_book import AddressBook
from netmail_connmgr.adapters.datagram_socket import bind_ipv4
from netmail_connmgr.adapters.front_end import FrontEndSetup
from netmail_connmgr.adapters.legacy_udp_service import LegacyNames, LegacyUdp
from netmail_connmgr.protocol.legacy_udp import (
    CREDENTIAL_LENGTH,
    CredentialError,
    Handshake,
    Reception,
    access_hash,
    parse_access_hash,
    tree_of,
)

__all__ = ["NAME", "prepare"]

NAME = "legacy_udp"
_MAX_FILE = 2 * CREDENTIAL_LENGTH

log = get_logger(__name__)


def prepare(setup: FrontEndSetup) -> AbstractAsyncContextManager[Sequence[int]]:
    """Reads the configuration; what it gives serves while it is entered.

    Raises: ConfigError.
    """
    config = setup.config.legacy_udp
    if not config.allowed_sources:
        raise setup.error(
            "legacy_udp.listen needs legacy_udp.allowed_sources, together with a credential or"
            " plain: true"
        )
    allowed = setup.allowed_sources(config.allowed_sources, NAME)
    sources = [network for network in allowed if isinstance(network, IPv4Network)]
    if len(sources) < len(allowed):
        raise setup.error("legacy_udp.allowed_sources: UDP port 689 is IPv4 only")
    for address in config.listen:
        if ":" in parse_host_port(address).host:
            raise setup.error(f"legacy_udp.listen: {address}: UDP port 689 is IPv4 only")
    handshake = _handshake(setup)
    if handshake is None and not config.plain:
        raise setup.error(
            "legacy_udp.listen needs access_hash_file, or credential_file and tree, or plain: true"
        )
    if config.plain:
        log.warning("UDP 689 is spoken without authentication", with_sources=config.allowed_sources)
    default_context = config.default_context or setup.default_context
    book = AddressBook(setup.config.address_map, default_context=default_context)
    service = LegacyUdp(
        Reception(with_plain=config.plain, handshake=handshake),
        setup.desk,
        LegacyNames(setup, default_context, book),
        sources,
    )
    return _serving(service, book, config.listen, reuse_port=setup.reuse_port)


@contextlib.asynccontextmanager
async def _serving(
    service: LegacyUdp, book: AddressBook, listen: Sequence[str], *, reuse_port: bool
) -> AsyncIterator[Sequence[int]]:
    async with book.followed():
        try:
            ports = []
            for address in listen:
                bound = await asyncio.to_thread(bind_ipv4, address, reuse_port=reuse_port)
                ports.append(service.open(bound))
            yield ports
        finally:
            await service.close()


def _handshake(setup: FrontEndSetup) -> Handshake | None:
    """What agents prove that they know; None without a credential.

    Raises: ConfigError.
    """
    config = setup.config.legacy_udp
    if config.credential_file is not None and config.access_hash_file is not None:
        raise setup.error("legacy_udp: credential_file or access_hash_file, not both")
    if (config.credential_file is None) != (config.tree is None):
        raise setup.error("legacy_udp: credential_file and tree come together")
    if config.tree_without_backslash and config.tree is None:
        raise setup.error("legacy_udp.tree_without_backslash needs tree")
    if config.access_hash_file is not None:
        octets = _read(setup, config.access_hash_file, "access_hash_file")
        with _told_of(setup, "access_hash_file"):
            return Handshake(parse_access_hash(octets.decode("ascii", "replace")))
    if config.credential_file is None or config.tree is None:
        return None
    with _told_of(setup, "tree"):
        tree = tree_of(config.tree, without_backslash=config.tree_without_backslash)
    credential = _read(setup, config.credential_file, "credential_file")
    with _told_of(setup, "credential_file"):
        return Handshake(access_hash(credential, tree))


def _read(setup: FrontEndSetup, path: Path, key: str) -> bytes:
    """The beginning of a file, as much as can count."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError as error:
        raise setup.error(f"legacy_udp.{key}: {path}: {error.strerror}") from error


@contextlib.contextmanager
def _told_of(setup: FrontEndSetup, key: str) -> Iterator[None]:
    """Turns CredentialError into an error about that key. Raises: ConfigError."""
    try:
        yield
    except CredentialError as error:
        raise setup.error(f"legacy_udp.{key}: {error}") from error
