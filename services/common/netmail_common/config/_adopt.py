"""What of a changed configuration a running process takes, and what has to wait for its restart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from netmail_common.config._base import Section, is_reloaded
from netmail_common.config._load import ConfigError, explain_faults
from netmail_common.config.installation import Installation

__all__ = ["ANY", "Adopted", "FixedKeys", "Key", "adopt"]

Key = tuple[str, ...]
"""A place in the configuration: keys, and names where a list has named sections."""

ANY = "*"
"""In FixedKeys: every name of a list."""

_EVERYBODY: tuple[Key, ...] = (("installation",), ("state_dir",), ("log",), ("grpc",))

_OTHER_AGENTS: tuple[Key, ...] = (
    ("messaging_servers", ANY, "standalone"),
    ("messaging_servers", ANY, "nmap", "listen"),
    ("messaging_servers", ANY, "nmap", "address"),
)


@dataclass(frozen=True, slots=True)
class FixedKeys:
    """Which keys a process has made something of that it keeps.

    What is below them and not marked as reloaded stays as it was when the process began. All else
    is taken as it is in the file: the process reads it anew, or never.
    """

    keys: tuple[Key, ...]

    @classmethod
    def of_connection_manager(cls, name: str) -> "FixedKeys":
        """Those of a Connection Manager, its front ends included."""
        return cls(
            (
                *_EVERYBODY,
                ("connection_managers", name),
                ("messaging_servers", ANY, "connection_manager"),
            )
        )

    @classmethod
    def of_agent(cls, installation: Installation, server: str, *sections: str) -> "FixedKeys":
        """Those of an agent of a Messaging Server.

        Args:
            installation: as the agent has started with it.
            server: the Messaging Server.
            sections: of it that are the agent's own.
        """
        own = ("name", "host_name", "connection_manager", "tls", *sections)
        manager = installation.messaging_server(server).connection_manager
        return cls(
            (
                *_EVERYBODY,
                *(("messaging_servers", server, section) for section in own),
                *_OTHER_AGENTS,
                *(
                    ("connection_managers", manager, section)
                    for section in ("listen", "address", "ipv6_prefix", "nat64_prefixes")
                    if manager is not None
                ),
            )
        )

    @classmethod
    def of_nmap_agent(cls, installation: Installation, server: str) -> "FixedKeys":
        """Those of an NMAP agent, which tells every Connection Manager of users that are gone."""
        return cls(
            (
                *cls.of_agent(installation, server, "nmap").keys,
                ("messaging_servers", ANY, "connection_manager"),
                ("connection_managers", ANY, "listen"),
                ("connection_managers", ANY, "address"),
            )
        )

    def concern(self, key: Key) -> bool:
        """Whether something of it, or all of it, is fixed."""
        return any(
            all(one in {ANY, other} for one, other in zip(fixed, key, strict=False))
            for fixed in self.keys
        )


@dataclass(frozen=True, slots=True)
class Adopted:
    """The configuration that a process goes on with.

    Attributes:
        installation: what is reloaded as it is in the file, the rest as it was.
        changed: keys that were taken.
        waiting: keys of the file that need a restart.
    """

    installation: Installation
    changed: tuple[Key, ...]
    waiting: tuple[Key, ...]


def adopt(running: Installation, read: Installation, fixed: FixedKeys) -> Adopted:
    """Takes from a configuration what can be taken without a restart.

    Args:
        running: what the process runs with.
        read: what the file says now.
        fixed: what the process cannot change.

    Raises: ConfigError: what was taken does not fit to what has to wait.
    """
    merge = _Merge(fixed)
    merged = merge.sections(running, read, ())
    try:
        installation = Installation.model_validate(merged.model_dump())
    except ValidationError as error:
        raise ConfigError(
            f"{explain_faults(error)}\n(beside what needs a restart: {name_keys(merge.waiting)})"
        ) from None
    return Adopted(installation, tuple(merge.changed), tuple(merge.waiting))


def name_keys(keys: Sequence[Key]) -> str:
    """Keys for people: `connection_managers.main.listen, ...`; not more than a line holds."""
    shown = ", ".join(".".join(key) for key in keys[:_SHOWN])
    return f"{shown}, and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else shown


_SHOWN = 20


class _Merge:
    """One comparison of two configurations."""

    def __init__(self, fixed: FixedKeys) -> None:
        self._fixed = fixed
        self.changed: list[Key] = []
        self.waiting: list[Key] = []

    def sections(self, running: Section, read: Section, place: Key) -> Section:
        """RUNNING, with what READ may change of it."""
        values = {
            name: self._value(
                getattr(running, name),
                getattr(read, name),
                (*place, name),
                reloaded=is_reloaded(field),
            )
            for name, field in type(running).model_fields.items()
        }
        return running.model_copy(update=values)

    def _value(self, running: Any, read: Any, place: Key, *, reloaded: bool) -> Any:
        if running == read:
            return running
        if reloaded or not self._fixed.concern(place):
            self.changed.append(place)
            return read
        if isinstance(running, Section) and type(running) is type(read):
            return self.sections(running, read, place)
        before, after = _by_name(running), _by_name(read)
        if before is None or after is None:
            self.waiting.append(place)
            return running
        return self._named(before, after, place)

    def _named(
        self, before: dict[str, Section], after: dict[str, Section], place: Key
    ) -> list[Section]:
        """A list of named sections: each by its name; those that come or go, as a whole."""
        merged = []
        for name, section in before.items():
            here = (*place, name)
            if name in after:
                merged.append(self._value(section, after[name], here, reloaded=False))
            elif self._fixed.concern(here):
                self.waiting.append(here)
                merged.append(section)
            else:
                self.changed.append(here)
        for name in after.keys() - before.keys():
            here = (*place, name)
            if self._fixed.concern(here):
                self.waiting.append(here)
            else:
                self.changed.append(here)
                merged.append(after[name])
        return merged


def _by_name(value: Any) -> dict[str, Section] | None:
    """The sections of a list by their names; None: it is no such list."""
    if not isinstance(value, list):
        return None
    named = {name: one for one in value if (name := getattr(one, "name", None)) is not None}
    return named if len(named) == len(value) else None
