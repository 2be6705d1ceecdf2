"""The Connection Manager as the other agents see it: its client, its words, its decision."""

from netmail_common.connmgr.client import ConnectionManagerClient, ConnectionManagerUnavailable
from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.events import (
    Changed,
    Connected,
    Lost,
    Revoked,
    SnapshotEnded,
    Suspected,
    WatchEvent,
    WatchMode,
)
from netmail_common.connmgr.model import UserKey
from netmail_common.connmgr.replica import LoginReplica

__all__ = [
    "Changed",
    "Connected",
    "ConnectionManagerClient",
    "ConnectionManagerUnavailable",
    "LoginReplica",
    "Lost",
    "Revoked",
    "SnapshotEnded",
    "Suspected",
    "UserKey",
    "WatchEvent",
    "WatchMode",
    "decide",
]
