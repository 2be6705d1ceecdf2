"""What every section of the configuration is made of."""

import ipaddress
import re
from typing import Annotated, Any, NamedTuple

import idna
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Reloaded:
    """The type of RELOADED."""


RELOADED = _Reloaded()
"""In a key's Annotated: agents take a new value while they run, of a section all that is in it."""


def is_reloaded(field: FieldInfo) -> bool:
    """Whether agents take a new value of a key while they run."""
    return RELOADED in field.metadata


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class HostPort(NamedTuple):
    """A host (name or address, IPv6 without brackets) and a port (0: the kernel's choice)."""

    host: str
    port: int

    def __str__(self) -> str:
        """Gives `host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host_port(text: str) -> HostPort:
    """Reads `host:port`, `192.0.2.1:25` or `[2001:db8::1]:25`.

    Raises: ValueError.
    """
    match = _HOST_PORT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} is not host:port (IPv6 addresses in brackets)")
    if match["v6"] is not None:
        ipaddress.IPv6Address(match["v6"])
    return HostPort(match["v6"] or match["host"], int(match["port"]))


def _check_host_port(text: str) -> str:
    parse_host_port(text)
    return text


def _check_target(text: str) -> str:
    parse_host_port(text.removeprefix("xds:///"))
    return text


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+)([smhd])", value)
        if match is None:
            raise ValueError("a duration is a number of seconds, or a number with s, m, h or d")
        return int(match[1]) * _UNITS[match[2]]
    return value


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _address_range(text: str) -> str:
    first, dash, last = (part.strip() for part in text.partition("-"))
    if not dash:
        return _network(text)
    low, high = ipaddress.ip_address(first), ipaddress.ip_address(last)
    if low.version != high.version or int(low) > int(high):
        raise ValueError(f"{text!r} is not a range of addresses, first to last")
    return f"{low}-{high}"


def _domain(text: str) -> str:
    try:
        return idna.encode(text, uts46=True).decode("ascii").lower()
    except idna.IDNAError as error:
        raise ValueError(f"{text!r} is not a domain name: {error}") from error


Address = Annotated[str, AfterValidator(_check_host_port)]
"""`host:port`; IPv6 in brackets."""

Target = Annotated[str, AfterValidator(_check_target)]
"""`host:port`, or `xds:///host:port`."""

Duration = Annotated[int, BeforeValidator(_seconds)]
"""Seconds; also written "15m", "2h", "5d"."""

NetworkRange = Annotated[str, AfterValidator(_network)]
"""A network in CIDR form, host bits zero."""

AddressRange = Annotated[str, AfterValidator(_address_range)]
"""A network in CIDR form, or a range `first-last` of addresses, both included."""

Domain = Annotated[str, AfterValidator(_domain)]
"""A domain name; kept as lower-case A-labels."""

Octets = Annotated[int, Field(ge=0)]
"""A size in octets."""
