"""One SASL exchange, sans-IO: the client's lines in, challenges and things to verify out.

Lines are base64 as SMTP (RFC 4954 4), POP3 (RFC 5034 4) and IMAP (RFC 9051 6.2.2) have them.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum

from netmail_common.sasl._errors import AuthCancelled, AuthFailed, AuthMalformed, AuthTooLong
from netmail_common.sasl._prepare import MAX_PASSWORD_OCTETS, check_user_name

MAX_LINE = 12_288
"""Octets of one line, without CRLF (RFC 4954 4)."""

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class Mechanism(StrEnum):
    """The mechanisms, by their registered names."""

    PLAIN = "PLAIN"
    LOGIN = "LOGIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"

    @classmethod
    def named(cls, name: str) -> "Mechanism | None":
        """The mechanism of that name, whatever its case; None: there is no such one."""
        return next((member for member in cls if member.value == name.upper()), None)

    @property
    def reveals_password(self) -> bool:
        """Whether the password itself crosses the wire, so that TLS is needed."""
        return self is not Mechanism.SCRAM_SHA_256


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this (base64, without the protocol's `334 ` or `+ `), then feed the answer."""

    encoded: bytes


@dataclass(frozen=True, slots=True)
class VerifyPassword:
    """Verify this, then call `accepted`."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class VerifyScramFirst:
    """Give this client-first-message to the directory, then `accepted(server_first)`."""

    message: bytes


@dataclass(frozen=True, slots=True)
class VerifyScramFinal:
    """Give this client-final-message to the directory, then `accepted(server_final)`."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The exchange is over and went well."""


Step = Challenge | VerifyPassword | VerifyScramFirst | VerifyScramFinal | Done


class _State(StrEnum):
    NEW = "new"
    FIRST = "first"
    LOGIN_PASSWORD = "login password"  # noqa: S105 - the name of a state
    VERIFYING = "verifying"
    SCRAM_VERIFYING_FIRST = "scram verifying first"
    SCRAM_FINAL = "scram final"
    SCRAM_VERIFYING_FINAL = "scram verifying final"
    SCRAM_LAST = "scram last"
    OVER = "over"


class SaslExchange:
    """A server's side of one exchange. After an exception or Done it is of no further use."""

    def __init__(self, mechanism: Mechanism) -> None:
        self._mechanism = mechanism
        self._state = _State.NEW
        self._username = ""

    def start(self, initial: bytes | None) -> Step:
        """Begins. `initial`: the initial response as it stood on the line (`=`: empty), or None.

        Raises: AuthMalformed, AuthTooLong, AuthFailed, AuthCancelled.
        """
        self._expect(_State.NEW)
        self._state = _State.FIRST
        if initial is None:
            prompt = b"Username:" if self._mechanism is Mechanism.LOGIN else b""
            return Challenge(base64.b64encode(prompt))
        if initial == b"=":
            return self._first(b"")
        if not initial:
            raise AuthMalformed
        return self._first(decode_line(initial))

    def feed(self, line: bytes) -> Step:
        """Takes the client's next line, without its CRLF.

        Raises: AuthMalformed, AuthTooLong, AuthFailed, AuthCancelled.
        """
        data = decode_line(line)
        match self._state:
            case _State.FIRST:
                return self._first(data)
            case _State.LOGIN_PASSWORD:
                return self._verify(self._username, _text(data))
            case _State.SCRAM_FINAL:
                if not data:
                    raise AuthMalformed
                self._state = _State.SCRAM_VERIFYING_FINAL
                return VerifyScramFinal(data)
            case _State.SCRAM_LAST:
                # The client acknowledges the server-final-message with an empty response.
                if data:
                    raise AuthMalformed
                self._state = _State.OVER
                return Done()
            case _:
                raise RuntimeError(f"no line is due in state {self._state}")

    def accepted(self, server_message: bytes = b"") -> Step:
        """The directory agreed; `server_message` is its SCRAM message."""
        match self._state:
            case _State.VERIFYING:
                self._state = _State.OVER
                return Done()
            case _State.SCRAM_VERIFYING_FIRST:
                self._state = _State.SCRAM_FINAL
            case _State.SCRAM_VERIFYING_FINAL:
                self._state = _State.SCRAM_LAST
            case _:
                raise RuntimeError(f"nothing was to verify in state {self._state}")
        return Challenge(base64.b64encode(server_message))

    def _first(self, data: bytes) -> Step:
        match self._mechanism:
            case Mechanism.PLAIN:
                return self._plain(data)
            case Mechanism.LOGIN:
                self._username = _text(data)
                self._state = _State.LOGIN_PASSWORD
                return Challenge(base64.b64encode(b"Password:"))
            case Mechanism.SCRAM_SHA_256:
                if not data:
                    raise AuthMalformed
                self._state = _State.SCRAM_VERIFYING_FIRST
                return VerifyScramFirst(data)

    def _plain(self, data: bytes) -> Step:
        # message = [authzid] UTF8NUL authcid UTF8NUL passwd (RFC 4616 2)
        parts = data.split(b"\0")
        if len(parts) != 3:
            raise AuthMalformed
        authzid, authcid, password = (_text(part) for part in parts)
        step = self._verify(authcid, password)
        if authzid and authzid != authcid:
            raise AuthFailed  # nobody may act for somebody else
        return step

    def _verify(self, username: str, password: str) -> Step:
        if not password or len(password.encode("utf-8")) > MAX_PASSWORD_OCTETS:
            raise AuthMalformed
        try:
            name = check_user_name(username)
        except ValueError as error:
            raise AuthMalformed from error
        self._state = _State.VERIFYING
        return VerifyPassword(name, password)

    def _expect(self, state: _State) -> None:
        if self._state is not state:
            raise RuntimeError(f"the exchange is in state {self._state}")


def decode_line(line: bytes) -> bytes:
    """Decodes a response line: canonical base64 with its padding and nothing else.

    Raises: AuthCancelled for `*`, AuthTooLong, AuthMalformed.
    """
    if line == b"*":
        raise AuthCancelled
    if len(line) > MAX_LINE:
        raise AuthTooLong
    if _BASE64.fullmatch(line) is None:
        raise AuthMalformed
    try:
        data = base64.b64decode(line, validate=True)
    except binascii.Error as error:
        raise AuthMalformed from error
    if base64.b64encode(data) != line:
        raise AuthMalformed  # bits behind the last octet: RFC 4648 3.5
    return data


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AuthMalformed from error
    if "\0" in text:
        raise AuthMalformed
    return text
