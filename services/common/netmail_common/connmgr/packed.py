"""A login in one piece of octets: what the table and its replicas keep, and what the stream sends.

The octets are a serialized LoginRecord whose first fields and last one are laid out by us, so that
a login's key and times can be read, and the login renewed, without parsing the rest:

    place, user | expires, verified, origin | serial | what it says | session id
    the key       the head
"""

import functools
import struct
from typing import NamedTuple

from google.protobuf.message import DecodeError
from netmail.connmgr.v1 import connmgr_pb2 as pb

from netmail_common.connmgr.model import (
    ANONYMOUS,
    Login,
    LoginProtocol,
    Profile,
    Registration,
    UserKey,
)
from netmail_common.networks import network_of

__all__ = [
    "BadRecord",
    "LoginPacker",
    "Origin",
    "Origins",
    "RecordParts",
    "assembled",
    "grants",
    "key_end",
    "login_key",
    "place_key",
    "place_of",
    "prolonged",
    "session_of",
    "times_of",
    "user_part",
]

_PLACE, _USER, _NAME, _CONTEXT = 0x0A, 0x12, 0x0A, 0x12
_SERIAL, _SESSION = 0x50, 0x42
_HEAD = struct.Struct("<BdBdBI")
"""expires, verified and origin, each behind its tag."""
_TAGS = (0x19, 0x21, 0x2D)
_ENDS_WITH_SESSION = (b"", bytes((_SESSION,)))
_SESSION_HEADS = (b"", *(bytes((_SESSION, size)) for size in range(1, 0x80)))
"""What a session id of so many octets stands behind; an empty one is left out."""
_TIMES = struct.Struct("<xdxd")
_ORIGIN = struct.Struct("<xI")
_NETWORKS = frozenset({4, 16})
"""Octets of a network; a place that never grants has one more."""
_SAID = 4096
"""Logins that were packed lately: one that is renewed says the same again."""
_PROTOCOLS = {
    pb.Protocol.Value(f"PROTOCOL_{protocol.name}"): protocol for protocol in LoginProtocol
}
_PROTOCOL_NUMBERS = {protocol: number for number, protocol in _PROTOCOLS.items()}


class BadRecord(ValueError):
    """The octets are no record of a login, or name an origin that is not known."""


class Origin(NamedTuple):
    """What many logins have in common; the fields are those of Login and Profile."""

    messaging_server: str = ""
    domains: frozenset[str] = frozenset()


class Origins:
    """Numbers for origins; a number is never given twice.

    Attributes:
        newest: the last number given.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._numbers: dict[Origin, int] = {}
        self._known: dict[int, Origin] = {}
        self._uses: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, number: int) -> Origin:
        """Raises: BadRecord, for a number that stands for nothing."""
        found = self._known.get(number)
        if found is None:
            raise BadRecord("unknown origin")
        return found

    def number(self, origin: Origin) -> int:
        """The number of an origin, a new one if it has none."""
        found = self._numbers.get(origin)
        if found is None:
            self.newest += 1
            found = self.newest
            self.learn(found, origin)
        return found

    def learn(self, number: int, origin: Origin) -> None:
        """Takes a number that another has given."""
        self._known[number] = origin
        self._numbers[origin] = number

    def use(self, number: int) -> None:
        """A login of this origin is kept."""
        self._uses[number] = self._uses.get(number, 0) + 1

    def release(self, number: int) -> None:
        """A login of this origin is kept no more; the last one takes the origin with it."""
        uses = self._uses[number] - 1
        if uses:
            self._uses[number] = uses
            return
        del self._uses[number]
        del self._numbers[self._known.pop(number)]

    def after(self, number: int) -> list[tuple[int, Origin]]:
        """The origins that were numbered later."""
        if number >= self.newest:
            return []
        return [(one, origin) for one, origin in self._known.items() if one > number]

    def clear(self) -> None:
        """Forgets all."""
        self._numbers.clear()
        self._known.clear()
        self._uses.clear()


class RecordParts(NamedTuple):
    """What stays of a record when its login is renewed.

    Attributes:
        key: as login_key gives it.
        origin: its number.
        middle: serial, and what the login says.
    """

    key: bytes
    origin: int
    middle: bytes


class LoginPacker:
    """Packs logins and unpacks them.

    Attributes:
        origins: of the packed logins.
    """

    def __init__(self) -> None:
        self.origins = Origins()

    def pack(self, login: Login) -> bytes:
        """The record of a login."""
        profile = login.profile
        parts = RecordParts(
            login_key(login.place, profile.user),
            self.origins.number(Origin(login.messaging_server, profile.domains)),
            _serial(login.serial) + _said_by(login),
        )
        return assembled(parts, login.expires, login.verified, login.session_id)

    def session_at(self, record: bytes, key_end: int, registration: Registration) -> int:
        """Where the session id of a record begins; 0: there the registration says something else.

        Origin and times aside.
        """
        at = key_end + _HEAD.size + 1
        while record[at] & 0x80:
            at += 1
        said = _said_by(registration)
        if not record.startswith(said, at + 1):
            return 0
        at += 1 + len(said)
        return at if record[at : at + 1] in _ENDS_WITH_SESSION else 0

    def parts(
        self, record: bytes, key_end: int, session_at: int, registration: Registration
    ) -> RecordParts:
        """What stays of a record when a registration that says the same renews its login.

        The origin is the registration's.
        """
        number = origin_of(record, key_end)
        server, domains = self.origins[number]
        said = registration.profile.domains
        # One set for all logins of a server, as a rule: it need not be compared.
        if server != registration.messaging_server or (domains is not said and domains != said):
            number = self.origins.number(Origin(registration.messaging_server, said))
        return RecordParts(record[:key_end], number, record[key_end + _HEAD.size : session_at])

    def unpack(self, record: bytes) -> Login:
        """The login of a record.

        Raises: BadRecord.
        """
        try:
            one = pb.LoginRecord.FromString(record)
        except DecodeError:
            raise BadRecord("not a record") from None
        protocol = _PROTOCOLS.get(one.protocol)
        if protocol is None:
            raise BadRecord("unknown protocol")
        server, domains = self.origins[one.origin]
        user = one.user
        addresses = tuple(one.addresses)
        return Login(
            one.serial,
            Profile(
                UserKey(user.name, user.context),
                addresses,
                tuple(one.address_keys) or addresses,
                domains,
            ),
            one.place,
            one.client_address or network_of(one.place),
            protocol,
            server,
            one.session_id,
            one.verified,
            one.expires,
            one.credential_epoch if one.HasField("credential_epoch") else None,
        )


def assembled(parts: RecordParts, expires: float, verified: float, session_id: str) -> bytes:
    """The record of a login with these times and this session."""
    key, origin, middle = parts
    head = _HEAD.pack(_TAGS[0], expires, _TAGS[1], verified, _TAGS[2], origin)
    session = session_id.encode()
    size = len(session)
    if size < 0x80:
        return b"".join((key, head, middle, _SESSION_HEADS[size], session))
    return b"".join((key, head, middle, _field(_SESSION, session)))


def place_key(place: bytes) -> bytes:
    """What the records of a place begin with."""
    return bytes((_PLACE, len(place))) + place


@functools.lru_cache(maxsize=_SAID)
def user_part(user: UserKey) -> bytes:
    """What stands behind the place in the records of a user."""
    if user == ANONYMOUS:
        return bytes((_USER, 0))
    name, context = user.name.encode(), user.context.encode()
    return _field(_USER, _field(_NAME, name) + _field(_CONTEXT, context))


def login_key(place: bytes, user: UserKey) -> bytes:
    """What the record of a user's login from a place begins with."""
    return place_key(place) + user_part(user)


def place_of(record: bytes) -> bytes:
    """The place of a record, or of a login's key.

    Raises: BadRecord.
    """
    if len(record) < 2 or record[0] != _PLACE or len(record) < 2 + record[1]:
        raise BadRecord("no place")
    return record[2 : 2 + record[1]]


def grants(record: bytes) -> bool:
    """Whether the place of a record may grant."""
    return len(record) > 1 and record[1] in _NETWORKS


def key_end(record: bytes) -> int:
    """Where a login's key ends in its record.

    Raises: BadRecord.
    """
    try:
        at = 2 + record[1]
        size = record[at + 1]
        if record[0] != _PLACE or record[at] != _USER:
            raise BadRecord("no key")
        if size < 0x80:
            return at + 2 + size
        return at + 3 + (size & 0x7F) + (record[at + 2] << 7)
    except IndexError:
        raise BadRecord("no key") from None


def times_of(record: bytes, key_end: int) -> tuple[float, float]:
    """When a login expires and when its password was verified.

    Raises: BadRecord.
    """
    try:
        times: tuple[float, float] = _TIMES.unpack_from(record, key_end)
    except struct.error:
        raise BadRecord("no times") from None
    return times


def origin_of(record: bytes, key_end: int) -> int:
    """The number of a record's origin."""
    (number,) = _ORIGIN.unpack_from(record, key_end + _TIMES.size)
    return int(number)


def prolonged(record: bytes, key_end: int, expires: float) -> bytes:
    """The record with another end."""
    at = key_end + 1
    return record[:at] + struct.pack("<d", expires) + record[at + 8 :]


def session_of(record: bytes, session_at: int) -> bytes:
    """The session id that begins there (LoginPacker.session_at)."""
    if session_at == len(record):
        return b""
    return record[session_at + (2 if record[session_at + 1] < 0x80 else 3) :]


def _said_by(login: Login | Registration) -> bytes:
    """What a login says besides whose it is, where, when and in which session."""
    address, profile = login.client_address, login.profile
    return _said(
        _PROTOCOL_NUMBERS[login.protocol],
        login.credential_epoch,
        profile.addresses,
        profile.address_keys,
        b"" if address == network_of(login.place) else address,
    )


@functools.lru_cache(maxsize=_SAID)
def _said(
    protocol: int,
    credential_epoch: int | None,
    addresses: tuple[str, ...],
    address_keys: tuple[str, ...],
    client_address: bytes,
) -> bytes:
    return pb.LoginRecord(
        client_address=client_address,
        protocol=pb.Protocol.ValueType(protocol),
        credential_epoch=credential_epoch,
        addresses=addresses,
        address_keys=address_keys if address_keys != addresses else (),
    ).SerializeToString()


def _serial(number: int) -> bytes:
    octets = bytearray((_SERIAL,))
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _field(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    return bytes((tag, size & 0x7F | 0x80, size >> 7)) + value
