"""The schema: brought up to date at the start, by one process at a time."""

import secrets
import time

import sqlalchemy as sa
from netmail_common.logging import get_logger
from sqlalchemy.dialects.postgresql import insert

from netmail_nmap import migrations
from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._driver import ERRORS, make_engine
from netmail_nmap.adapters.schema import store_meta
from netmail_nmap.domain.errors import StoreUnavailable

_log = get_logger(__name__)

_LOCK = 0x6E65746D61696C  # "netmail"


def prepare(place: Place) -> None:
    """Brings the schema up to date, gives the store its id.

    Raises: StoreUnavailable, and nothing was changed.
    """
    name = str(place)
    engine = make_engine(place.connect_patiently)
    try:
        with engine.connect() as connection:
            check(connection, name)
            _migrate(connection)
    except ERRORS as error:
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise StoreUnavailable(f"{name} cannot be opened or migrated: {reason}") from error


def check(connection: sa.Connection, name: str) -> None:
    """What is answered must be durable, and what is stored must come back as it was.

    Raises: StoreUnavailable.
    """
    if connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "off":
        raise StoreUnavailable(f"{name}: synchronous_commit is off: mail would be lost")
    if connection.exec_driver_sql("SHOW server_encoding").scalar() != "UTF8":
        raise StoreUnavailable(f"{name}: its encoding is not UTF8")


def lock(connection: sa.Connection) -> None:
    """Until the transaction ends nobody else migrates, and no agent starts."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.literal(_LOCK, sa.BigInteger))))


def _migrate(connection: sa.Connection) -> None:
    driver = connection.connection.driver_connection
    if driver is None:
        raise StoreUnavailable
    driver.begin(writing=True)
    lock(connection)
    newer = migrations.newer_revision(connection)
    if newer is None:
        migrations.upgrade(connection)
    else:
        # In the middle of an upgrade, or after its rollback: a release only adds to the schema
        # what the one before does not mind.
        _log.warning("a newer agent has migrated the database", revision=newer)
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
