"""Bodies in an S3-compatible object store: what follows the header section, in objects of 4 MiB.

An object is never changed. It is there before a row of the database refers to it, and goes after
the row has gone, so that no row's octets are missing.
"""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from netmail_common.config import ObjectsConfig
from netmail_common.logging import get_logger

from netmail_nmap.domain.errors import StoreUnavailable

__all__ = ["PART", "BodyObjects"]

PART = 4 * 1024 * 1024
"""Octets of every object of a body but the last; stored bodies rely on it."""

_CREDENTIALS = dt.timedelta(minutes=1)
"""Files of credentials are read again after so long."""
_REMOVED_AT_ONCE = 100

_log = get_logger(__name__)


class BodyObjects:
    """The objects of one store's bodies; its functions may be called from any thread.

    Args:
        config: where they are.
        min_size: bodies with more octets than that go there.
    """

    def __init__(self, config: ObjectsConfig, *, min_size: int | None = None) -> None:
        import obstore  # noqa: PLC0415 - takes time, and most installations do without
        from obstore.exceptions import BaseError  # noqa: PLC0415
        from obstore.store import S3Store  # noqa: PLC0415

        url = urlsplit(config.url)
        options: dict[str, Any] = {
            "region": config.region,
            "virtual_hosted_style_request": config.virtual_hosted,
        }
        if config.endpoint is not None:
            options["endpoint"] = config.endpoint
        if config.access_key_file is not None and config.secret_key_file is not None:
            options["credential_provider"] = _Credentials(
                config.access_key_file, config.secret_key_file
            )
        self._obstore = obstore
        self._errors = (BaseError, OSError, ValueError)
        self._store = S3Store(
            url.netloc,
            prefix=url.path.strip("/") or None,
            client_options={
                "timeout": "30s",
                "connect_timeout": "5s",
                "allow_http": (config.endpoint or "").startswith("http://"),
            },
            retry_config={"max_retries": 3, "retry_timeout": dt.timedelta(seconds=20)},
            **options,
        )
        self._where = config.url
        self._folder = ""
        self.min_size = config.min_size if min_size is None else min_size

    @classmethod
    def from_config(cls, config: ObjectsConfig | None) -> "BodyObjects | None":
        """Those that are configured, if any are."""
        return None if config is None else cls(config)

    def bind(self, store_id: str) -> None:
        """From now on it is about the bodies of this store: several may share a bucket."""
        self._folder = f"{store_id}/"

    def check(self) -> None:
        """Raises: StoreUnavailable when the bucket cannot be read."""
        try:
            for _ in self._obstore.list(self._store, self._folder, chunk_size=1):
                break
        except self._errors as error:
            raise self._unavailable(error) from error

    async def put(self, body_id: int, index: int, data: bytes) -> None:
        """Keeps one object; it is durable when this returns. Raises: StoreUnavailable."""
        try:
            await self._obstore.put_async(
                self._store, self._key(body_id, index), data, use_multipart=False
            )
        except self._errors as error:
            raise self._unavailable(error) from error

    def put_now(self, body_id: int, index: int, data: bytes) -> None:
        """The same, in a thread."""
        try:
            self._obstore.put(self._store, self._key(body_id, index), data, use_multipart=False)
        except self._errors as error:
            raise self._unavailable(error) from error

    def read(self, body_id: int, start: int, end: int) -> Iterator[bytes]:
        """Octets START to END of what follows the header, object by object, in a thread.

        Fewer come when the body is not there (any more). Raises: StoreUnavailable.
        """
        while start < end:
            index, offset = divmod(start, PART)
            length = min(end - start, PART - offset)
            try:
                data = self._obstore.get_range(
                    self._store, self._key(body_id, index), start=offset, length=length
                ).to_bytes()
            except FileNotFoundError:
                return
            except self._errors as error:
                raise self._unavailable(error) from error
            yield data
            if len(data) < length:
                return
            start += length

    def remove(self, body_id: int) -> int:
        """Removes what there is of a body, in a thread; gives how many objects that were.

        Raises: StoreUnavailable.
        """
        folder = self._key(body_id, 0).rpartition("/")[0] + "/"
        removed = 0
        try:
            for batch in self._obstore.list(self._store, folder, chunk_size=_REMOVED_AT_ONCE):
                paths = [one["path"] for one in batch]
                self._obstore.delete(self._store, paths)
                removed += len(paths)
        except self._errors as error:
            raise self._unavailable(error) from error
        return removed

    def bodies(self, older_than: dt.timedelta) -> Iterator[set[int]]:
        """Ids of bodies that have objects of that age, page by page, in a thread.

        Raises: StoreUnavailable.
        """
        limit = dt.datetime.now(dt.UTC) - older_than
        try:
            for batch in self._obstore.list(self._store, self._folder, chunk_size=1000):
                found = {
                    int(one["path"].split("/")[-2], 16)
                    for one in batch
                    if one["last_modified"] < limit
                }
                if found:
                    yield found
        except self._errors as error:
            raise self._unavailable(error) from error

    def _key(self, body_id: int, index: int) -> str:
        if not self._folder:
            raise AssertionError("it is not said of which store")
        return f"{self._folder}{body_id:x}/{index}"

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        _log.error("the object store failed", error=type(error).__name__)
        return StoreUnavailable(f"{self._where}: {type(error).__name__}")


class _Credentials:
    """Reads the files again from time to time: they may change."""

    def __init__(self, access_key: Path, secret_key: Path) -> None:
        self._files = (access_key, secret_key)

    def __call__(self) -> dict[str, Any]:
        access_key, secret_key = (
            one.read_text(encoding="utf-8").rstrip("\r\n") for one in self._files
        )
        return {
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "token": None,
            "expires_at": dt.datetime.now(dt.UTC) + _CREDENTIALS,
        }
