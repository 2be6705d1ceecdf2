"""What several commands read from their arguments."""

import ipaddress

from netmail_common.config import Duration
from netmail_common.networks import Address
from pydantic import TypeAdapter, ValidationError

from netmail_cli.context import Failure
from netmail_cli.exit_codes import ExitCode

__all__ = ["address_of", "seconds_of"]


def address_of(text: str) -> Address:
    """An IP address. Raises: Failure."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise Failure(ExitCode.USAGE, f"{text} is not an IP address") from None


def seconds_of(text: str, otherwise: str) -> int:
    """A time like 90m, 12h or 7d in seconds. Raises: Failure, which says OTHERWISE."""
    try:
        return TypeAdapter(Duration).validate_python(text)
    except ValidationError:
        raise Failure(ExitCode.USAGE, otherwise) from None
