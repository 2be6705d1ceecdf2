"""A login is small: in the table, and in a replica. The benchmarks measure it with a million."""

import tracemalloc
from collections.abc import Callable

from netmail_common.connmgr.model import LoginProtocol, Profile, Registration, UserKey
from netmail_common.connmgr.replica_table import ReplicaTable
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.table import LoginTable, TableLimits

LOGINS = 4096
MOST = 300
"""Octets of a login as Python counts them. What few logins share takes some forty of them here."""
_DOMAINS = frozenset({"example.org"})


def registration(number: int) -> Registration:
    addresses = (f"user{number}@example.org", f"first.last{number}@example.org")
    place = (0x0A000000 + number).to_bytes(4, "big")
    return Registration(
        profile=Profile(
            UserKey(f"user{number}", "users.demo"), addresses[: 1 + number % 2], (), _DOMAINS
        ),
        place=place,
        client_address=place,
        protocol=LoginProtocol.IMAP,
        messaging_server="mail1",
        agent="pop_imap/1",
        session_id=f"{number:032x}",
        age=0.0,
        credential_epoch=1,
    )


def allocated_by(fill: Callable[[], object]) -> float:
    """Octets of each login that FILL adds; caches of a bounded size are full by then."""
    tracemalloc.start()
    try:
        fill()
        before, _ = tracemalloc.get_traced_memory()
        kept = fill()
        after, _ = tracemalloc.get_traced_memory()
        assert kept
    finally:
        tracemalloc.stop()
    return (after - before) / LOGINS


def filled_table() -> LoginTable:
    table = LoginTable(TableLimits(), ChangeLog(capacity=16))
    for number in range(LOGINS):
        table.register(registration(number), 1000.0 + 900.0 * number / LOGINS)
    return table


def test_a_login_in_the_table_is_small() -> None:
    assert allocated_by(filled_table) < MOST


def test_a_login_in_a_replica_is_small() -> None:
    records = [bytearray(record) for record in filled_table().snapshot()]

    def filled_replica() -> ReplicaTable:
        replica = ReplicaTable()
        for record in records[1:]:
            replica.put(bytes(record))
        return replica

    assert allocated_by(filled_replica) < MOST
