"""Suspicions in the words of the API."""

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.connmgr.model import UserKey

from netmail_connmgr.domain.suspicions import Suspect, SuspicionStep

__all__ = ["suspicion_changes"]


def suspicion_changes(step: SuspicionStep, ipv6_prefix: int) -> pb.SuspicionChanges:
    """A step as the stream tells it; the prefix is that of IPv6 networks."""
    return pb.SuspicionChanges(
        added=[_message(who, ipv6_prefix) for who in step.added],
        removed=[_message(who, ipv6_prefix) for who in step.removed],
        complete=step.complete,
        everybody=step.everybody,
    )


def _message(who: Suspect, ipv6_prefix: int) -> pb.Suspicion:
    if isinstance(who, UserKey):
        return pb.Suspicion(user=pb.UserKey(name=who.name, context=who.context))
    return pb.Suspicion(network=who, prefix_length=32 if len(who) == 4 else ipv6_prefix)
