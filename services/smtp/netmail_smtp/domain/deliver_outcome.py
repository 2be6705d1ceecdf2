"""What became of a delivery, in the queue's terms, and how replies become that."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from netmail_smtp.protocol.client import Answer, SessionRefused, Stage
from netmail_smtp.protocol.client_extensions import Extensions
from netmail_smtp.protocol.client_reply import Reply


@dataclass(frozen=True, slots=True)
class Delivered:
    """The next hop took it."""

    status: str
    diagnostic: str
    remote_mta: str
    dsn_passed_on: bool = False
    """The next hop offered DSN and has its duties now."""
    final: bool = False
    """It is in the recipient's mailbox, not at a relay."""


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """Why a recipient has not got it."""

    retryable: bool
    status: str
    """RFC 3463; its class agrees with `retryable`."""
    diagnostic: str
    """RFC 3464 2.3.6: "smtp; 450 ..." or "x-netmail; ..."."""
    remote_mta: str = ""


Outcome: TypeAlias = Delivered | DeliveryFailure


class HostFailed(Exception):
    """No session with this host: the next host may do."""

    def __init__(self, failure: DeliveryFailure, *, unreachable: bool = True) -> None:
        super().__init__(failure.diagnostic)
        self.failure = failure
        self.unreachable = unreachable
        """The host is left alone for a while; False: it is fine, but not for this delivery."""


def temporary(status: str, words: str, remote_mta: str = "") -> DeliveryFailure:
    """A failure in our own words that may pass."""
    return DeliveryFailure(True, status, f"x-netmail; {words}", remote_mta)


def permanent(status: str, words: str, remote_mta: str = "") -> DeliveryFailure:
    """A failure in our own words that stays."""
    return DeliveryFailure(False, status, f"x-netmail; {words}", remote_mta)


def from_answer(answer: Answer, remote_mta: str, extensions: Extensions) -> Outcome:
    """The outcome for a recipient whose fate a reply has decided."""
    reply = answer.reply
    if answer.stage is Stage.FINAL and reply.positive:
        status = reply.enhanced or "2.0.0"
        return Delivered(status, f"smtp; {reply}", remote_mta, dsn_passed_on=extensions.dsn)
    return from_reply(reply, answer.stage, remote_mta)


def from_reply(reply: Reply, stage: Stage, remote_mta: str) -> DeliveryFailure:
    """A refusal; a reply that makes no sense here counts as one that may pass."""
    if reply.permanent:
        status = reply.enhanced or _PERMANENT.get((stage, reply.code), "5.0.0")
        return DeliveryFailure(False, status, f"smtp; {reply}", remote_mta)
    if reply.transient:
        return DeliveryFailure(True, reply.enhanced or "4.0.0", f"smtp; {reply}", remote_mta)
    return DeliveryFailure(True, "4.5.0", f"smtp; {reply}", remote_mta)


_PERMANENT = {
    (Stage.RECIPIENT, 550): "5.1.1",
    (Stage.RECIPIENT, 551): "5.1.6",
    (Stage.RECIPIENT, 552): "5.2.2",
    (Stage.RECIPIENT, 553): "5.1.3",
    (Stage.RECIPIENT, 556): "5.1.10",
    (Stage.FINAL, 552): "5.3.4",
    (Stage.MAIL, 552): "5.3.4",
}


def from_refusal(error: SessionRefused, remote_mta: str) -> DeliveryFailure:
    """A session that was not to be: permanent where the host says that it takes no mail.

    RFC 7504 (521), RFC 5321 3.1 (554 as greeting). Any other 5yz to EHLO or AUTH is a fault that
    somebody can mend, so mail waits for it.
    """
    if error.stage is Stage.GREETING and error.reply.code in (521, 554):
        return from_reply(error.reply, error.stage, remote_mta)
    status = "4.7.0" if error.stage is Stage.AUTH else "4.3.2"
    if error.reply.transient:
        status = error.reply.enhanced or status
    return DeliveryFailure(True, status, f"smtp; {error.reply}", remote_mta)


@dataclass(frozen=True, slots=True)
class MessageTraits:
    """What a message asks of a host."""

    size: int
    eight_bit: bool
    utf8_headers: bool
    utf8_sender: bool


def unfit(traits: MessageTraits, offered: Extensions, remote_mta: str) -> DeliveryFailure | None:
    """Why this host cannot take the message at all; the message is never changed to fit."""
    if (traits.utf8_headers or traits.utf8_sender) and not offered.smtputf8:
        what = "sender address" if traits.utf8_sender else "header"
        return permanent(
            "5.6.7", f"the {what} is not ASCII and the host has no SMTPUTF8", remote_mta
        )
    if traits.eight_bit and not offered.eight_bit_mime:
        return permanent(
            "5.6.3", "the message is not 7-bit and the host has no 8BITMIME", remote_mta
        )
    if offered.size and traits.size > offered.size:
        return permanent(
            "5.3.4",
            f"the message has {traits.size} octets, the host takes {offered.size}",
            remote_mta,
        )
    return None


def unfit_recipient(address: str, offered: Extensions, remote_mta: str) -> DeliveryFailure | None:
    """Why this host cannot be told this recipient."""
    if address.isascii() or offered.smtputf8:
        return None
    return permanent(
        "5.6.7", "the recipient address is not ASCII and the host has no SMTPUTF8", remote_mta
    )


def prevailing(failures: list[DeliveryFailure]) -> DeliveryFailure:
    """One failure for all hosts of a destination: while any may pass, the mail waits."""
    for failure in reversed(failures):
        if failure.retryable:
            return failure
    return failures[-1]


@dataclass(slots=True)
class Attempt:
    """The state of one delivery attempt; readable at any time, also after it was cut short."""

    recipients: tuple[str, ...]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: list[DeliveryFailure] = field(default_factory=list)
    """Of the hosts so far, for those who are undecided."""
    started: bool = False
    """Something was said to some host about this message."""
    tls: str = "none"
    host: str = ""

    @property
    def undecided(self) -> tuple[str, ...]:
        """Recipients without an outcome."""
        return tuple(r for r in self.recipients if r not in self.outcomes)

    def decide(self, outcomes: Mapping[str, Outcome]) -> None:
        """Notes outcomes; the first for a recipient stays."""
        for address, outcome in outcomes.items():
            self.outcomes.setdefault(address, outcome)

    def decide_rest(self, outcome: Outcome) -> None:
        """Gives everybody who has none this outcome."""
        self.decide(dict.fromkeys(self.undecided, outcome))
