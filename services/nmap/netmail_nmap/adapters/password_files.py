"""The password files of the contexts that have one: which they are may change."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from netmail_nmap.adapters.htpasswd import PasswordFileSource

__all__ = ["PasswordFiles"]


class PasswordFiles:
    """Follows password files. Belongs to its event loop."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[Path, PasswordFileSource]] = {}
        self._watchers: dict[PasswordFileSource, asyncio.Task[None]] = {}

    async def load(self, paths: Mapping[str, Path]) -> dict[str, PasswordFileSource]:
        """The files of these contexts; those that are followed already are not read again.

        Raises: ConfigError when one cannot be read.
        """
        return {context: await self._load(context, path) for context, path in paths.items()}

    async def follow(
        self,
        sources: Mapping[str, PasswordFileSource],
        paths: Mapping[str, Path],
        changed: Callable[[PasswordFileSource], Awaitable[None]],
    ) -> None:
        """Follows what `load` gave for PATHS, and nothing else any more.

        Args:
            sources: by their contexts.
            paths: likewise.
            changed: is awaited when one has changed, and for one that was not followed before.

        Raises: what CHANGED raises.
        """
        for source in sources.values():
            if source not in self._watchers:
                await changed(source)
        for source in self._watchers.keys() - set(sources.values()):
            await _cancel(self._watchers.pop(source))
        for source in sources.values():
            if source not in self._watchers:
                self._watchers[source] = asyncio.create_task(source.watch(changed))
        self._sources = {context: (paths[context], source) for context, source in sources.items()}

    async def close(self) -> None:
        """Follows nothing any more."""
        for task in self._watchers.values():
            await _cancel(task)
        self._watchers.clear()

    async def _load(self, context: str, path: Path) -> PasswordFileSource:
        known = self._sources.get(context)
        if known is not None and known[0] == path:
            return known[1]
        source = PasswordFileSource(context, path)
        await source.load()
        return source


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
