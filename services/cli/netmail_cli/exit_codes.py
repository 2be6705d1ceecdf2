"""What the exit codes of `netmail` mean; docs for people are in the README of this package."""

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """Exit codes; those from 64 upward are sysexits.h's."""

    OK = 0
    FAILED = 1
    """The agent refused, or a check failed."""
    USAGE = 2
    """The command line is wrong, or the agent did not take a value."""
    NOT_FOUND = 3
    """No such user, context, address, login or message."""
    EXISTS = 4
    """There is one already."""
    UNAVAILABLE = 69
    """An agent does not answer."""
    NO_PERMISSION = 77
    """Our certificate does not allow it."""
    CONFIG = 78
    """The configuration is not usable."""
