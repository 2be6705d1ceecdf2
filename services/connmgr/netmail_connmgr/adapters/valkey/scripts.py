"""The scripts that are the table; what each gets and gives stands at its head."""

from importlib.resources import files

from netmail_connmgr.adapters.valkey.connection import Script

__all__ = [
    "ATTACH",
    "CHANGES",
    "COUNT",
    "EVICT",
    "FIND",
    "MARKS",
    "OF_USER",
    "PAGE",
    "REGISTER",
    "REVOKE",
]

_FOLDER = files(__package__) / "lua"


def _script(name: str, *, common: bool = True) -> Script:
    head, _, body = (_FOLDER / f"{name}.lua").read_text().partition("\n")
    shared = (_FOLDER / "common.lua").read_text() if common else ""
    return Script(f"{head}\n{shared}{body}".encode())


ATTACH = _script("attach", common=False)
CHANGES = _script("changes")
COUNT = _script("count")
EVICT = _script("evict")
FIND = _script("find")
MARKS = _script("marks")
OF_USER = _script("of_user")
PAGE = _script("page")
REGISTER = _script("register")
REVOKE = _script("revoke")
