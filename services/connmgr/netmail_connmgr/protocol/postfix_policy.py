r"""Postfix's policy delegation protocol (SMTPD_POLICY_README): attributes in, one action out.

A request is lines of `name=value`, then an empty line; the answer is `action=...` and an empty
line. Lines end with LF. Connections are kept and carry one request after the other.
"""

import functools
import ipaddress
from typing import NamedTuple

__all__ = [
    "MAX_REQUEST",
    "PolicyReader",
    "PolicyRequest",
    "answer",
    "is_action",
]

MAX_REQUEST = 32_768
"""Octets of a request. Postfix's are below 4,096, but for long addresses."""
_MAX_ATTRIBUTES = 200
_MAX_ACTION = 4000
_MAX_DIGITS = 7
_MAX_ADDRESSES = 4096
"""That are not read again: Postfix asks for each recipient of a client."""
_REQUEST = b"smtpd_access_policy"


class _PolicyProtocolError(ValueError):
    """Not the protocol."""


class PolicyRequest(NamedTuple):
    """A request, as far as we need it; empty where Postfix said nothing.

    Attributes:
        state: where the SMTP session is: CONNECT, HELO, MAIL, RCPT, DATA, ...
        client_address: 4 or 16 octets; empty if there is no address.
        sender: local@domain, the local part not quoted; empty for the null sender.
        sasl_username: who authenticated to Postfix.
        instance: names the message among those of its Postfix.
        recipients: of the whole message, once it is there; 0 before.
    """

    state: str
    client_address: bytes = b""
    sender: str = ""
    sasl_username: str = ""
    instance: str = ""
    recipients: int = 0


class PolicyReader:
    """Takes octets in any pieces, gives requests.

    Attributes:
        broken: why nothing more comes out: nobody knows where the next request would begin.
            Empty while all is well.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self.broken = ""

    def __len__(self) -> int:
        """Octets that wait for the rest of their request."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[PolicyRequest]:
        """Gives the requests that DATA completes, up to one that is none."""
        if self.broken:
            return []
        requests: list[PolicyRequest] = []
        # Postfix sends one request and waits: DATA is the whole of it, nearly always.
        *blocks, rest = (self._buffer + data if self._buffer else data).split(b"\n\n")
        try:
            for block in blocks:
                requests.append(_parse(block))  # noqa: PERF401 - those before an error count
            _check_begun(rest)
        except _PolicyProtocolError as error:
            self.broken = str(error)
            rest = b""
        self._buffer = rest
        return requests


def answer(action: str) -> bytes:
    """The octets of an answer; ACTION is one line of printable characters (`is_action`)."""
    return b"action=" + action.encode() + b"\n\n"


def is_action(text: str) -> bool:
    """Whether it can stand in an answer."""
    return 0 < len(text) <= _MAX_ACTION and text.isprintable() and not text.startswith(" ")


def _check_begun(octets: bytes) -> None:
    if octets.startswith(b"\n"):
        raise _PolicyProtocolError("an empty request")
    if len(octets) > MAX_REQUEST:
        raise _PolicyProtocolError("too long")


def _parse(block: bytes) -> PolicyRequest:
    if len(block) >= MAX_REQUEST:
        raise _PolicyProtocolError("too long")
    lines = block.split(b"\n")
    if len(lines) > _MAX_ATTRIBUTES:
        raise _PolicyProtocolError("too many attributes")
    try:
        # Every line has a "=" to be split at, or this is a ValueError.
        attributes = dict([line.split(b"=", 1) for line in lines])
    except ValueError:
        raise _PolicyProtocolError("not name=value") from None
    if b"" in attributes:
        raise _PolicyProtocolError("not name=value")
    if len(attributes) != len(lines):
        # Which one counts would be a guess.
        raise _PolicyProtocolError("an attribute twice")
    get = attributes.get
    if get(b"request") != _REQUEST:
        raise _PolicyProtocolError("not a request for a policy")
    return PolicyRequest(
        state=_text(get(b"protocol_state", b"")),
        client_address=_octets(get(b"client_address", b"")),
        sender=_text(get(b"sender", b"")),
        sasl_username=_text(get(b"sasl_username", b"")),
        instance=_text(get(b"instance", b"")),
        recipients=_number(get(b"recipient_count", b"")),
    )


def _text(octets: bytes) -> str:
    """What is not UTF-8 stays a text, and is nobody's name or address."""
    return octets.decode("utf-8", "replace")


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS else 0


@functools.lru_cache(maxsize=_MAX_ADDRESSES)
def _octets(text: bytes) -> bytes:
    try:
        return ipaddress.ip_address(text.decode("ascii")).packed
    except ValueError:
        return b""
