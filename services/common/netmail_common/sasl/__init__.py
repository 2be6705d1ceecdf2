"""The one SASL layer (RFC 4422), server side, for SMTP, POP3 and IMAP."""

from netmail_common.sasl._directory import (
    AuthenticatedUser,
    Directory,
    IPAddress,
    ScramOutcome,
    ScramVerification,
)
from netmail_common.sasl._errors import (
    AuthCancelled,
    AuthError,
    AuthFailed,
    AuthMalformed,
    AuthTooLong,
    AuthUnavailable,
)
from netmail_common.sasl._exchange import (
    MAX_LINE,
    Challenge,
    Done,
    Mechanism,
    SaslExchange,
    Step,
    VerifyPassword,
    VerifyScramFinal,
    VerifyScramFirst,
)
from netmail_common.sasl._prepare import (
    MAX_NAME_OCTETS,
    MAX_PASSWORD_OCTETS,
    check_user_name,
    prepare_password,
)
from netmail_common.sasl._run import AuthResult, run_sasl
from netmail_common.sasl._scram import ClientFirst, parse_client_first

__all__ = [
    "MAX_LINE",
    "MAX_NAME_OCTETS",
    "MAX_PASSWORD_OCTETS",
    "AuthCancelled",
    "AuthError",
    "AuthFailed",
    "AuthMalformed",
    "AuthResult",
    "AuthTooLong",
    "AuthUnavailable",
    "AuthenticatedUser",
    "Challenge",
    "ClientFirst",
    "Directory",
    "Done",
    "IPAddress",
    "Mechanism",
    "SaslExchange",
    "ScramOutcome",
    "ScramVerification",
    "Step",
    "VerifyPassword",
    "VerifyScramFinal",
    "VerifyScramFirst",
    "check_user_name",
    "parse_client_first",
    "prepare_password",
    "run_sasl",
]
