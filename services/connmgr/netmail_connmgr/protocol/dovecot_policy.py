"""Dovecot's authentication policy requests: JSON by HTTP, or the same as a form.

The command stands in the URL: `allow` asks whether a login may be tried, `report` tells how it
ended. The body has the attributes of `auth_policy_request_attributes`; those that we do not know,
the hash of the password among them, are not looked at. A form is for scripts, which would have to
quote JSON.
"""

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl

__all__ = [
    "MAX_BODY",
    "BadPolicyEvent",
    "Command",
    "PolicyEvent",
    "parse_command",
    "parse_form",
    "parse_json",
    "reply",
]

MAX_BODY = 16_384
"""Octets of a body."""
_MAX_FIELDS = 100
_MAX_TEXT = 1024


class BadPolicyEvent(ValueError):
    """Not a request; the text repeats nothing of it."""


class Command(Enum):
    """What is asked for."""

    ALLOW = "allow"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """A login, before or after it was judged; empty where Dovecot said nothing.

    Attributes:
        login: the user's name.
        client_address: 4 or 16 octets; empty if there is no address.
        protocol: of the login, lower case: pop3, imap, smtp, ...
        session: names the connection.
        success: the password was right, and so was everything else.
        policy_reject: it failed because a policy server said so.
    """

    login: str
    client_address: bytes
    protocol: str
    session: str = ""
    success: bool = False
    policy_reject: bool = False

    @property
    def vouches(self) -> bool:
        """Whether it is a login that vouches for its address: by POP3 or IMAP, and successful."""
        return (
            self.success
            and bool(self.login and self.client_address)
            and self.protocol in {"pop3", "imap"}
        )

    @property
    def guessed(self) -> bool:
        """Whether it is a password that was wrong."""
        return not (self.success or self.policy_reject) and bool(self.client_address)


def parse_command(text: str | None) -> Command:
    """Raises: BadPolicyEvent."""
    try:
        return Command(text)
    except ValueError:
        raise BadPolicyEvent("an unknown command") from None


def parse_json(body: bytes) -> PolicyEvent:
    """Reads the body that Dovecot sends.

    Raises: BadPolicyEvent.
    """
    try:
        data = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadPolicyEvent("not JSON, or a name twice") from None
    if not isinstance(data, dict):
        raise BadPolicyEvent("not an object")
    return _event(data, success=data.get("success") is True)


def parse_form(body: bytes) -> PolicyEvent:
    """Reads the same as a form (application/x-www-form-urlencoded), booleans written `true`.

    Raises: BadPolicyEvent.
    """
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
        data = _unique(pairs)
    except ValueError:
        raise BadPolicyEvent("not a form, or a name twice") from None
    return _event(
        {**data, "policy_reject": data.get("policy_reject") == "true"},
        success=data.get("success") == "true",
    )


def reply(status: int) -> bytes:
    """The answer: -1 refuses, 0 allows, more waits for so many seconds.

    There is no message: who is refused must not learn whether his password was right.
    """
    return b'{"status":%d,"msg":""}' % status


def _event(data: Mapping[str, Any], *, success: bool) -> PolicyEvent:
    return PolicyEvent(
        login=_text(data, "login"),
        client_address=_octets(_text(data, "remote")),
        protocol=_text(data, "protocol").lower(),
        session=_text(data, "session_id") or _text(data, "session"),
        success=success,
        policy_reject=data.get("policy_reject") is True,
    )


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise BadPolicyEvent("an attribute that is no text, or too long")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadPolicyEvent("half a character") from None
    return value


def _octets(text: str) -> bytes:
    try:
        return ipaddress.ip_address(text).packed if text.isascii() else b""
    except ValueError:
        return b""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError
    return data


def _no_constant(_name: str) -> None:
    """NaN and Infinity are not JSON (RFC 8259, section 6)."""
    raise ValueError
