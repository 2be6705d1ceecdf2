"""The table of device passwords."""

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import sqlalchemy as sa

from netmail_nmap.adapters.schema import device_passwords
from netmail_nmap.adapters.sql import Driver, Statement
from netmail_nmap.domain.devices import Device, DeviceUse, NewDevice

__all__ = [
    "devices_of",
    "due_devices",
    "has_due",
    "insert_device",
    "remove_device",
    "store_uses",
    "uses_of",
]

_bind = sa.bindparam
_table = device_passwords
_SELECT = sa.select(
    _table.c.id,
    _table.c.name,
    _table.c.digest,
    _table.c.services,
    _table.c.networks,
    _table.c.expires_at,
    _table.c.created_at,
    _table.c.used_at,
    _table.c.used_from,
)
_OF_USER = Statement(_SELECT.where(_table.c.user_id == _bind("user_id")).order_by(_table.c.id))
_USED = Statement(
    sa.update(_table)
    .where(_table.c.id == _bind("device_id"))
    .values(used_at=_bind("at"), used_from=_bind("source"))
)

_DUE = Statement(
    sa.select(_table.c.id)
    .where(_table.c.expires_at <= _bind("now"), _table.c.ended.is_(sa.false()))
    .limit(1)
)


def devices_of(driver: Driver, user_id: int) -> tuple[Device, ...]:
    """A user's device passwords."""
    return tuple(_device(row) for row in _OF_USER.all(driver, user_id=user_id))


def uses_of(driver: Driver, user_id: int) -> list[DeviceUse]:
    """The same with their times."""
    return [DeviceUse(_device(row), *row[6:9]) for row in _OF_USER.all(driver, user_id=user_id)]


def insert_device(connection: sa.Connection, user_id: int, device: NewDevice, now: int) -> None:
    """Stores one."""
    connection.execute(
        sa.insert(_table).values(
            user_id=user_id,
            name=device.name,
            name_key=device.name_key,
            digest=device.digest,
            services=json.dumps(list(device.services)),
            networks=json.dumps(list(device.networks)),
            expires_at=device.expires_at,
            created_at=now,
        )
    )


def remove_device(connection: sa.Connection, user_id: int, name_key: str) -> bool:
    """Removes one; False: there is none."""
    result = connection.execute(
        sa.delete(_table).where(_table.c.user_id == user_id, _table.c.name_key == name_key)
    )
    return result.rowcount > 0


def has_due(driver: Driver, now: int) -> bool:
    """Whether `due_devices` has anything to do."""
    return _DUE.first(driver, now=now) is not None


def due_devices(connection: sa.Connection, now: int) -> list[int]:
    """Marks the passwords that have come to their end; the users whose they were."""
    due = sa.and_(_table.c.expires_at <= now, _table.c.ended.is_(sa.false()))
    users = list(connection.scalars(sa.select(_table.c.user_id).where(due).distinct()))
    if users:
        connection.execute(sa.update(_table).where(due).values(ended=True))
    return users


def store_uses(driver: Driver, uses: Mapping[int, tuple[int, str]]) -> None:
    """Stores last uses by the devices' ids."""
    for device_id, (at, source) in uses.items():
        _USED.run(driver, device_id=device_id, at=at, source=source)


def _device(row: Any) -> Device:
    return Device(
        id=row[0],
        name=row[1],
        digest=row[2],
        services=frozenset(json.loads(row[3])),
        networks=tuple(ip_network(text) for text in json.loads(row[4])),
        expires_at=row[5],
    )
