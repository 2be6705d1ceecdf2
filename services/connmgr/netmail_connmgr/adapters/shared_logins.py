"""A network that becomes shared loses its logins."""

import asyncio

from netmail_common.connmgr.model import Login
from netmail_common.logging import get_logger
from netmail_common.networks import NetworkMap, network_of

from netmail_connmgr.adapters import record
from netmail_connmgr.domain.store import LoginFilter, LoginStore, RevokeOrder, StoreError

__all__ = ["forget_shared_logins"]

_PAGE = 500
_PAUSE = 1.0

log = get_logger(__name__)


async def forget_shared_logins(store: LoginStore, networks: NetworkMap) -> int:
    """Ends the logins that were kept as granting and are shared under NETWORKS; how many.

    Goes on until it is done, however long the store is away.
    """
    forgotten, token = 0, ""
    while True:
        try:
            page = await store.list_logins(LoginFilter(), _PAGE, token)
            for login in page.logins:
                if _has_become_shared(login, networks):
                    forgotten += await _end(store, login, networks)
        except StoreError as error:
            log.warning("logins of shared networks not ended yet", error=type(error).__name__)
            await asyncio.sleep(_PAUSE)
            token = ""
            continue
        token = page.next_token
        if not token:
            if forgotten:
                log.warning("networks became shared; their logins ended", logins=forgotten)
            return forgotten
        await asyncio.sleep(0)


def _has_become_shared(login: Login, networks: NetworkMap) -> bool:
    granting = network_of(login.place) == login.place
    return granting and networks.locate(login.client_address).standing.shared


async def _end(store: LoginStore, login: Login, networks: NetworkMap) -> int:
    order = RevokeOrder(
        user=None,
        network=network_of(login.place),
        credential_epoch=0,
        client_address=login.client_address,
        prefix_length=networks.locate(login.client_address).prefix_length,
        reason="network became shared",
    )
    revoked = await store.revoke(order)
    record.revocation(order, revoked)
    return revoked
