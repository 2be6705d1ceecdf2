"""The store on SQLite: one file, one process, one writer thread, readers beside it."""

from netmail_nmap.adapters.sql._core import Core
from netmail_nmap.adapters.sql._engine import database_path, exclusive, make_engine, prepare
from netmail_nmap.adapters.sql._events import DirectoryChanged, UserEnded
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
from netmail_nmap.adapters.sql._writer import Transaction, Writer

__all__ = [
    "BulkInsert",
    "Core",
    "DirectoryChanged",
    "Driver",
    "Readers",
    "Snapshot",
    "Statement",
    "Store",
    "Transaction",
    "UserEnded",
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
