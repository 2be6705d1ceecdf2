"""IMAP's errors with their response codes (RFC 3501 7.1, RFC 5530)."""

from netmail_pop_imap.protocol import errors


class BadCommand(errors.BadCommand):
    """Syntax, unknown command, wrong state: BAD."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        if code:
            self.imap_code = code.encode("ascii")


class Refused(errors.ReplyError):
    """Understood and not done: NO, with a response code if there is one."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        if code:
            self.imap_code = code.encode("ascii")


class UnexpectedEnd(errors.BadCommand):
    """What follows cannot be told from a command any more: BAD, then the session ends."""

    ends = True
