"""Logins by number, as the benchmarks of the table and its replicas use them."""

from pathlib import Path

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.model import LoginProtocol, Profile, Registration, UserKey

LIFETIME = 86_400.0
"""Seconds; nothing expires while it is measured."""
_DOMAINS = frozenset({"example.org", "example.net"})
_PAGE = 4096


def client_address(number: int) -> bytes:
    """IPv4 for three of four, else IPv6; each in a network of its own."""
    if number % 4:
        return (0x0A000000 + number).to_bytes(4, "big")
    return (0x2A00 << 112 | number << 64 | 0x1234).to_bytes(16, "big")


def place(number: int) -> bytes:
    """The network of the address."""
    address = client_address(number)
    return address if len(address) == 4 else address[:8] + bytes(8)


def user(number: int) -> UserKey:
    """One user for each number."""
    return UserKey(f"user{number}", "users.demo")


def addresses(number: int) -> tuple[str, ...]:
    """One mail address or two."""
    plain = f"user{number}@example.org"
    return (plain,) if number % 2 else (plain, f"first.last{number}@example.org")


def registration(number: int, *, session: int = 0, renewal: bool = False) -> Registration:
    """As pop_imap makes it."""
    own = addresses(number)
    return Registration(
        profile=Profile(user(number), own, own, _DOMAINS),
        place=place(number),
        client_address=client_address(number),
        protocol=LoginProtocol.IMAP,
        messaging_server="mail1",
        agent="pop_imap/1",
        session_id=f"{number * 7919 + session:032x}",
        age=0.0,
        credential_epoch=1,
        renewal=renewal,
    )


def message(number: int, *, session: str = "") -> pb.LoginRegistration:
    """The same as an agent sends it."""
    name, context = user(number)
    return pb.LoginRegistration(
        user=pb.UserKey(name=name, context=context),
        addresses=addresses(number),
        client_address=client_address(number),
        protocol=pb.PROTOCOL_IMAP,
        messaging_server="mail1",
        agent="bench",
        session_id=session or f"{number:032x}",
        credential_epoch=1,
        domains=sorted(_DOMAINS),
    )


def resident() -> int:
    """Octets of memory that this process has (RSS)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
