"""The front ends that the configuration asks for, opened together."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from netmail_common.config import ConnectionManagerConfig
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import dns_list, dovecot_policy, legacy_udp, postfix_policy, whoson
from netmail_connmgr.adapters.front_end import FrontEndSetup

__all__ = ["FRONT_ENDS", "FrontEnd", "FrontEnds", "front_ends", "prepare"]

log = get_logger(__name__)

Serving = AbstractAsyncContextManager[Sequence[int]]
"""Serves while it is entered; gives the ports that it has, in the order of its `listen`."""


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """A protocol of servers that are not ours.

    Attributes:
        name: its section of the configuration.
        is_configured: whether it is switched on.
        prepare: reads its configuration and what that names; raises ConfigError. Opens nothing
            before what it returns is entered.
    """

    name: str
    is_configured: Callable[[ConnectionManagerConfig], bool]
    prepare: Callable[[FrontEndSetup], Serving]


FRONT_ENDS: tuple[FrontEnd, ...] = (
    FrontEnd(legacy_udp.NAME, lambda config: bool(config.legacy_udp.listen), legacy_udp.prepare),
    FrontEnd(whoson.NAME, lambda config: bool(config.whoson.listen), whoson.prepare),
    FrontEnd(dns_list.NAME, lambda config: bool(config.dns_list.listen), dns_list.prepare),
    FrontEnd(
        postfix_policy.NAME,
        lambda config: bool(config.postfix_policy.listen or config.postfix_policy.socket),
        postfix_policy.prepare,
    ),
    FrontEnd(
        dovecot_policy.NAME,
        lambda config: bool(config.dovecot_policy.listen or config.dovecot_policy.socket),
        dovecot_policy.prepare,
    ),
)


def prepare(setup: FrontEndSetup) -> dict[str, Serving]:
    """What is switched on, by name; entered or not, it must not be kept for later.

    Raises: ConfigError.
    """
    return {
        front_end.name: front_end.prepare(setup)
        for front_end in FRONT_ENDS
        if front_end.is_configured(setup.config)
    }


class FrontEnds:
    """The front ends that are switched on. Belongs to its event loop.

    Attributes:
        ports: that they have, by their names.
    """

    def __init__(self, setup: FrontEndSetup) -> None:
        self._setup = setup
        self._open: dict[str, contextlib.AsyncExitStack] = {}
        self.ports: dict[str, Sequence[int]] = {}

    async def open(self) -> None:
        """Opens all of them.

        Raises: ConfigError; OSError, when an address cannot be had.
        """
        for name, serving in prepare(self._setup).items():
            await self._enter(name, serving)

    async def use(self, setup: FrontEndSetup) -> None:
        """Goes on with another configuration: what it says something else to is opened anew.

        Raises: ConfigError: nothing has changed; or an address cannot be had, then what was served
        before is served again, if it can be.
        """
        before, servings = self._setup, prepare(setup)
        for name in {**self._open, **servings}:
            if name in self._open and name in servings and _same(before, setup, name):
                continue
            await self._leave(name)
            if name in servings:
                await self._enter_or_go_back(name, servings[name], before)
        self._setup = setup

    async def close(self) -> None:
        """Closes all of them."""
        for name in list(self._open):
            await self._leave(name)

    async def _enter_or_go_back(self, name: str, serving: Serving, before: FrontEndSetup) -> None:
        try:
            await self._enter(name, serving)
        except OSError as error:
            earlier = prepare(before).get(name)
            if earlier is not None:
                await self._enter(name, earlier)
            raise before.error(f"{name}: {error}") from error

    async def _enter(self, name: str, serving: Serving) -> None:
        async with contextlib.AsyncExitStack() as stack:
            ports = await stack.enter_async_context(serving)
            self._open[name] = stack.pop_all()
        self.ports[name] = ports
        log.info("front end serves", front_end=name, ports=ports)

    async def _leave(self, name: str) -> None:
        stack = self._open.pop(name, None)
        self.ports.pop(name, None)
        if stack is not None:
            await stack.aclose()


def _same(before: FrontEndSetup, after: FrontEndSetup, name: str) -> bool:
    """Whether a front end is told the same by both."""
    return _told(before, name) == _told(after, name)


def _told(setup: FrontEndSetup, name: str) -> object:
    servers = [(one.name, one.contexts, one.domains) for one in setup.servers]
    return getattr(setup.config, name), setup.config.address_map, servers


@contextlib.asynccontextmanager
async def front_ends(setup: FrontEndSetup) -> AsyncIterator[FrontEnds]:
    """Serves every front end that is switched on, until the block ends.

    Raises: ConfigError; OSError, when an address cannot be had.
    """
    opened = FrontEnds(setup)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()
