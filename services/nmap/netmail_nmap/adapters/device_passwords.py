"""Logins with the password of a single device."""

import hmac
import time
from collections.abc import Callable

from netmail_common.logging import get_logger

from netmail_nmap.adapters.device_administration import DeviceUses
from netmail_nmap.domain.devices import Device, digest
from netmail_nmap.domain.users import UserRecord

__all__ = ["DevicePasswords"]

log = get_logger(__name__)


class DevicePasswords:
    """Judges device passwords.

    Args:
        key: of their digests.
        uses: told of each login.
        clock: seconds since the epoch.
    """

    def __init__(
        self, key: bytes, uses: DeviceUses, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = key
        self._uses = uses
        self._clock = clock

    def find(self, user: UserRecord, password: str) -> Device | None:
        """The user's device whose password this is."""
        if not user.devices:
            return None
        given = digest(self._key, password)
        fitting = [one for one in user.devices if hmac.compare_digest(one.digest, given)]
        return fitting[0] if fitting else None

    def admit(self, device: Device, service: str, client_address: str) -> bool:
        """Whether the password counts now, for that service, from there; if so it was used."""
        refusal = device.refusal(service, client_address, self._clock())
        if refusal:
            log.info(
                "device password refused",
                device=device.name,
                reason=refusal,
                service=service,
                client=client_address,
            )
            return False
        self._uses.used(device.id, client_address)
        return True
