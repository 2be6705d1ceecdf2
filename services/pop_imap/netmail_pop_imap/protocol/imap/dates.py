"""Dates: date-time of APPEND and INTERNALDATE, date of SEARCH (RFC 3501 section 9)."""

import re
from datetime import UTC, date, datetime, timedelta, timezone

from netmail_pop_imap.protocol.imap.errors import BadCommand

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBER = {name.upper(): number for number, name in enumerate(MONTHS, 1)}
_DATE_TIME = re.compile(
    r"([ 0-3][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2})"
    r" ([+-])([0-9]{2})([0-9]{2})"
)
_DATE = re.compile(r"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
_EPOCH = date(1970, 1, 1)


def parse_date_time(text: bytes) -> int:
    """Seconds since the epoch of `17-Jul-1996 02:44:25 -0700`.

    Raises: BadCommand.
    """
    match = _DATE_TIME.fullmatch(text.decode("ascii", "replace"))
    if match is None:
        raise BadCommand("Invalid date-time")
    zone = timedelta(hours=int(match[8]), minutes=int(match[9]))
    try:
        moment = datetime(
            int(match[3]),
            _MONTH_NUMBER[match[2].upper()],
            int(match[1]),
            int(match[4]),
            int(match[5]),
            min(int(match[6]), 59),  # a leap second
            tzinfo=timezone(zone if match[7] == "+" else -zone),
        )
        return int(moment.timestamp())
    except (ValueError, KeyError, OverflowError) as error:
        raise BadCommand("Invalid date-time") from error


def parse_date(text: bytes) -> int:
    """Days since the epoch of `1-Feb-1994`.

    Raises: BadCommand.
    """
    match = _DATE.fullmatch(text.decode("ascii", "replace"))
    if match is None:
        raise BadCommand("Invalid date")
    try:
        day = date(int(match[3]), _MONTH_NUMBER[match[2].upper()], int(match[1]))
    except (ValueError, KeyError) as error:
        raise BadCommand("Invalid date") from error
    return (day - _EPOCH).days


def format_date_time(seconds: int) -> bytes:
    """`17-Jul-1996 09:44:25 +0000`, without quotes. What no year has is clamped."""
    seconds = max(-62_135_596_800, min(seconds, 253_402_300_799))
    t = datetime.fromtimestamp(seconds, UTC)
    return (
        f"{t.day:02d}-{MONTHS[t.month - 1]}-{t.year:04d}"
        f" {t.hour:02d}:{t.minute:02d}:{t.second:02d} +0000"
    ).encode("ascii")
