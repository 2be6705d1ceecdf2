"""Grammar of SMTP commands and their parameters.

RFC 5321 4.1, with RFC 1870 (SIZE), RFC 3030 (BDAT), RFC 3207 (STARTTLS), RFC 3461 (DSN),
RFC 4954 (AUTH), RFC 6152 (8BITMIME) and RFC 6531 (SMTPUTF8). Text keeps its case.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from netmail_common.mail_address import AddressError, MailAddress, parse_domain, parse_mail_address

from netmail_smtp.protocol.paths import Path, parse_path
from netmail_smtp.protocol.reply import CommandSyntaxError

_MAX_KEPT = 256

MAX_ENVID = 100
"""Octets of ENVID, decoded (RFC 3461 4.4)."""
MAX_ORCPT = 500
"""Octets of ORCPT, encoded (RFC 3461 4.2)."""

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\U0010ffff]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_XTEXT_ESCAPE = re.compile(r"\+([0-9A-F]{2})")
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")
_HELO_NAME = re.compile(r"[!-~\x80-\U0010ffff]{1,255}")


class Notify(StrEnum):
    """DSN NOTIFY keywords (RFC 3461 4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class Ehlo:
    """EHLO or HELO. `name` is as the client gave it: a domain, an address literal, or nonsense."""

    name: str
    extended: bool

    @property
    def is_full_name(self) -> bool:
        """Whether the name is an address literal or a domain name of two labels at least."""
        try:
            domain = parse_domain(self.name)
        except AddressError:
            return False
        return domain.startswith("[") or "." in domain


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM.

    Attributes:
        sender: None is the null reverse-path `<>`.
        size: declared octets (RFC 1870), or None.
        body_8bit: BODY=8BITMIME.
        smtputf8: RFC 6531.
        return_headers_only: RET=HDRS (RFC 3461 4.3).
        envelope_id: ENVID decoded; empty: none.
        names: keywords that were there, upper case.
    """

    sender: MailAddress | None
    size: int | None = None
    body_8bit: bool = False
    smtputf8: bool = False
    return_headers_only: bool = False
    envelope_id: str = ""
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO.

    Attributes:
        path: the recipient.
        notify: NOTIFY keywords; empty: not given.
        original_recipient: ORCPT, "addr-type;address" with the address decoded; empty: none.
        names: keywords that were there, upper case.
    """

    path: Path
    notify: frozenset[Notify] = frozenset()
    original_recipient: str = ""
    names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Bdat:
    """BDAT (RFC 3030). `size` octets follow, even if the command is refused."""

    size: int
    last: bool


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH. `initial` is the initial response as it stood there, base64; None: none was given."""

    mechanism: str
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Simple:
    """A verb whose argument, if any, needs no parsing."""

    verb: str
    argument: str


Command = Ehlo | Mail | Rcpt | Bdat | Auth | Simple


def parse_command(line: bytes) -> tuple[str, Command]:
    """Reads one command line, without its CRLF.

    Returns: the verb, upper case, and the command.

    Raises: CommandSyntaxError.
    """
    # Most lines are the same again: EHLO, MAIL and RCPT of a list, DATA, QUIT. A password must
    # not be kept, so AUTH is always read anew.
    if len(line) > _MAX_KEPT or line[:4].upper() == b"AUTH":
        return _parse_command(line)
    return _parse_and_keep(line)


def _parse_command(line: bytes) -> tuple[str, Command]:
    verb, argument = split_verb(line)
    parser = _PARSERS.get(verb)
    if parser is None:
        raise CommandSyntaxError(500, "5.5.1", "Command not recognized")
    return verb, parser(verb, argument)


_parse_and_keep = functools.lru_cache(maxsize=1024)(_parse_command)


def split_verb(line: bytes) -> tuple[str, str]:
    """Splits a command line into verb (upper case) and argument.

    Raises: CommandSyntaxError for control characters, a bare CR or LF among them, for what is not
        UTF-8, and for a line without a verb.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandSyntaxError(500, "5.5.2", "The line is not UTF-8") from None
    if not text.isprintable() and any(c < " " and c != "\t" or c == "\x7f" for c in text):  # noqa: RUF021 - reads well
        raise CommandSyntaxError(500, "5.5.2", "The line has a control character")
    verb, _, argument = text.partition(" ")
    if not verb.isascii() or not verb.isalpha():
        raise CommandSyntaxError(500, "5.5.2", "Command not recognized")
    return verb.upper(), argument.strip(" \t")


def decode_xtext(text: str) -> str:
    """Decodes xtext (RFC 3461 4).

    Raises: ValueError: not xtext, or its octets are not printable ASCII.
    """
    if _XTEXT.fullmatch(text) is None:
        raise ValueError("not xtext")
    decoded = _XTEXT_ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if not decoded.isascii() or not decoded.isprintable():
        raise ValueError("xtext of something that is not printable")
    return decoded


def _parse_helo(verb: str, argument: str) -> Ehlo:
    if _HELO_NAME.fullmatch(argument) is None:
        raise CommandSyntaxError(501, "5.5.4", f"Syntax: {verb} your-host-name")
    return Ehlo(argument, extended=verb == "EHLO")


def _parse_mail(_verb: str, argument: str) -> Mail:
    path, text = _after_keyword("FROM:", argument)
    parameters = _parameters(text)
    fields = _MailFields()
    for name, value in parameters.items():
        reader = _MAIL_PARAMETERS.get(name)
        if reader is None:
            raise CommandSyntaxError(555, "5.5.4", f"MAIL parameter {name} not recognized")
        reader(fields, value)
    if path.is_null:
        sender = None
    elif path.mailbox is None:
        raise CommandSyntaxError(553, "5.1.7", "The sender address has no domain")
    else:
        sender = path.mailbox
        if not path.is_ascii and not fields.smtputf8:
            raise CommandSyntaxError(553, "5.6.7", "This address needs SMTPUTF8")
    return Mail(
        sender,
        size=fields.size,
        body_8bit=fields.body_8bit,
        smtputf8=fields.smtputf8,
        return_headers_only=fields.headers_only,
        envelope_id=fields.envelope_id,
        names=frozenset(parameters),
    )


@dataclass(slots=True)
class _MailFields:
    size: int | None = None
    body_8bit: bool = False
    smtputf8: bool = False
    headers_only: bool = False
    envelope_id: str = ""


def _mail_size(fields: _MailFields, value: str | None) -> None:
    if value is None or re.fullmatch(r"[0-9]{1,20}", value) is None:
        raise CommandSyntaxError(501, "5.5.4", "SIZE needs a number of octets")
    fields.size = int(value)


def _mail_body(fields: _MailFields, value: str | None) -> None:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise CommandSyntaxError(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
    fields.body_8bit = body == "8BITMIME"


def _mail_smtputf8(fields: _MailFields, value: str | None) -> None:
    if value is not None:
        raise CommandSyntaxError(501, "5.5.4", "SMTPUTF8 has no value")
    fields.smtputf8 = True


def _mail_ret(fields: _MailFields, value: str | None) -> None:
    ret = (value or "").upper()
    if ret not in ("FULL", "HDRS"):
        raise CommandSyntaxError(501, "5.5.4", "RET is FULL or HDRS")
    fields.headers_only = ret == "HDRS"


def _mail_envid(fields: _MailFields, value: str | None) -> None:
    try:
        fields.envelope_id = decode_xtext(value or "")
    except ValueError:
        raise CommandSyntaxError(501, "5.5.4", "ENVID is not xtext") from None
    if not 0 < len(fields.envelope_id) <= MAX_ENVID:
        raise CommandSyntaxError(501, "5.5.4", "ENVID is empty or too long")


def _mail_auth(_fields: _MailFields, value: str | None) -> None:
    # RFC 4954 5: whose message it is in the client's opinion. Nothing here trusts it; it only
    # has to be well-formed.
    try:
        mailbox = decode_xtext(value or "")
        if mailbox != "<>":
            parse_mail_address(mailbox)
    except ValueError:
        raise CommandSyntaxError(501, "5.5.4", "AUTH is not the xtext of an address") from None


_MAIL_PARAMETERS: Mapping[str, Callable[[_MailFields, str | None], None]] = {
    "SIZE": _mail_size,
    "BODY": _mail_body,
    "SMTPUTF8": _mail_smtputf8,
    "RET": _mail_ret,
    "ENVID": _mail_envid,
    "AUTH": _mail_auth,
}


def _parse_rcpt(_verb: str, argument: str) -> Rcpt:
    path, text = _after_keyword("TO:", argument)
    if path.is_null:
        raise CommandSyntaxError(501, "5.1.3", "The recipient address is empty")
    parameters = _parameters(text)
    notify: frozenset[Notify] = frozenset()
    original = ""
    for name, value in parameters.items():
        if name == "NOTIFY":
            notify = _notify(value)
        elif name == "ORCPT":
            original = _original_recipient(value)
        else:
            raise CommandSyntaxError(555, "5.5.4", f"RCPT parameter {name} not recognized")
    return Rcpt(path, notify, original, frozenset(parameters))


def _notify(value: str | None) -> frozenset[Notify]:
    try:
        keywords = [Notify(word) for word in (value or "").upper().split(",")]
    except ValueError:
        raise CommandSyntaxError(
            501, "5.5.4", "NOTIFY is NEVER, or a list of SUCCESS, FAILURE, DELAY"
        ) from None
    if Notify.NEVER in keywords and len(keywords) > 1:
        raise CommandSyntaxError(501, "5.5.4", "NOTIFY=NEVER stands alone")
    return frozenset(keywords)


def _original_recipient(value: str | None) -> str:
    kind, separator, text = (value or "").partition(";")
    if not separator or re.fullmatch(r"[A-Za-z0-9-]+", kind) is None or len(text) > MAX_ORCPT:
        raise CommandSyntaxError(501, "5.5.4", "ORCPT is addr-type;xtext")
    try:
        # RFC 6533 3: utf-8 addresses may come unencoded or with \x{HEX} escapes, which stay.
        address = text if kind.lower() == "utf-8" and not text.isascii() else decode_xtext(text)
    except ValueError:
        raise CommandSyntaxError(501, "5.5.4", "ORCPT is addr-type;xtext") from None
    if not address:
        raise CommandSyntaxError(501, "5.5.4", "ORCPT is empty")
    return f"{kind};{address}"


def _parse_bdat(_verb: str, argument: str) -> Bdat:
    match = re.fullmatch(r"([0-9]{1,20})(?: +(LAST))?", argument, re.IGNORECASE)
    if match is None:
        # How many octets follow is unknown, so nothing after it can be understood.
        raise CommandSyntaxError(501, "5.5.4", "Syntax: BDAT size [LAST]", close=True)
    return Bdat(int(match[1]), last=match[2] is not None)


def _parse_auth(_verb: str, argument: str) -> Auth:
    words = argument.split()
    if not 1 <= len(words) <= 2 or _MECHANISM.fullmatch(words[0]) is None:
        raise CommandSyntaxError(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
    return Auth(words[0].upper(), words[1].encode() if len(words) == 2 else None)


def _parse_bare(verb: str, argument: str) -> Simple:
    if argument:
        raise CommandSyntaxError(501, "5.5.4", f"Syntax: {verb}")
    return Simple(verb, "")


def _parse_text(verb: str, argument: str) -> Simple:
    return Simple(verb, argument)


def _parse_needed(verb: str, argument: str) -> Simple:
    if not argument:
        raise CommandSyntaxError(501, "5.5.4", f"Syntax: {verb} name")
    return Simple(verb, argument)


def _after_keyword(keyword: str, argument: str) -> tuple[Path, str]:
    """Reads `FROM:<path> parameters`.

    White space behind the colon is a common mistake, and harmless.
    """
    if argument[: len(keyword)].upper() != keyword:
        raise CommandSyntaxError(501, "5.5.4", f"Syntax: {keyword}<address> [parameters]")
    return parse_path(argument[len(keyword) :].lstrip(" "))


def _parameters(text: str) -> dict[str, str | None]:
    parameters: dict[str, str | None] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise CommandSyntaxError(501, "5.5.4", "A parameter is not NAME or NAME=value")
        name = match[1].upper()
        if name in parameters:
            raise CommandSyntaxError(501, "5.5.4", f"Parameter {name} is there twice")
        parameters[name] = match[2]
    return parameters


_PARSERS: Mapping[str, Callable[[str, str], Command]] = {
    "EHLO": _parse_helo,
    "HELO": _parse_helo,
    "MAIL": _parse_mail,
    "RCPT": _parse_rcpt,
    "DATA": _parse_bare,
    "BDAT": _parse_bdat,
    "RSET": _parse_bare,
    "QUIT": _parse_bare,
    "STARTTLS": _parse_bare,
    "AUTH": _parse_auth,
    "NOOP": _parse_text,
    "HELP": _parse_text,
    "VRFY": _parse_needed,
    "EXPN": _parse_needed,
}

VERBS = frozenset(_PARSERS)
"""Every verb that is known."""
