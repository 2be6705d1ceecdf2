"""Reads datagrams of both protocols from one port."""

from netmail_connmgr.protocol.legacy_udp import authenticated, plain
from netmail_connmgr.protocol.legacy_udp.access_hash import Handshake
from netmail_connmgr.protocol.legacy_udp.authenticated import (
    AuthenticatedRequest,
    Command,
    Result,
)
from netmail_connmgr.protocol.legacy_udp.plain import (
    MAX_NAME,
    Malformed,
    PlainRequest,
    RequestNumber,
)
from netmail_connmgr.protocol.legacy_udp.requests import (
    Connect,
    PlainEnquiry,
    Register,
    Relay,
    Reply,
    Request,
)

__all__ = ["MAX_DATAGRAM", "Reception", "Refused", "protocol_of"]

_AUTHENTICATED = authenticated.REQUEST_SIZES
MAX_DATAGRAM = max(plain.MAX_SIZE, *_AUTHENTICATED)
"""Octets; what is longer is nothing of ours."""

_VERIFY, _NOTIFY = Command.VERIFY, Command.NOTIFY
_PLAIN_KINDS = frozenset(number.name.lower() for number in RequestNumber)
_NOTICES = {
    b"DISCONNECTED": "disconnected",
    b"DELIVERED": "delivered",
    b"RECEIVED": "received",
    b"VIRUS FOUND": "virus found",
    b"SPAM FOUND": "spam found",
    b"DOS DETECTED": "dos detected",
}
"""Events that are counted and no more."""


def protocol_of(kind: str) -> str:
    """Which of both protocols a kind of request is of, for the counters."""
    return "plain" if kind in _PLAIN_KINDS else "authenticated"


class Refused(Exception):
    """A datagram that nothing is done for.

    Attributes:
        fault: why, for the counters.
        reply: what is answered nevertheless; None: silence.
    """

    def __init__(self, fault: str, reply: bytes | None = None) -> None:
        super().__init__(fault)
        self.fault = fault
        self.reply = reply


class Reception:
    """Both protocols, as far as they are switched on.

    Args:
        with_plain: whether the one without authentication is spoken.
        handshake: of the other; None: it is not spoken.
    """

    def __init__(self, *, with_plain: bool, handshake: Handshake | None) -> None:
        self._plain = with_plain
        self._handshake = handshake

    def receive(self, data: bytes, source: bytes, now: float) -> Request:
        """What a datagram from an allowed source asks for.

        Args:
            source: 4 octets, of the agent.
            now: seconds since 1970.

        Raises: Refused.
        """
        try:
            if len(data) not in _AUTHENTICATED:
                request = plain.parse(data)
                if not self._plain:
                    raise Refused("plain is off")
                return _plain_request(request)
            if self._handshake is None:
                raise Refused("no credential")
            return _authenticated_request(authenticated.parse(data), self._handshake, source, now)
        except Malformed:
            raise Refused("malformed") from None


def _plain_request(request: PlainRequest) -> Request:
    if request.number in {RequestNumber.CHECK, RequestNumber.CHECK_NAME}:
        return PlainEnquiry(request)
    name = _name(request.name)
    if name is None:
        raise Refused("name")
    return Register(request.number.name.lower(), request.address, name)


def _authenticated_request(
    request: AuthenticatedRequest, handshake: Handshake, source: bytes, now: float
) -> Request:
    layout, password, command, address, event, _ = request
    if not handshake.accepts(source, password, now):
        salt = authenticated.text_detail(handshake.salt(source, now))
        kind = "wrong password" if any(password) else "no password"
        return Reply(kind, authenticated.reply(layout, Result.MUST_AUTH, detail=salt))
    if command == _VERIFY:
        if event == b"RELAY":
            return Relay(layout, address)
        if event == b"CONNECT":
            return Connect(layout, address)
        return Reply("verify other", authenticated.reply(layout, Result.DENY_TEMPORARY))
    if command == _NOTIFY:
        if event == b"AUTHENTICATED":
            return _login(request)
        kind = _NOTICES.get(event, "notify other")
        return Reply(kind, authenticated.reply(layout, Result.OK))
    return Reply("unknown command", authenticated.reply(layout, Result.UNKNOWN_COMMAND))


def _login(request: AuthenticatedRequest) -> Request:
    user = request.user
    name = _name(user) if user is not None else None
    if name is None:
        raise Refused("name", authenticated.reply(request.layout, Result.UNKNOWN))
    if not name:
        return Reply("authenticated", authenticated.reply(request.layout, Result.OK))
    return Register("authenticated", request.address, name, request.layout)


def _name(octets: bytes) -> str | None:
    """A user name; None: no text, or longer than ours may be. It is never cut."""
    if len(octets) > MAX_NAME:
        return None
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return None
