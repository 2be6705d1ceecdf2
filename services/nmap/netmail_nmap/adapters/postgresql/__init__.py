"""The store on PostgreSQL: one database, any number of agents."""

from netmail_nmap.adapters.postgresql._connect import Place
from netmail_nmap.adapters.postgresql._migrate import prepare
from netmail_nmap.adapters.postgresql._store import open_postgresql

__all__ = ["Place", "open_postgresql", "prepare"]
