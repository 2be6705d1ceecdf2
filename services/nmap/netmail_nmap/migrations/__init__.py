"""Alembic migrations of the store's schema; `upgrade` runs them on an open connection."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def alembic_config() -> Config:
    """Alembic's configuration, without a file: the migrations travel in the package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def newer_revision(connection: Connection) -> str | None:
    """The revision of a database that a newer agent has migrated; None: it is not newer."""
    current = MigrationContext.configure(connection).get_current_revision()
    known = {
        script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()
    }
    return current if current is not None and current not in known else None


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to REVISION, in one transaction of CONNECTION."""
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
