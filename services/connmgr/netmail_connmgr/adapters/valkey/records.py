"""Logins and revocations as the store keeps them."""

import json
import struct
from collections.abc import Callable
from typing import Any

from netmail_common.connmgr.model import (
    Login,
    LoginProtocol,
    Profile,
    Registration,
    Revocation,
    UserKey,
)
from netmail_common.networks import network_of

from netmail_connmgr.adapters.valkey.clock import MICROSECONDS
from netmail_connmgr.adapters.valkey.connection import Argument

__all__ = [
    "BadEntry",
    "member_of",
    "members_of_network",
    "place_and_user",
    "read_login",
    "read_members",
    "read_revocation",
    "registration_arguments",
    "revocation_rest",
    "user_field",
]

_LOGIN = struct.Struct(">dddd")
_MARK = struct.Struct(">ddd")
_LENGTH = struct.Struct(">H")
_NO_EPOCH = -1
_MAX_EPOCH = 2**53
"""The scripts count in floating point."""


_BAD = (struct.error, ValueError, TypeError, IndexError, OverflowError, RecursionError)
"""What reading octets that are nobody's may raise."""


class BadEntry(ValueError):
    """What the store has is nothing that we wrote."""


def user_field(user: UserKey) -> bytes:
    """A user; no control characters are in names."""
    return f"{user.name}\0{user.context}".encode()


def member_of(place: bytes, user: UserKey) -> bytes:
    """What names a login."""
    return bytes((len(place),)) + place + user_field(user)


def members_of_network(network: bytes) -> tuple[bytes, bytes]:
    """What the members of a network begin with: those of logins that may grant, and the others."""
    return bytes((len(network),)) + network, bytes((len(network) + 1,)) + network + b"-"


def place_and_user(member: bytes) -> tuple[bytes, UserKey]:
    """Raises: BadEntry."""
    if not member:
        raise BadEntry("empty member")
    length = member[0] + 1
    return member[1:length], _read_user(member[length:])


def registration_arguments(
    registration: Registration, lifetime: float, waited: float
) -> list[Argument]:
    """What the script is told of a registration that has waited for some seconds."""
    epoch = registration.credential_epoch
    left = lifetime - waited if registration.renewal else lifetime
    return [
        registration.place,
        user_field(registration.profile.user),
        int((registration.age + waited) * MICROSECONDS),
        int(left * MICROSECONDS),
        _NO_EPOCH if epoch is None else min(epoch, _MAX_EPOCH),
        registration.session_id,
        int(registration.renewal),
        _rest(registration),
    ]


def read_login(
    place: bytes, user: UserKey, value: bytes, to_store: Callable[[float], float]
) -> Login:
    """A login as the store keeps it.

    Args:
        to_store: turns the partition's times into the store's.

    Raises: BadEntry.
    """
    try:
        serial, verified, expires, epoch = _LOGIN.unpack_from(value)
        session, _, rest = value[_LOGIN.size :].partition(b"\0")
        address, protocol, server, addresses, keys, domains = json.loads(rest.decode())
        return Login(
            serial=int(serial),
            profile=Profile(
                user, _texts(addresses), _texts(keys or addresses), frozenset(_texts(domains))
            ),
            place=place,
            client_address=bytes.fromhex(address) if address else network_of(place),
            protocol=LoginProtocol(protocol),
            messaging_server=str(server),
            session_id=session.decode(),
            verified=to_store(verified),
            expires=to_store(expires),
            credential_epoch=None if epoch == _NO_EPOCH else int(epoch),
        )
    except _BAD as error:
        raise BadEntry(f"not a login: {error}") from None


def read_members(value: bytes) -> list[bytes]:
    """Members one behind the other, each with its length.

    Raises: BadEntry.
    """
    found, at = [], 0
    while at < len(value):
        try:
            (length,) = _LENGTH.unpack_from(value, at)
        except struct.error as error:
            raise BadEntry(f"not members: {error}") from None
        at += _LENGTH.size
        found.append(value[at : at + length])
        at += length
    return found


def revocation_rest(revocation: Revocation) -> bytes:
    """What only readers of a revocation need."""
    address = (revocation.client_address or b"").hex()
    return json.dumps([address, revocation.prefix_length, revocation.reason]).encode()


def read_revocation(subject: bytes, value: bytes, to_store: Callable[[float], float]) -> Revocation:
    """A revocation as the store keeps it.

    Raises: BadEntry.
    """
    try:
        made, epoch, _ = _MARK.unpack_from(value)
        address, prefix, reason = json.loads(value[_MARK.size :])
        end = 2 + subject[1]
        return Revocation(
            made=to_store(made),
            user=_read_user(subject[end:]) if subject[end:] else None,
            network=subject[2:end] or None,
            credential_epoch=int(epoch),
            client_address=bytes.fromhex(address) or None,
            prefix_length=int(prefix),
            reason=str(reason),
        )
    except _BAD as error:
        raise BadEntry(f"not a revocation: {error}") from None


def _rest(registration: Registration) -> bytes:
    """What the scripts do not look at; what can be told from something else is left out."""
    profile = registration.profile
    address = registration.client_address
    fields: list[Any] = [
        "" if address == network_of(registration.place) else address.hex(),
        registration.protocol.value,
        registration.messaging_server,
        profile.addresses,
        profile.address_keys if profile.address_keys != profile.addresses else (),
        sorted(profile.domains),
    ]
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def _texts(values: Any) -> tuple[str, ...]:
    """Raises: TypeError, for anything but texts."""
    "".join(values)
    if isinstance(values, str):
        raise TypeError("a text instead of texts")
    return tuple(values)


def _read_user(field: bytes) -> UserKey:
    try:
        name, context = field.decode().split("\0")
    except ValueError:
        raise BadEntry("not a user") from None
    return UserKey(name, context)
