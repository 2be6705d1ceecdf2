"""Device passwords: making, listing and removing them, what becomes of old ones, and last uses."""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence

from netmail_common.logging import get_logger
from netmail_common.mail_address import fold
from netmail_common.sasl import check_user_name

from netmail_nmap.adapters.administration import UserAdministration
from netmail_nmap.domain.devices import SERVICES, DeviceUse, NewDevice, digest, new_password
from netmail_nmap.domain.directory_errors import DeviceExists, DeviceNotFound, InvalidDevice
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.users import DirectoryStore, UserChanges, UserRecord

__all__ = ["DeviceAdministration", "DeviceUses", "end_old_devices"]

MAX_DEVICES = 100
"""Device passwords of one user."""
MAX_NETWORKS = 100
_MAX_LIFETIME = 100 * 365 * 86_400
_WRITE_EVERY = 10.0
_SAME_USE = 60.0
"""Seconds within which a further login of a device is not worth writing."""
_MAX_PENDING = 100_000

log = get_logger(__name__)


class DeviceAdministration:
    """Changes the device passwords of users, named as in UserAdministration.

    Args:
        users: finds and changes users.
        key: of the passwords' digests.
        clock: seconds since the epoch.
    """

    def __init__(
        self, users: UserAdministration, key: bytes, clock: Callable[[], float] = time.time
    ) -> None:
        self._users = users
        self._key = key
        self._clock = clock

    def now(self) -> float:
        """Seconds since the epoch, on the clock of the passwords' ends."""
        return self._clock()

    async def create(
        self,
        user: str,
        context: str,
        name: str,
        services: Sequence[str],
        networks: Sequence[str],
        expires_in: int | None,
    ) -> tuple[DeviceUse, str]:
        """Makes a password for one device.

        Args:
            services: of smtp, pop3, imap; empty: all.
            networks: in CIDR form; empty: anywhere.
            expires_in: seconds; None: it has no end.

        Returns: the device, and the password, which is not kept.

        Raises: InvalidDevice, DeviceExists, UserNotFound, StoreUnavailable.
        """
        password = new_password()
        device = NewDevice(
            name=_checked_name(name),
            name_key=fold(name),
            digest=digest(self._key, password),
            services=_checked_services(services),
            networks=_checked_networks(networks),
            expires_at=self._end(expires_in),
        )

        def add(changes: UserChanges, owner: UserRecord) -> None:
            if len(owner.devices) >= MAX_DEVICES:
                raise InvalidDevice(f"at most {MAX_DEVICES} device passwords for one user")
            if any(fold(known.name) == device.name_key for known in owner.devices):
                raise DeviceExists
            changes.add_device(owner.id, device)

        await self._users.change(user, context, add)
        made = await self.list(user, context)
        return next(one for one in made if fold(one.device.name) == device.name_key), password

    async def list(self, user: str, context: str) -> list[DeviceUse]:
        """A user's device passwords.

        Raises: UserNotFound, StoreUnavailable.
        """
        return await self._users.read(user, context, lambda stored, one: stored.devices_of(one.id))

    async def remove(self, user: str, context: str, name: str) -> None:
        """Removes one; the user's logins and sessions end.

        Raises: UserNotFound, DeviceNotFound, StoreUnavailable.
        """

        def remove(changes: UserChanges, owner: UserRecord) -> None:
            if not changes.remove_device(owner.id, fold(name)):
                raise DeviceNotFound

        await self._users.change(user, context, remove)

    def _end(self, expires_in: int | None) -> int | None:
        if expires_in is None:
            return None
        if not 0 < expires_in <= _MAX_LIFETIME:
            raise InvalidDevice("the end lies in the past, or too far away")
        return int(self._clock()) + expires_in


class DeviceUses:
    """Remembers last uses and writes them down now and then; what a crash takes is no loss."""

    def __init__(self, store: DirectoryStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._written: dict[int, float] = {}
        self._pending: dict[int, tuple[int, str]] = {}

    def used(self, device_id: int, client_address: str) -> None:
        """A login with a device password succeeded."""
        now = self._clock()
        if now - self._written.get(device_id, float("-inf")) < _SAME_USE:
            return
        if len(self._written) >= _MAX_PENDING:
            self._written.clear()
        self._written[device_id] = now
        self._pending[device_id] = (int(now), client_address)

    async def write(self) -> None:
        """Writes what there is.

        Raises: StoreUnavailable.
        """
        pending, self._pending = self._pending, {}
        if pending:
            await self._store.devices_used(pending)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await asyncio.sleep(_WRITE_EVERY)
            try:
                await self.write()
            except StoreUnavailable:
                log.warning("last uses of device passwords were not written")


async def end_old_devices(store: DirectoryStore, now: float) -> int:
    """Ends the logins of users whose device passwords have come to their end; how many users.

    Raises: StoreUnavailable.
    """
    if not await store.read(lambda stored: stored.has_old_devices(int(now))):
        return 0
    return await store.write(lambda changes: changes.end_devices(int(now)))


def _checked_name(name: str) -> str:
    try:
        return check_user_name(name)
    except ValueError as error:
        raise InvalidDevice(f"name: {error}") from error


def _checked_services(services: Sequence[str]) -> Sequence[str]:
    unknown = set(services) - SERVICES
    if unknown:
        raise InvalidDevice(f"services are {', '.join(sorted(SERVICES))}")
    return sorted(set(services))


def _checked_networks(networks: Sequence[str]) -> Sequence[str]:
    if len(networks) > MAX_NETWORKS:
        raise InvalidDevice(f"at most {MAX_NETWORKS} networks")
    try:
        return [str(ipaddress.ip_network(text)) for text in networks]
    except ValueError:
        raise InvalidDevice("networks are in CIDR form, host bits zero") from None
