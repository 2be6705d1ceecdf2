"""How an authentication fails, with the words for each protocol."""

from typing import ClassVar


class AuthError(Exception):
    """An authentication did not succeed. No text of it says more than the client may know.

    Attributes:
        smtp: reply code, enhanced code and text (RFC 4954 4 and 6).
        imap_code: response code of the tagged NO (RFC 5530); None: the answer is BAD.
        pop3_code: extended response code of -ERR (RFC 3206); None: none.
        text: the human-readable text for POP3 and IMAP.
        counts: whether it is one of the client's `max_auth_failures`.
    """

    smtp: ClassVar[tuple[int, str, str]]
    imap_code: ClassVar[str | None] = None
    pop3_code: ClassVar[str | None] = None
    counts: ClassVar[bool] = True

    @property
    def text(self) -> str:
        """The human-readable text."""
        return self.smtp[2]


class AuthFailed(AuthError):
    """Wrong password, unknown or disabled user: never said which.

    Attributes:
        user: name and context of the user whose credentials they were not, for those who count;
            None: there is no such user, or nobody knows.
    """

    smtp = (535, "5.7.8", "Authentication failed")
    imap_code = "AUTHENTICATIONFAILED"
    pop3_code = "AUTH"

    def __init__(self, user: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.user = user


class AuthUnavailable(AuthError):
    """The directory does not answer, or has too much to do."""

    smtp = (454, "4.7.0", "Temporary authentication failure")
    imap_code = "UNAVAILABLE"
    pop3_code = "SYS/TEMP"
    counts = False


class AuthMalformed(AuthError):
    """What the client sent is not base64, or not a message of the mechanism."""

    smtp = (501, "5.5.2", "Cannot decode the response")


class AuthTooLong(AuthMalformed):
    """A response is longer than RFC 4954 4 asks a server to take."""

    smtp = (500, "5.5.6", "Authentication exchange line is too long")


class AuthCancelled(AuthError):
    """The client sent `*`, or went away."""

    smtp = (501, "5.7.0", "Authentication cancelled")
    counts = False
