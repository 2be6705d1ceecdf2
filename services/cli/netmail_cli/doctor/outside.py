"""Asking the listeners from outside which address arrives: what a token holds, and the asking."""

import base64
import contextlib
import imaplib
import json
import poplib
import smtplib
import ssl
from dataclasses import asdict, dataclass

from netmail_common.connmgr.clients_seen import PROBE

__all__ = ["Asked", "BadToken", "Target", "ask", "read_token", "write_token"]

_TIMEOUT = 15.0
_MAX_TARGETS = 32


class BadToken(ValueError):
    """It is none of doctor's."""


@dataclass(frozen=True, slots=True)
class Target:
    """A listener as clients reach it.

    Attributes:
        host: name or address.
        kind: smtp, pop3 or imap.
        implicit_tls: TLS from the first octet.
    """

    host: str
    name: str
    kind: str
    port: int
    implicit_tls: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What a listener answered.

    Attributes:
        arrived: the address that it saw; empty: it did not say.
        grants: whether a login from there may grant.
        said: what it answered, or why it did not.
    """

    target: Target
    arrived: str
    grants: bool
    said: str


def write_token(targets: list[Target], probe: str) -> str:
    """One word for a person outside."""
    text = json.dumps(
        {"t": [list(asdict(one).values()) for one in targets], "p": probe},
        separators=(",", ":"),
    )
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_token(token: str) -> tuple[list[Target], str]:
    """The listeners, and their own token. Raises: BadToken."""
    try:
        data = json.loads(
            base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        )
        targets = [
            Target(str(host), str(name), str(kind), int(port), bool(implicit))
            for host, name, kind, port, implicit in data["t"][:_MAX_TARGETS]
        ]
        return targets, str(data["p"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadToken("this is no token of netmail doctor") from error


def ask(target: Target, probe: str) -> Asked:
    """Connects to a listener and asks."""
    question = {"smtp": _ask_smtp, "pop3": _ask_pop3, "imap": _ask_imap}.get(target.kind)
    if question is None:
        return Asked(target, "", grants=False, said="a listener of an unknown kind")
    try:
        answer = question(target.host, target, probe)
    except (
        OSError,
        EOFError,
        smtplib.SMTPException,
        imaplib.IMAP4.error,
        poplib.error_proto,
    ) as error:
        return Asked(target, "", grants=False, said=f"not reached: {error}")
    _, found, rest = answer.partition(f"{PROBE} ")
    address, _, worth = rest.strip().partition(" ")
    if not found or not address:
        return Asked(target, "", grants=False, said="it does not know the token (15 minutes old?)")
    return Asked(target, address, worth == "grants", worth)


def _tls() -> ssl.SSLContext:
    """No name is checked: nothing secret is said, and the certificate may be the cluster's own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _ask_smtp(host: str, target: Target, probe: str) -> str:
    if target.implicit_tls:
        client: smtplib.SMTP = smtplib.SMTP_SSL(host, target.port, timeout=_TIMEOUT, context=_tls())
    else:
        client = smtplib.SMTP(host, target.port, timeout=_TIMEOUT)
    with client:
        _, text = client.docmd("NOOP", f"{PROBE} {probe}")
        return text.decode("ascii", "replace")


def _ask_pop3(host: str, target: Target, probe: str) -> str:
    if target.implicit_tls:
        client: poplib.POP3 = poplib.POP3_SSL(host, target.port, timeout=_TIMEOUT, context=_tls())
    else:
        client = poplib.POP3(host, target.port, timeout=_TIMEOUT)
    try:
        answer: bytes = client._shortcmd(f"XDOCTOR {probe}")  # type: ignore[attr-defined] # noqa: SLF001 - no other way to say it
        return answer.decode("ascii", "replace")
    except poplib.error_proto:
        return ""
    finally:
        with contextlib.suppress(OSError, poplib.error_proto):
            client.quit()


def _ask_imap(host: str, target: Target, probe: str) -> str:
    if target.implicit_tls:
        client: imaplib.IMAP4 = imaplib.IMAP4_SSL(
            host, target.port, timeout=_TIMEOUT, ssl_context=_tls()
        )
    else:
        client = imaplib.IMAP4(host, target.port, timeout=_TIMEOUT)
    with contextlib.closing(client.socket()):
        client.xatom("ID", f'("{PROBE}" "{probe}")')
        (answer,) = client.response("ID")[1] or [b""]
        text = (answer or b"").decode("ascii", "replace")
        # ("name" "NetMail" "netmail-doctor" "192.0.2.1 grants")
        return text.replace(f'"{PROBE}" "', f"{PROBE} ").rstrip('")')
