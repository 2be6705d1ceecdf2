"""Reverse-path and forward-path (RFC 5321 4.1.2)."""

import re
from dataclasses import dataclass

from netmail_common.mail_address import AddressError, MailAddress, parse_mail_address

from netmail_smtp.protocol.reply import CommandSyntaxError

# What may stand between "<" and ">": ">" itself only inside a quoted local part.
_ANGLE = re.compile(r'<((?:[^<>"\\]|"(?:[^"\\]|\\.)*")*)>')
_ROUTE = re.compile(r"@[^:@,\"]+(?:,@[^:@,\"]+)*:")


@dataclass(frozen=True, slots=True)
class Path:
    """What stands between angle brackets.

    Attributes:
        mailbox: the address; None for `<>` and for `<Postmaster>`.
        source_route: it had one (`<@a,@b:user@c>`); such mail is never relayed.
        is_postmaster: `<Postmaster>` without a domain (RFC 5321 4.5.1).
        is_ascii: False: it needs SMTPUTF8.
    """

    mailbox: MailAddress | None = None
    source_route: bool = False
    is_postmaster: bool = False
    is_ascii: bool = True

    @property
    def is_null(self) -> bool:
        """Whether it is `<>`."""
        return self.mailbox is None and not self.is_postmaster

    @property
    def may_be_relayed(self) -> bool:
        """Whether nobody could take the address apart again and send it elsewhere.

        False for source routes, `user%a@b`, `"u@a"@b` and `a!u@b`.
        """
        if self.mailbox is None or self.source_route:
            return False
        return not any(character in self.mailbox.local for character in "%!@")


def parse_path(text: str) -> tuple[Path, str]:
    """Reads `<path>` at the beginning of `text`.

    Returns: the path and what follows it.

    Raises: CommandSyntaxError.
    """
    match = _ANGLE.match(text)
    if match is None:
        raise CommandSyntaxError(
            501, "5.1.3", "The address must stand in angle brackets: <user@domain>"
        )
    rest = text[match.end() :]
    if rest and not rest.startswith(" "):
        raise CommandSyntaxError(501, "5.5.4", "Parameters follow the address after a space")
    return _parse_inner(match[1]), rest


def _parse_inner(inner: str) -> Path:
    if not inner:
        return Path()
    if inner.lower() == "postmaster":
        return Path(is_postmaster=True)
    route = _ROUTE.match(inner)
    try:
        mailbox = parse_mail_address(inner[route.end() :] if route else inner)
    except AddressError as error:
        raise CommandSyntaxError(553, "5.1.3", f"Malformed address: {error}") from error
    return Path(mailbox, source_route=route is not None, is_ascii=inner.isascii())
