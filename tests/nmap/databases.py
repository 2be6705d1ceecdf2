"""Databases of one PostgreSQL server that lives as long as the tests do."""

import asyncio
import atexit
import contextlib
import functools
import threading
from pathlib import Path

from netmail_nmap.adapters.postgresql import Place, open_postgresql

from tests.support.postgresql import Server, postgresql

_until_the_end = contextlib.ExitStack()
_folders: dict[Path, str] = {}


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


def new() -> str:
    """The URL of an empty store."""
    return server().create(_template())


def of(folder: Path) -> str:
    """The store that belongs to a folder."""
    if folder not in _folders:
        _folders[folder] = new()
    return _folders[folder]
