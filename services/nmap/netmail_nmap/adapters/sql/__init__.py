"""The store in SQL: what both engines share, and SQLite (one file, one process, one writer)."""

from netmail_nmap.adapters.sql._core import Core, DirectoryVersion
from netmail_nmap.adapters.sql._engine import database_path, exclusive, make_engine, prepare
from netmail_nmap.adapters.sql._events import DirectoryChanged, Event, QueueGrew, UserEnded
from netmail_nmap.adapters.sql._mailboxes import create_defaults, remove_all
from netmail_nmap.adapters.sql._readers import Readers, Snapshot
from netmail_nmap.adapters.sql._statements import (
    BulkInsert,
    Driver,
    Statement,
    greater_of,
    id_list,
    ids_of,
    names_of,
)
from netmail_nmap.adapters.sql._store import Store, open_store
from netmail_nmap.adapters.sql._writer import Transaction, WriteQueue, Writer

__all__ = [
    "BulkInsert",
    "Core",
    "DirectoryChanged",
    "DirectoryVersion",
    "Driver",
    "Event",
    "QueueGrew",
    "Readers",
    "Snapshot",
    "Statement",
    "Store",
    "Transaction",
    "UserEnded",
    "WriteQueue",
    "Writer",
    "create_defaults",
    "database_path",
    "exclusive",
    "greater_of",
    "id_list",
    "ids_of",
    "make_engine",
    "names_of",
    "open_store",
    "prepare",
    "remove_all",
]
