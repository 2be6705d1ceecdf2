"""Snapshots of PostgreSQL for `Readers`."""

import contextlib

import sqlalchemy as sa

from netmail_nmap.adapters.postgresql._driver import ERRORS
from netmail_nmap.adapters.sql import Snapshot


class LastingSnapshot(Snapshot):
    """A connection that is opened when it is needed, and again when it was lost."""

    errors = ERRORS

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._open = False

    def begin(self) -> None:
        """What is read from now on is of one moment."""
        if self._open and not self.driver.lost:
            try:
                self.driver.begin(writing=False)
            except ERRORS:
                if not self.driver.lost:
                    raise
            else:
                return
        self.close()
        self.connection = self._engine.connect()
        self.driver = self.connection.connection.driver_connection
        self._open = True
        self.driver.begin(writing=False)

    def end(self) -> None:
        """Until here: nothing was written."""
        self.driver.rollback()

    def close(self) -> None:
        """Closes the connection."""
        if self._open:
            self._open = False
            with contextlib.suppress(*ERRORS):
                self.connection.close()
