"""The schema: brought up to date at the start, by one process at a time."""

import secrets
import time

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from netmail_nmap import migrations
from netmail_nmap.adapters.postgresql._driver import ERRORS
from netmail_nmap.adapters.schema import store_meta
from netmail_nmap.domain.errors import StoreUnavailable

_LOCK = 0x6E65746D61696C  # "netmail"


def prepare(engine: sa.Engine, name: str) -> None:
    """Brings the schema up to date, gives the store its id.

    Raises: StoreUnavailable, and nothing was changed.
    """
    try:
        with engine.connect() as connection:
            _check(connection, name)
            _migrate(connection)
    except ERRORS as error:
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise StoreUnavailable(f"{name} cannot be opened or migrated: {reason}") from error


def _check(connection: sa.Connection, name: str) -> None:
    """What is answered must be durable, and what is stored must come back as it was."""
    if connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off":
        raise StoreUnavailable(f"{name}: synchronous_commit is off: mail would be lost")
    if connection.exec_driver_sql("SHOW server_encoding").scalar() != "UTF8":
        raise StoreUnavailable(f"{name}: its encoding is not UTF8")


def _migrate(connection: sa.Connection) -> None:
    driver = connection.connection.driver_connection
    if driver is None:
        raise StoreUnavailable
    driver.begin(writing=True)
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(_LOCK, sa.BigInteger))))
    migrations.upgrade(connection)
    connection.execute(
        insert(store_meta)
        .values(
            [
                {"key": "store_id", "value": secrets.token_hex(4)},
                {"key": "uid_validity", "value": str(int(time.time()))},
            ]
        )
        .on_conflict_do_nothing()
    )
    driver.commit()
