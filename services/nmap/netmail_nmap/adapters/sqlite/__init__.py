"""The store on SQLite: one file, one process, one writer thread, readers beside it."""

from netmail_nmap.adapters.sqlite._core import Core
from netmail_nmap.adapters.sqlite._engine import database_path, exclusive, make_engine, prepare
from netmail_nmap.adapters.sqlite._events import UserEnded
from netmail_nmap.adapters.sqlite._mailboxes import create_defaults, remove_all
from netmail_nmap.adapters.sqlite._readers import Readers, Snapshot
from netmail_nmap.adapters.sqlite._statements import BulkInsert, Driver, Statement, id_list, ids_of
from netmail_nmap.adapters.sqlite._store import Store, open_store
from netmail_nmap.adapters.sqlite._writer import Transaction, Writer

__all__ = [
    "BulkInsert",
    "Core",
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
    "id_list",
    "ids_of",
    "make_engine",
    "open_store",
    "prepare",
    "remove_all",
]
