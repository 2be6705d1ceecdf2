"""The store on PostgreSQL: one database, any number of agents."""

from netmail_nmap.adapters.postgresql._backup import copy_of_postgresql
from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._migrate import prepare
from netmail_nmap.adapters.postgresql._restore import restore_postgresql
from netmail_nmap.adapters.postgresql._store import open_postgresql

__all__ = ["Place", "copy_of_postgresql", "open_postgresql", "prepare", "restore_postgresql"]
