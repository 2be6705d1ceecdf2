"""The NMAP agent's process: store, directory, gRPC server, health, drain."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from netmail.nmap.v1 import (
    backup_pb2_grpc,
    directory_pb2_grpc,
    mailbox_pb2_grpc,
    queue_pb2_grpc,
)
from netmail_common.command_line import AgentArguments
from netmail_common.config import (
    ConfigError,
    FixedKeys,
    Installation,
    MessagingServerConfig,
    NmapConfig,
)
from netmail_common.config_reload import Take, following_config
from netmail_common.grpc_security import agent_identity
from netmail_common.grpc_server import grpc_server
from netmail_common.http_server import Health, http_server
from netmail_common.lifecycle import Lifecycle
from netmail_common.logging import get_logger
from netmail_common.mail_address import AddressError, MailAddress, parse_mail_address
from netmail_common.roles import Role

from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.adapters.authenticator import Authenticator
from netmail_nmap.adapters.backup import MakeCopy, StoreCopies, copy_of_database
from netmail_nmap.adapters.device_administration import (
    DeviceAdministration,
    DeviceUses,
    end_old_devices,
)
from netmail_nmap.adapters.device_passwords import DevicePasswords
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.directory_store import SqlDirectoryStore
from netmail_nmap.adapters.grpc_backup import BackupService
from netmail_nmap.adapters.grpc_directory import DirectoryService
from netmail_nmap.adapters.grpc_mailbox import MailboxService
from netmail_nmap.adapters.grpc_queue import QueueService
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.adapters.objects import BodyObjects
from netmail_nmap.adapters.password_files import PasswordFiles
from netmail_nmap.adapters.postgresql import Place, copy_of_postgresql, open_postgresql
from netmail_nmap.adapters.revocations import revocation_sender
from netmail_nmap.adapters.sql import Store, database_path, open_store
from netmail_nmap.domain.credentials import HashParameters
from netmail_nmap.domain.errors import NmapError, StoreUnavailable
from netmail_nmap.domain.outcomes import QueueSettings
from netmail_nmap.domain.recipients import DirectorySettings
from netmail_nmap.domain.retry import RetrySchedule
from netmail_nmap.domain.verified import VerifiedPasswords

__all__ = ["Running", "nmap_agent", "run"]

_SERVICES = (
    "netmail.nmap.v1.DirectoryService",
    "netmail.nmap.v1.MailboxService",
    "netmail.nmap.v1.QueueService",
    "netmail.nmap.v1.BackupService",
)

_OLD_DEVICES_EVERY = 30.0
_DATABASE_POLL = 1.0
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """An NMAP agent that serves.

    Attributes:
        ports: of its gRPC server, one for each address that it listens on.
        http_port: of health and metrics; None when off.
        directory: its users, for a look inside.
        store: its storage, likewise.
        use: goes on with another configuration.
    """

    ports: tuple[int, ...]
    http_port: int | None
    directory: UserDirectory
    store: Store
    use: Take


@contextlib.asynccontextmanager
async def nmap_agent(installation: Installation, server: str) -> AsyncIterator[Running]:
    """Serves the NMAP agent of a Messaging Server until the block ends, then drains.

    Raises: ConfigError.
    """
    config = _config(installation, server)
    identity = agent_identity(installation, Role.NMAP)
    health = Health()
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(_store(installation, config))
        files = PasswordFiles()
        stack.push_async_callback(files.close)
        directory = await _directory(installation, config, store, files)
        sender = await stack.enter_async_context(
            revocation_sender(directory.store, installation, server, identity)
        )
        stack.enter_context(store.ended_users.listening(lambda _: sender.wake()))
        hasher = _hasher(config.nmap)
        stack.push_async_callback(hasher.close)
        administration = UserAdministration(directory, hasher)
        await _create_initial_users(config, administration)
        device_key = await directory.store.secret("device passwords")
        uses = DeviceUses(directory.store)
        for work in (uses.run(), _end_old_devices(directory)):
            stack.push_async_callback(_cancel, asyncio.create_task(work))
        authenticator = Authenticator(
            installation,
            directory,
            hasher,
            VerifiedPasswords(config.nmap.argon2.cache, time.monotonic),
            await directory.store.secret("scram"),
            DevicePasswords(device_key, uses),
        )
        directory_service = DirectoryService(
            config,
            directory,
            authenticator,
            administration,
            DeviceAdministration(administration, device_key),
        )
        mailbox_service = MailboxService(store, max_message_size=config.nmap.max_message_size)
        queue_service = QueueService(
            store, directory, max_message_size=config.nmap.max_message_size
        )
        copies = StoreCopies(_copy_maker(installation, config))
        stack.push_async_callback(copies.close)

        def register(grpc_server: grpc.aio.Server) -> None:
            directory_pb2_grpc.add_DirectoryServiceServicer_to_server(
                directory_service, grpc_server
            )
            mailbox_pb2_grpc.add_MailboxServiceServicer_to_server(mailbox_service, grpc_server)
            queue_pb2_grpc.add_QueueServiceServicer_to_server(queue_service, grpc_server)
            backup_pb2_grpc.add_BackupServiceServicer_to_server(BackupService(copies), grpc_server)

        http_port = await stack.enter_async_context(http_server(config.nmap.http.listen, health))
        bound = await stack.enter_async_context(
            grpc_server(
                listen=config.nmap.listen,
                identity=identity,
                role=Role.NMAP,
                installation=installation.installation,
                register=register,
                health=health,
                service_names=_SERVICES,
                drain_timeout=config.nmap.drain_timeout,
                max_connection_age=config.nmap.max_connection_age,
            )
        )
        # Before the server waits for its calls: these would not end by themselves.
        stack.callback(directory_service.drain)
        stack.callback(mailbox_service.drain)
        stack.callback(queue_service.drain)
        health.set_ready(True)
        log.info("serving", listen=config.nmap.listen, messaging_server=server)
        live = _Live(
            server=server,
            store=store,
            files=files,
            directory=directory,
            administration=administration,
            authenticator=authenticator,
            directory_service=directory_service,
            mailbox_service=mailbox_service,
            queue_service=queue_service,
        )
        yield Running(bound.ports, http_port, directory, store, live.use)


@dataclass(frozen=True, slots=True)
class _Live:
    """The parts of an NMAP agent that a configuration says something to."""

    server: str
    store: Store
    files: PasswordFiles
    directory: UserDirectory
    administration: UserAdministration
    authenticator: Authenticator
    directory_service: DirectoryService
    mailbox_service: MailboxService
    queue_service: QueueService

    async def use(self, installation: Installation) -> None:
        """Goes on with another configuration.

        Raises: ConfigError, nothing has changed then, unless it says that a user cannot be made;
        StoreUnavailable.
        """
        config = _config(installation, self.server)
        settings, paths = _settings(installation, config), _password_files(config)
        sources = await self.files.load(paths)
        self.directory.use(settings, sources, config.nmap.default_quota)
        self.authenticator.use(installation)
        self.directory_service.use(config)
        self.mailbox_service.limit(config.nmap.max_message_size)
        self.queue_service.limit(config.nmap.max_message_size)
        self.store.queue.use(_queue_settings(config))
        await self.files.follow(sources, paths, self.directory.take_in_file)
        await self.directory.end_users_who_are_gone()
        await _create_initial_users(config, self.administration)


async def run(arguments: AgentArguments, installation: Installation, lifecycle: Lifecycle) -> None:
    """Serves until the drain.

    Raises: ConfigError.
    """
    fixed = FixedKeys.of_nmap_agent(installation, arguments.name)
    async with (
        nmap_agent(installation, arguments.name) as running,
        following_config(arguments, installation, fixed, running.use),
    ):
        lifecycle.announce_ready()
        await lifecycle.wait_for_drain()


def _config(installation: Installation, server: str) -> MessagingServerConfig:
    try:
        return installation.messaging_server(server)
    except KeyError:
        raise ConfigError(f"no messaging server is named {server!r}") from None


@contextlib.asynccontextmanager
async def _store(installation: Installation, config: MessagingServerConfig) -> AsyncIterator[Store]:
    async with contextlib.AsyncExitStack() as stack:
        yield await _opened_in_time(stack, installation, config)


async def _opened_in_time(
    stack: contextlib.AsyncExitStack, installation: Installation, config: MessagingServerConfig
) -> Store:
    """A database of its own process may still be starting, or be on its way to another host."""
    patience = config.nmap.store.start_timeout if config.nmap.store.shared else 0.0
    end = time.monotonic() + patience
    while True:
        try:
            return await stack.enter_async_context(_opened(installation, config))
        except (StoreUnavailable, ValueError) as error:
            if isinstance(error, ValueError) or time.monotonic() >= end:
                raise ConfigError(f"messaging server {config.name!r}: store: {error}") from error
            log.warning("waiting for the database", error=str(error))
        await asyncio.sleep(_DATABASE_POLL)


def _opened(
    installation: Installation, config: MessagingServerConfig
) -> contextlib.AbstractAsyncContextManager[Store]:
    url, store = installation.store_url(config.name), config.nmap.store
    settings = _queue_settings(config)
    if not store.shared:
        return open_store(url, settings=settings, readers=store.readers)
    return open_postgresql(
        Place.from_config(store, url),
        settings=settings,
        readers=store.readers,
        writers=store.writers,
        listen=Place.to_listen(store),
        objects=BodyObjects.from_config(store.objects),
    )


def _copy_maker(installation: Installation, config: MessagingServerConfig) -> MakeCopy:
    """Of the store, for backups."""
    url, store = installation.store_url(config.name), config.nmap.store
    if not store.shared:
        return copy_of_database(database_path(url))
    return copy_of_postgresql(
        Place.from_config(store, url),
        store.copies or installation.state_dir,
        f"nmap-{config.name}",
        objects=BodyObjects.from_config(store.objects),
    )


def _queue_settings(config: MessagingServerConfig) -> QueueSettings:
    return QueueSettings(
        schedule=RetrySchedule.from_config(config.nmap.queue), host_name=config.host_name
    )


async def _directory(
    installation: Installation,
    config: MessagingServerConfig,
    store: Store,
    files: PasswordFiles,
) -> UserDirectory:
    paths = _password_files(config)
    sources = await files.load(paths)
    directory = UserDirectory(
        _settings(installation, config),
        SqlDirectoryStore(store.core),
        sources,
        config.nmap.default_quota,
    )
    await files.follow(sources, paths, directory.take_in_file)
    return directory


def _settings(installation: Installation, config: MessagingServerConfig) -> DirectorySettings:
    """Raises: ConfigError."""
    return DirectorySettings(
        server=config.name,
        contexts=tuple(context.name for context in config.contexts),
        domains=tuple(config.domains),
        catch_all=_own_address(config, "catch_all", config.nmap.catch_all),
        postmaster=_own_address(config, "postmaster", config.nmap.postmaster),
        separator=config.nmap.subaddress_separator,
        other_domains=frozenset(
            domain
            for other in installation.messaging_servers
            if other.name != config.name
            for domain in other.domains
        ),
    )


def _password_files(config: MessagingServerConfig) -> dict[str, Path]:
    """Of the contexts that have one."""
    return {context.name: context.file for context in config.contexts if context.file is not None}


def _own_address(config: MessagingServerConfig, key: str, text: str | None) -> MailAddress | None:
    if text is None:
        return None
    try:
        address = parse_mail_address(text)
    except AddressError as error:
        raise ConfigError(f"messaging server {config.name!r}: nmap.{key}: {error}") from error
    if address.domain not in config.domains:
        raise ConfigError(
            f"messaging server {config.name!r}: nmap.{key}: {text} is in no domain of it"
        )
    return address


def _hasher(config: NmapConfig) -> PasswordHasher:
    argon2 = config.argon2
    return PasswordHasher(
        HashParameters(
            argon2.time_cost, argon2.memory_kib, argon2.parallelism, argon2.scram_iterations
        ),
        concurrency=argon2.concurrency,
        queue=argon2.queue,
    )


async def _create_initial_users(
    config: MessagingServerConfig, administration: UserAdministration
) -> None:
    for context in config.contexts:
        for user in context.initial_users:
            try:
                created = await administration.create_initial(
                    user.name, context.name, user.password.get_secret_value(), user.addresses
                )
            except StoreUnavailable:
                raise
            except NmapError as error:
                raise ConfigError(
                    f"messaging server {config.name!r}: context {context.name!r}: initial user"
                    f" {user.name!r}: {error}"
                ) from error
            if created:
                log.info("initial user created", user=user.name, context=context.name)


async def _end_old_devices(directory: UserDirectory) -> None:
    """Ends logins with device passwords that have come to their end, until cancelled."""
    while True:
        try:
            await end_old_devices(directory.store, time.time())
        except StoreUnavailable:
            log.warning("device passwords were not looked through")
        await asyncio.sleep(_OLD_DEVICES_EVERY)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
