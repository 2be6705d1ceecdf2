"""Databases of one PostgreSQL server that lives as long as the tests do."""

import asyncio
import atexit
import contextlib
import functools
import threading
from collections.abc import AsyncIterator

from netmail_common.config import ObjectsConfig
from netmail_nmap.adapters.postgresql import Place, open_postgresql

from tests.support.object_store import ObjectServer, object_server
from tests.support.postgresql import Server, postgresql

_until_the_end = contextlib.ExitStack()
_idle: list[str] = []
_CLEAN = """
DO $$ BEGIN
  EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY'
    FROM pg_tables
    WHERE schemaname = 'public' AND tablename NOT IN ('alembic_version', 'store_meta'));
END $$;
DELETE FROM store_meta WHERE key NOT IN ('store_id', 'uid_validity');
UPDATE store_meta SET value = '1700000000' WHERE key = 'uid_validity'
"""


@functools.cache
def server() -> Server:
    """Skips without the Debian package."""
    atexit.register(_until_the_end.close)
    return _until_the_end.enter_context(postgresql("autovacuum=off"))


@functools.cache
def _template() -> str:
    """An empty migrated database: made once, since the migration takes longer than most tests."""
    url = server().create()

    async def make() -> None:
        async with open_postgresql(Place(url), readers=1, writers=1):
            pass

    thread = threading.Thread(target=asyncio.run, args=(make(),))
    thread.start()
    thread.join()
    return url.rpartition("/")[2]


@functools.cache
def s3() -> ObjectServer:
    """Skips where it cannot be built."""
    atexit.register(_until_the_end.close)
    return _until_the_end.enter_context(object_server())


def objects_config() -> ObjectsConfig:
    """A bucket of one's own."""
    return ObjectsConfig.model_validate(s3().settings(f"s3://{s3().bucket()}/mail"))


@contextlib.asynccontextmanager
async def database() -> AsyncIterator[Place]:
    """An empty store, that another test may have afterwards."""
    url = await asyncio.to_thread(_empty)
    yield Place(url)
    _idle.append(url)


def _empty() -> str:
    if not _idle:
        return server().create(_template())
    url = _idle.pop()
    server().sql(_CLEAN, url.rpartition("/")[2])
    return url
