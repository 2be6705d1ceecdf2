"""What a datagram asks for, whichever protocol it is of, and how that is answered."""

import functools
from typing import NamedTuple

from netmail_connmgr.protocol.legacy_udp import authenticated, plain
from netmail_connmgr.protocol.legacy_udp.authenticated import Result
from netmail_connmgr.protocol.legacy_udp.layout import Layout
from netmail_connmgr.protocol.legacy_udp.plain import CheckResult, PlainRequest, RequestNumber

__all__ = ["Connect", "PlainEnquiry", "Register", "Relay", "Reply", "Request"]

_MAX_REPLIES = 4096
"""That are kept, of 400 octets each: the same users are asked about again and again."""


def _replies(result: Result) -> dict[Layout | None, bytes | None]:
    """By the client's layout; who has none waits for no reply."""
    return {None: None, **{layout: authenticated.reply(layout, result) for layout in Layout}}


_DONE, _FAILED, _REFUSED = map(_replies, (Result.OK, Result.DBERR, Result.UNKNOWN))


class Reply(NamedTuple):
    """Nothing to find out: the answer is here.

    Attributes:
        kind: for the counters.
    """

    kind: str
    data: bytes


class Register(NamedTuple):
    """A user logged in, or an address without one.

    Attributes:
        name: empty for nobody.
        layout: of a client that waits for an answer; None: it waits for nothing.
    """

    kind: str
    address: bytes
    name: str
    layout: Layout | None = None

    def done(self) -> bytes | None:
        """It is registered."""
        return _DONE[self.layout]

    def failed(self) -> bytes | None:
        """It could not be."""
        return _FAILED[self.layout]

    def refused(self) -> bytes | None:
        """Such a name is not admitted."""
        return _REFUSED[self.layout]


class PlainEnquiry(NamedTuple):
    """CHECK or CHECK_NAME: is a login known from there?"""

    request: PlainRequest

    @property
    def kind(self) -> str:
        """For the counters."""
        return self.request.number.name.lower()

    @property
    def address(self) -> bytes:
        """The client's."""
        return self.request.address

    def known(self, name: str) -> bytes:
        """There is one; NAME is empty if nobody knows whose."""
        octets = name.encode() if self.request.number == RequestNumber.CHECK_NAME else b""
        result = CheckResult.FOUND_NAME if octets else CheckResult.FOUND
        return plain.reply(self.request.layout, result, octets)

    def unknown(self) -> bytes:
        """There is none."""
        return plain.reply(self.request.layout, CheckResult.NOT_FOUND)

    def unavailable(self) -> None:
        """It cannot be found out: silence, which clients take for `not found`."""


class Relay(NamedTuple):
    """VERIFY RELAY: the same question with authentication."""

    layout: Layout
    address: bytes

    @property
    def kind(self) -> str:
        """For the counters."""
        return "relay"

    def known(self, name: str) -> bytes:
        """There is one; NAME is empty if nobody knows whose."""
        return _relay_allowed(self.layout, name)

    def unknown(self) -> bytes:
        """There is none."""
        return authenticated.reply(self.layout, Result.DENY_TEMPORARY)

    def unavailable(self) -> bytes:
        """It cannot be found out; silence would hold the agent up for 19 seconds."""
        return self.unknown()


class Connect(NamedTuple):
    """VERIFY CONNECT: may a client connect?"""

    layout: Layout
    address: bytes

    @property
    def kind(self) -> str:
        """For the counters."""
        return "connect"

    def allowed(self, comment: str = "", *, require_auth: bool = False) -> bytes:
        """It may; with REQUIRE_AUTH it must authenticate first."""
        detail = authenticated.require_auth_detail(self.layout) if require_auth else b""
        return authenticated.reply(self.layout, Result.ALLOWED, comment, detail)

    def denied(self, comment: str, *, permanently: bool) -> bytes:
        """It may not."""
        result = Result.DENY_PERMANENT if permanently else Result.DENY_TEMPORARY
        return authenticated.reply(self.layout, result, comment)


@functools.lru_cache(maxsize=_MAX_REPLIES)
def _relay_allowed(layout: Layout, name: str) -> bytes:
    detail = authenticated.text_detail(name.encode())
    return authenticated.reply(layout, Result.ALLOWED, detail=detail)


Request = Reply | Register | PlainEnquiry | Relay | Connect
