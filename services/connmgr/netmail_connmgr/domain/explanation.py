"""A relay decision in words: each rule in its order, and what it said."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from netmail_common.connmgr.decision import decide
from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    CheckedSender,
    Decision,
    Login,
    Reason,
    SenderDecision,
    SenderQuestion,
)
from netmail_common.networks import Located, Standing

from netmail_connmgr.domain.table import Found

__all__ = ["explain_decision"]

_SHOWN = 10
"""Logins and senders that are told one by one."""


def explain_decision(
    octets: bytes,
    where: Located,
    question: SenderQuestion,
    found: Found,
    decision: SenderDecision,
    *,
    max_users: int,
) -> list[str]:
    """Says how a decision came about.

    Args:
        octets: the client's address, 4 or 16 of them.
        where: the same, located.
        found: the logins at its place.
        decision: what was decided.
        max_users: with more users on the network the binding is strict.
    """
    lines = [f"address: {ip_address(octets)} is kept as {where.network}", _standing(where)]
    lines.extend(_logins(where, found))
    if where.grants and found.logins:
        lines.extend(_senders(question, where, found, max_users))
    lines.append(_result(decision))
    return lines


def _standing(where: Located) -> str:
    if where.standing is Standing.LISTED:
        return "network: in the list of those that always may; no login is needed"
    if where.grants:
        return "network: logins from there grant relaying"
    return f"network: logins from there grant nothing: {where.standing.value}"


def _logins(where: Located, found: Found) -> Iterator[str]:
    if not found.logins:
        yield "logins: none" + (", one has expired" if found.expired else "")
        return
    newest_first = sorted(found.logins, key=lambda one: (one.verified, one.serial), reverse=True)
    vouch = "" if where.grants else ", which vouch for nobody"
    yield f"logins: {len(newest_first)}{vouch}"
    for login in newest_first[:_SHOWN]:
        yield f"login: {_login(login, found.now)}"
    if len(newest_first) > _SHOWN:
        yield f"login: {len(newest_first) - _SHOWN} more"


def _login(login: Login, now: float) -> str:
    who = str(login.user) if login.user != ANONYMOUS else "nobody known by name"
    how = login.protocol.name.lower().replace("_", " ")
    server = f" at {login.messaging_server}" if login.messaging_server else ""
    return (
        f"{who} by {how}{server}, {now - login.verified:.0f} s ago,"
        f" counts for {max(0.0, login.expires - now):.0f} s more"
    )


def _senders(
    question: SenderQuestion, where: Located, found: Found, max_users: int
) -> Iterator[str]:
    users = sum(login.user != ANONYMOUS for login in found.logins)
    binding = question.binding
    if users > max_users:
        yield f"sender binding: strict, since {users} users are more than {max_users}"
        binding = Binding.STRICT
    else:
        yield f"sender binding: {binding.value}"
    if not question.senders:
        yield "sender: none was named"
    for sender in question.senders[:_SHOWN]:
        alone = decide(
            SenderQuestion((sender,), binding), where.standing, found.logins, max_users=max_users
        )
        yield f"sender {_plain(sender.address)}: {_sender(sender, alone, found.logins)}"
    if len(question.senders) > _SHOWN:
        yield f"sender: {len(question.senders) - _SHOWN} more"


def _sender(sender: CheckedSender, alone: SenderDecision, logins: Sequence[Login]) -> str:
    if alone.decision is Decision.ALLOWED:
        owner = next((one for one in logins if _owns(one, sender)), None)
        if owner is not None:
            return f"belongs to {owner.user}, who is logged in"
        return "may be used: the binding is wide enough"
    match alone.reason:
        case Reason.SENDER_OF_OTHER_USER:
            return f"belongs to {sender.owner}, who is not logged in from there"
        case Reason.NO_USER:
            return "may not be used: the login names no user"
        case _:
            if not sender.key:
                return "may not be used: it is no address"
            asked = "" if sender.known else "; the directory was not asked whose it is"
            return f"may not be used: it belongs to nobody who is logged in from there{asked}"


def _owns(login: Login, sender: CheckedSender) -> bool:
    if sender.known:
        return sender.owner == login.user and login.user != ANONYMOUS
    return bool(sender.key) and sender.key in login.profile.address_keys


def _result(decision: SenderDecision) -> str:
    said = f"result: {decision.decision.value}: {decision.reason.value}"
    if decision.login is not None and decision.login.user != ANONYMOUS:
        said += f", in the name of {decision.login.user}"
    return said


def _plain(text: str) -> str:
    """A stranger's text in one line."""
    return text[:320] if text.isprintable() else repr(text[:320])
