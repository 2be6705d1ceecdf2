"""The front ends that the configuration asks for, opened together."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from netmail_common.config import ConnectionManagerConfig
from netmail_common.logging import get_logger

from netmail_connmgr.adapters import dns_list, dovecot_policy, legacy_udp, postfix_policy, whoson
from netmail_connmgr.adapters.front_end import FrontEndSetup

__all__ = ["FRONT_ENDS", "FrontEnd", "front_ends", "prepare"]

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


@contextlib.asynccontextmanager
async def front_ends(setup: FrontEndSetup) -> AsyncIterator[Mapping[str, Sequence[int]]]:
    """Serves every front end that is switched on; gives their ports by name.

    Raises: ConfigError; OSError, when an address cannot be had.
    """
    async with contextlib.AsyncExitStack() as stack:
        ports = {}
        for name, serving in prepare(setup).items():
            ports[name] = await stack.enter_async_context(serving)
            log.info("front end serves", front_end=name, ports=ports[name])
        yield ports
