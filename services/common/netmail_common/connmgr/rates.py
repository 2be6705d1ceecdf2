"""How much a known sender may send: which limits there are, and what is counted against them.

Shared by the Connection Manager, which counts for all agents, and the agents, which count for
themselves while it is away.
"""

import functools
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from netmail_common.config import RateLimit, RatesConfig
from netmail_common.connmgr.model import UserKey

__all__ = ["RATE_WINDOW", "RateCount", "RelayWanted", "limit_for", "rate_counts"]

RATE_WINDOW = 3600.0
"""Seconds that a rate is about."""
_KEYS = 4096
"""Names of counters that are not made again."""


class RelayWanted(NamedTuple):
    """A known sender wants to relay.

    Attributes:
        user: who is known; None: an address without a user (legacy clients).
        network: Located.key of the client's network; None: it is shared, and nobody's.
        session_id: of the login or the authenticated session; empty: not known.
        authenticated: by SMTP AUTH. False: by a login.
        recipients: how many.
        messages: how many; 0: more recipients of a message that was counted before.
    """

    user: UserKey | None
    network: bytes | None
    session_id: str
    authenticated: bool
    recipients: int
    messages: int = 0


class RateCount(NamedTuple):
    """Something to count.

    Attributes:
        rate: user, network or login.
        key: names the counter.
        amount: to add.
        limit: of the total in RATE_WINDOW.
    """

    rate: str
    key: str
    amount: int
    limit: int


def limit_for(config: RatesConfig, user: UserKey | None, *, authenticated: bool) -> RateLimit:
    """The limit of a user; without one the common one."""
    return _own_limit(config, user, authenticated=authenticated) or _common(config, authenticated)


def rate_counts(config: RatesConfig, wanted: RelayWanted) -> Iterator[RateCount]:
    """What is counted: nothing where there is no limit.

    The two ways in are counted apart: what an infected machine sends by the login of a user whose
    address it shares takes nothing from those who authenticate. A user with a limit of his own is
    not counted for his network.
    """
    own = _own_limit(config, wanted.user, authenticated=wanted.authenticated)
    common = _common(config, wanted.authenticated)
    limit = own or common
    way = "auth" if wanted.authenticated else "login"
    if wanted.user is not None:
        yield from _counts("user", limit, wanted, way, wanted.user.name, wanted.user.context)
    if wanted.network is not None and own is None:
        yield from _counts("network", common, wanted, way, wanted.network.hex())
    if wanted.session_id:
        yield from _counts("login", limit, wanted, way, wanted.session_id)


def _counts(
    rate: str, limit: RateLimit, wanted: RelayWanted, way: str, *whose: str
) -> Iterator[RateCount]:
    if limit.recipients and wanted.recipients:
        key = _key("rcpt", way, rate, whose)
        yield RateCount(rate, key, wanted.recipients, limit.recipients)
    if limit.messages and wanted.messages:
        key = _key("mail", way, rate, whose)
        yield RateCount(rate, key, wanted.messages, limit.messages)


@functools.lru_cache(maxsize=_KEYS)
def _key(what: str, way: str, rate: str, whose: tuple[str, ...]) -> str:
    digest = hashlib.blake2b("\0".join(whose).encode("utf-8", "replace"), digest_size=16)
    return f"{what}:{way}:{rate}:{digest.hexdigest()}"


def _common(config: RatesConfig, authenticated: bool) -> RateLimit:
    return config.after_auth if authenticated else config.after_login


def _own_limit(
    config: RatesConfig, user: UserKey | None, *, authenticated: bool
) -> RateLimit | None:
    if user is None:
        return None
    for override in config.overrides:
        limit = override.after_auth if authenticated else override.after_login
        if (
            limit is not None
            and override.context == user.context
            and override.user in {None, user.name}
        ):
            return limit
    return None
