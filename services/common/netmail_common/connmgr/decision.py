"""The relay decision: a pure function of the live logins on a network and the message's senders.

The Connection Manager and whoever holds a replica of its table decide by this and nothing else.
"""

import heapq
from collections.abc import Sequence

from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    CheckedSender,
    Decision,
    Login,
    Reason,
    SenderDecision,
    SenderQuestion,
    UserKey,
)
from netmail_common.networks import Standing

__all__ = ["MAX_NAMED_USERS", "decide"]

MAX_NAMED_USERS = 100
"""Users that a decision names; it counts all."""


def decide(
    question: SenderQuestion,
    standing: Standing,
    logins: Sequence[Login],
    *,
    max_users: int,
    expired: bool = False,
) -> SenderDecision:
    """Decides whether a client may relay.

    Args:
        question: the message's senders and the listener's sender binding.
        standing: of the client's network.
        logins: the live logins on that network, one for each user.
        max_users: with more users than this the network's sender binding is strict.
        expired: a login was there and is over; for the reason only.
    """
    if standing is Standing.LISTED:
        return SenderDecision(Decision.ALLOWED, Reason.LISTED)
    if standing is not Standing.GRANTS:
        return SenderDecision(Decision.MUST_AUTHENTICATE, _why_not(standing))
    if not logins:
        reason = Reason.EXPIRED if expired else Reason.NO_LOGIN
        return SenderDecision(Decision.MUST_AUTHENTICATE, reason)
    named = [login for login in logins if login.profile.user != ANONYMOUS]
    if not question.senders and question.binding is Binding.ANY:
        return _decided(logins, named)  # any live login will do
    binding = Binding.STRICT if len(named) > max_users else question.binding
    owner: Login | None = None
    refusal: tuple[Reason, str] | None = None
    if not named and binding is not Binding.ANY:
        # Nobody vouches for a message without senders either.
        refusal = Reason.NO_USER, question.senders[0].address if question.senders else ""
    if question.senders:
        by_user = {login.user: login for login in logins}
        for sender in question.senders:
            sender_owner = _owner_among(sender, by_user)
            owner = owner or sender_owner
            if refusal is None and sender_owner is None and binding is not Binding.ANY:
                refused = _refuse(sender, binding, by_user)
                refusal = refused and (refused, sender.address)
    return _decided(logins, named, owner, refusal)


def _decided(
    logins: Sequence[Login],
    named: list[Login],
    owner: Login | None = None,
    refusal: tuple[Reason, str] | None = None,
) -> SenderDecision:
    """The decision about a client whose network has logins.

    Args:
        named: those of users that are known by name.
        owner: the login that owns a sender.
        refusal: why a sender is refused, and which.
    """
    newest = _newest(named)
    reason, refused = refusal or (Reason.LOGIN, "")
    return SenderDecision(
        Decision.DENIED if refusal else Decision.ALLOWED,
        reason,
        owner or (newest[0] if newest else logins[0]),
        tuple([login.profile.user for login in newest]),
        len(named),
        refused,
    )


def _why_not(standing: Standing) -> Reason:
    if standing is Standing.BLOCKED:
        return Reason.BLOCKED
    return Reason.SHARED_NETWORK if standing.shared else Reason.NEVER_GRANTS


def _newest(logins: list[Login]) -> list[Login]:
    """The newest logins, newest first, at most MAX_NAMED_USERS."""
    if len(logins) < 2:
        return logins
    return heapq.nlargest(MAX_NAMED_USERS, logins, key=lambda one: (one.verified, one.serial))


def _owner_among(sender: CheckedSender, by_user: dict[UserKey, Login]) -> Login | None:
    """The login that owns the sender: by the directory's word, else by what it registered."""
    if sender.known:
        known_owner = sender.owner not in {None, ANONYMOUS}
        return by_user.get(sender.owner) if sender.owner and known_owner else None
    if sender.key:
        for login in by_user.values():
            if sender.key in login.profile.address_keys:
                return login
    return None


def _refuse(
    sender: CheckedSender, binding: Binding, by_user: dict[UserKey, Login]
) -> Reason | None:
    """Why a sender that nobody on the network owns is refused; None: it is not."""
    if sender.known and sender.owner is not None:
        return Reason.SENDER_OF_OTHER_USER
    if (
        binding is Binding.DOMAIN
        and sender.known
        and any(sender.domain in login.profile.domains for login in by_user.values())
    ):
        return None
    return Reason.SENDER_NOT_OWNED
