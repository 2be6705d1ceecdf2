"""The golden vectors, and the secret that they were made with."""

import functools
import string
from pathlib import Path

from netmail_connmgr.protocol.legacy_udp.layout import Layout

CREDENTIAL = ((string.ascii_lowercase + string.ascii_uppercase + string.digits) * 67)[:4096]
TREE = "\\Tree"
ACCESS_HASH = bytes.fromhex(
    "0283f3a56e515f01db2df80562115049bd7e3aba9f37e35f0b3884cb32116954"
    "fdac94bd161f7277de8ad4a9f26688539dfd34787039222a5dd3ddce3713a79e"
    "909971fc0754110d361e0e526a7374cacbb5b17f63120e312057a76f34e80488"
    "8065b106560ed9b3cdf9443db07532dfc219ad6ee56108e65f286f1a35afd6d5"
)
SALT = b"ff7c3b4713847da947bffa3004e2f743"
PASSWORD = b"616e63b8aed6b3ab3d2476c54119619e"
"""MD5 of salt and access hash."""

CLIENT = bytes([192, 0, 2, 1])
AGENT = bytes([198, 51, 100, 7])
NOW = 1_800_000_123.0

LAYOUTS = {layout.name.lower().replace("_", "-"): layout for layout in Layout}


@functools.cache
def vectors() -> dict[tuple[str, Layout], bytes]:
    """Octets by name and layout."""
    found = {}
    for line in (Path(__file__).parent / "vectors.txt").read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            name, layout, *runs = line.split()
            found[name, LAYOUTS[layout]] = b"".join(map(_run, runs))
    return found


def vector(name: str, layout: Layout) -> bytes:
    """The octets of one."""
    return vectors()[name, layout]


def _run(text: str) -> bytes:
    octets, _, count = text.partition("*")
    return bytes.fromhex(octets) * int(count or 1)
