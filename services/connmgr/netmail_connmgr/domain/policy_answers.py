"""What Postfix is told: who may relay, how much, and who gets X-Auth-OK."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from email.header import Header
from enum import Enum

from netmail_common.connmgr.model import (
    ANONYMOUS,
    Binding,
    Decision,
    SenderDecision,
    SenderQuestion,
    UserKey,
)

from netmail_connmgr.domain.address_map import AddressMap
from netmail_connmgr.domain.front_desk import Enquiry, RelayedMail
from netmail_connmgr.protocol.postfix_policy import PolicyRequest, is_action

__all__ = [
    "NOTHING",
    "OVER_RATE",
    "UNAVAILABLE",
    "PolicyAnswers",
    "PolicySettings",
    "Purpose",
    "purpose_of",
]

NOTHING = "DUNNO"
UNAVAILABLE = "DEFER_IF_PERMIT 4.7.1 Cannot check now who you are, try again later"
OVER_RATE = "451 4.7.1 You have sent too much within an hour, try again later"
_REMEMBERED = 10_000
"""Messages between RCPT and DATA."""


class Purpose(Enum):
    """Why Postfix asks, by the state of its session."""

    RELAY = "Postfix relay"
    TRACE = "Postfix trace"
    MAIL = "Postfix mail"
    OTHER = "Postfix"


def purpose_of(request: PolicyRequest) -> Purpose:
    """RCPT is about relaying, DATA about the header, END-OF-MESSAGE about how much it is.

    Postfix 3.7 says DATA for BDAT too.
    """
    if request.state == "RCPT":
        return Purpose.RELAY
    if request.state == "END-OF-MESSAGE":
        return Purpose.MAIL
    return Purpose.TRACE if request.state in {"DATA", "BDAT"} else Purpose.OTHER


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What the configuration says.

    Attributes:
        known: action for a known sender.
        unknown: action for everybody else.
        trace_word: X-Auth-OK begins with it, for Postfix to take out; empty: none.
    """

    binding: Binding
    known: str = "OK"
    unknown: str = NOTHING
    trace_word: str = ""


class PolicyAnswers:
    """Questions and actions for the requests of one process.

    Whoever was let in at RCPT is the one to be named at DATA, though his login be over by then.
    Recipients of who is known by a login are counted one by one at RCPT, those of who has
    authenticated to Postfix, which it does not ask about there, with the message.

    Args:
        user_of: whose a name of Postfix's SASL is.
    """

    def __init__(self, settings: PolicySettings, user_of: Callable[[str], UserKey]) -> None:
        self._settings = settings
        self._user_of = user_of
        self._let_in: OrderedDict[tuple[str, bytes, str], str] = OrderedDict()

    def at_once(self, request: PolicyRequest) -> str | None:
        """The action for a request that nobody need be asked about; None: it needs more."""
        purpose = purpose_of(request)
        if purpose is Purpose.OTHER:
            return NOTHING
        if purpose is Purpose.MAIL:
            return None if request.sasl_username and request.client_address else NOTHING
        if purpose is Purpose.TRACE:
            if request.sasl_username:
                return self._trace(request.sasl_username)
            user = self._let_in.get(_message(request))
            if user is not None:
                return self._trace(user)
        if not request.client_address:
            return self._stranger(request)
        return None

    def enquiry(self, request: PolicyRequest, known: AddressMap) -> Enquiry | None:
        """The decision that a request needs; None: none."""
        if purpose_of(request) is Purpose.MAIL:
            return None
        binding = self._settings.binding
        senders = (known.sender(request.sender, binding),) if request.sender else ()
        question = SenderQuestion(senders, binding)
        return Enquiry(request.client_address, question, purpose_of(request).value)

    def mail(self, request: PolicyRequest, decision: SenderDecision | None) -> RelayedMail | None:
        """What counts for the rates of the sender; None: nothing."""
        purpose, address = purpose_of(request), request.client_address
        if purpose is Purpose.MAIL:
            user = self._user_of(request.sasl_username)
            return RelayedMail(address, user, True, request.recipients, 1, "", purpose.value)
        login = decision.login if decision is not None else None
        if purpose is not Purpose.RELAY or decision is None or login is None:
            return None
        if decision.decision is not Decision.ALLOWED or login.user == ANONYMOUS:
            return None
        first = int(_message(request) not in self._let_in)
        return RelayedMail(address, login.user, False, 1, first, login.session_id, purpose.value)

    def action(
        self, request: PolicyRequest, decision: SenderDecision | None, *, within_rate: bool = True
    ) -> str:
        """The action for a request that was decided, if it needed that."""
        if purpose_of(request) is Purpose.MAIL:
            return NOTHING if within_rate else OVER_RATE
        if decision is None:
            return self._unavailable(request)
        if decision.decision is not Decision.ALLOWED:
            return self._stranger(request)
        user = decision.login.user.name if decision.login is not None else ""
        if purpose_of(request) is Purpose.TRACE:
            return self._trace(user)
        if not within_rate:
            return OVER_RATE
        self._remember(request, user)
        return self._settings.known

    def _unavailable(self, request: PolicyRequest) -> str:
        """The action for a request that nobody can decide now.

        A header that cannot be written is no reason to hold up everybody's mail.
        """
        return NOTHING if purpose_of(request) is Purpose.TRACE else UNAVAILABLE

    def _stranger(self, request: PolicyRequest) -> str:
        """Who has authenticated to Postfix needs no login; that is Postfix's to decide."""
        if purpose_of(request) is Purpose.TRACE or request.sasl_username:
            return NOTHING
        return self._settings.unknown

    def _trace(self, user: str) -> str:
        word = self._settings.trace_word
        action = f"PREPEND X-Auth-OK: {word}{' ' if word else ''}{_field_text(user)}"
        return action if user and is_action(action) else NOTHING

    def _remember(self, request: PolicyRequest, user: str) -> None:
        self._let_in[_message(request)] = user
        if len(self._let_in) > _REMEMBERED:
            self._let_in.popitem(last=False)


def _message(request: PolicyRequest) -> tuple[str, bytes, str]:
    return request.instance, request.client_address, request.sender


def _field_text(text: str) -> str:
    """A user's name as unstructured text; beyond ASCII as encoded words (RFC 2047)."""
    if text.isascii():
        return text
    return Header(text, "utf-8", maxlinelen=10_000).encode()
