"""What the audit log says: who logged in, relayed, was refused or revoked, in lines of JSON."""

import base64
import functools
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from netmail_common.connmgr.model import UserKey
from netmail_common.networks import Located, NetworkMap

__all__ = ["AuditEntry", "AuditFormat", "AuditKind", "AuditQuestion", "Repeats"]

MIN_KEY = 32
"""Octets of a key for pseudonyms, at least."""
_KEPT = 4096
"""Words that are not made again."""
_WORD = 20
"""Characters of a pseudonym: 100 bits."""


class AuditKind(StrEnum):
    """What happened."""

    LOGIN = "login"
    RELAY = "relay"
    REVOCATION = "revocation"
    DENIAL = "denial"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Something that happened.

    Attributes:
        event: in a word or two: "login registered".
        address: the client's, 4 or 16 octets; empty: none is known.
        users: everybody with a login there, where that matters.
        details: more of it; empty ones are left out.
    """

    kind: AuditKind
    event: str
    user: UserKey | None = None
    address: bytes = b""
    users: tuple[UserKey, ...] = ()
    details: Mapping[str, str | int | bool] = field(default_factory=dict)


class AuditFormat:
    """Writes entries as lines.

    Args:
        networks: gives the map from addresses to networks of this moment.
        key: addresses and networks stand as HMAC by it; None: as they are.
    """

    def __init__(self, networks: Callable[[], NetworkMap], key: bytes | None = None) -> None:
        self._networks = networks
        self._key = key
        self._word = functools.lru_cache(maxsize=_KEPT)(self._make_word)
        self._network_word = functools.lru_cache(maxsize=_KEPT)(self._make_network_word)

    def line(self, entry: AuditEntry, wall: float) -> bytes:
        """An entry that happened at a time, seconds since 1970; with its line end."""
        time = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
        record: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "kind": entry.kind.value,
            "event": entry.event,
        }
        if entry.user is not None:
            record["user"], record["context"] = entry.user
        if len(entry.users) > 1:
            record["users"] = [list(user) for user in entry.users]
        if entry.address:
            record["address"] = self._address(entry.address)
            record["network"] = self.network(entry.address)
        record.update((name, value) for name, value in entry.details.items() if value != "")
        return _json(record) + b"\n"

    def network(self, address: bytes) -> str:
        """The network of an address as the log writes it; empty for what is no address."""
        try:
            return self._network_word(self._networks().locate(address))
        except ValueError:
            return ""

    def _address(self, address: bytes) -> str:
        if len(address) not in {4, 16}:
            return ""
        return self._word(str(ipaddress.ip_address(address)))

    def _make_network_word(self, where: Located) -> str:
        return self._word(str(where.network))

    def _make_word(self, text: str) -> str:
        if self._key is None:
            return text
        digest = hmac.digest(self._key, text.encode(), hashlib.sha256)
        return "~" + base64.b32encode(digest).decode().lower()[:_WORD]


@dataclass(frozen=True, slots=True)
class AuditQuestion:
    """Which records are wanted; unset: any.

    Attributes:
        network: as AuditFormat.network gives it.
        since: seconds since 1970.
    """

    user: UserKey | None = None
    network: str | None = None
    since: float = 0.0

    def needles(self) -> tuple[bytes, ...]:
        """Octets that are in every line that is wanted: looking for them is quick."""
        texts = [self.network] if self.network is not None else []
        if self.user is not None:
            texts.append(self.user.name)
        return tuple(_json(text) for text in texts)

    def matching(self, line: bytes) -> dict[str, Any] | None:
        """The record of a line, if it is wanted; a line that is none never is."""
        try:
            record = json.loads(line)
            happened = datetime.fromisoformat(record["time"]).timestamp()
            wanted = happened >= self.since and self._fits(record)
        except (ValueError, KeyError, TypeError):
            return None
        return record if wanted else None

    def _fits(self, record: dict[str, Any]) -> bool:
        if self.network is not None and record.get("network") != self.network:
            return False
        if self.user is None:
            return True
        named = [record.get("user"), record.get("context")] == list(self.user)
        return named or list(self.user) in record.get("users", [])


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json(value: object) -> bytes:
    return _encode(value).encode(errors="replace")


class Repeats:
    """Keeps what a stranger can repeat at will to one entry a minute for each kind of it.

    Args:
        window: seconds.
        most: different ones that are remembered at once.
    """

    def __init__(self, *, window: float = 60.0, most: int = 10_000) -> None:
        self._window = window
        self._most = most
        self._seen: dict[object, tuple[float, int]] = {}

    def admit(self, key: object, now: float) -> int | None:
        """How many went unwritten since the last one that was written; None: nor is this."""
        since, unwritten = self._seen.get(key, (float("-inf"), 0))
        if now - since < self._window:
            self._seen[key] = (since, unwritten + 1)
            return None
        self._seen.pop(key, None)
        while len(self._seen) >= self._most:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now, 0)
        return unwritten
