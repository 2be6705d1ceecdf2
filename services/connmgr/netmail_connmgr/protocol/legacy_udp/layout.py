"""How the original clients' compilers laid out their structs, and in which byte order."""

from enum import Enum
from struct import Struct
from typing import Literal

__all__ = ["Layout"]


class Layout(Enum):
    """Size of C's unsigned long in octets, and byte order, of one client."""

    __hash__ = object.__hash__  # as quick as any object's; Enum's own is Python code

    ILP32_LITTLE = (4, "little")
    ILP32_BIG = (4, "big")
    LP64_LITTLE = (8, "little")
    LP64_BIG = (8, "big")

    def __init__(self, word: int, order: Literal["little", "big"]) -> None:
        self.word = word
        self.order = order
        self._mark = "<" if order == "little" else ">"
        self._letter = "I" if word == 4 else "Q"

    def struct(self, fields: str) -> Struct:
        """A struct without padding of its own; `L` in FIELDS is an unsigned long."""
        return Struct(self._mark + fields.replace("L", self._letter))

    def address(self, field: bytes) -> bytes | None:
        """The four octets of an IPv4 address in an unsigned long.

        They lie there in network order, whichever way the host counts: in a field of eight octets
        at its lower-valued half, and the other one is zero. None if it is not.
        """
        if self.word == 4:
            return field
        if self.order == "little":
            address, rest = field[:4], field[4:]
        else:
            rest, address = field[:4], field[4:]
        return None if any(rest) else address
