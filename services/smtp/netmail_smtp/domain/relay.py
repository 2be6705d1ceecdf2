"""The relay decision, recipient by recipient (design: what a client needs to send where)."""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from netmail_common.mail_address import MailAddress

from netmail_smtp.protocol.paths import Path
from netmail_smtp.protocol.reply import Reply


class Way(StrEnum):
    """How a client was recognised."""

    AUTH = "auth"
    LOGIN = "login"
    NETWORK = "allowed_network"


@dataclass(frozen=True, slots=True)
class KnownSender:
    """A client that may relay.

    Attributes:
        way: how it was recognised.
        user: bare name; empty with NETWORK.
        context: of the user.
        detail: the way in words, for Received: "SMTP AUTH PLAIN", "POP3 login".
        user_count: users known at its address; more than one only with LOGIN.
        all_users: "name@context" of each of them, for the log.
        session_id: with LOGIN, of the login that vouches; with AUTH, of the authentication.
    """

    way: Way
    user: str = ""
    context: str = ""
    detail: str = ""
    user_count: int = 1
    all_users: tuple[str, ...] = ()
    session_id: str = ""

    @property
    def full_name(self) -> str:
        """`name@context`; empty with NETWORK."""
        return f"{self.user}@{self.context}" if self.user else ""


class Unknown(Enum):
    """Why a client is not known."""

    NO_LOGIN = auto()
    SENDER_REFUSED = auto()
    """There is a login, but it does not vouch for the sender."""
    UNREACHABLE = auto()
    """The Connection Manager does not answer."""
    TOO_MANY_CHECKS = auto()
    """This address has asked too often within a second."""


@dataclass(frozen=True, slots=True)
class Stranger:
    """A client that may not relay, or not with this sender.

    Attributes:
        why: the reason.
        sender: with SENDER_REFUSED, the address that was refused.
        user: with SENDER_REFUSED, the user it was refused to.
    """

    why: Unknown
    sender: str = ""
    user: str = ""


class RecipientClass(Enum):
    """What the directory says of a recipient."""

    LOCAL = auto()
    UNKNOWN_USER = auto()
    MAILBOX_FULL = auto()
    UNAVAILABLE = auto()
    REMOTE = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """What one recipient gets.

    Attributes:
        reason: one word for the log and the metrics.
        reply: the wire reply; positive: accepted.
        relay_refusal: it counts towards `relay_refusals`.
    """

    reason: str
    reply: Reply
    relay_refusal: bool = False

    @property
    def accepted(self) -> bool:
        """Whether mail to the recipient is taken."""
        return self.reply.positive


ACCEPTED = Reply(250, "2.1.5", "Recipient ok")
_LOCAL_REFUSALS = {
    RecipientClass.UNKNOWN_USER: Decision("unknown user", Reply(550, "5.1.1", "No such user here")),
    RecipientClass.MAILBOX_FULL: Decision(
        "mailbox full", Reply(452, "4.2.2", "The mailbox is full")
    ),
    RecipientClass.UNAVAILABLE: Decision(
        "directory unavailable", Reply(451, "4.3.0", "Temporary failure, try again later")
    ),
}
RATE_EXCEEDED = Decision(
    "rate exceeded", Reply(451, "4.7.1", "You have sent too much within an hour, try again later")
)
_LOCAL = Decision("local", ACCEPTED)
_RELAY_DOMAIN = Decision("relay domain", ACCEPTED)
_GRANTED = {way: Decision(way.value.replace("_", " "), ACCEPTED) for way in Way}


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """The rules of one listener.

    Attributes:
        submission: every recipient needs a known sender; else (mx) only relaying does.
        relay_domains: relayed for anybody on an mx listener; A-labels.
        auth_offered: SMTP AUTH is a way in here.
        smtp_after_pop: a POP3 or IMAP login is.
    """

    submission: bool
    relay_domains: frozenset[str]
    auth_offered: bool
    smtp_after_pop: bool

    def needs_known_sender(self, path: Path, address: MailAddress, found: RecipientClass) -> bool:
        """Whether `decide` will look at the sender's standing."""
        if self.submission:
            return True
        return (
            found is RecipientClass.REMOTE
            and path.may_be_relayed
            and address.domain not in self.relay_domains
        )

    def decide(
        self,
        path: Path,
        address: MailAddress,
        found: RecipientClass,
        standing: KnownSender | Stranger,
    ) -> Decision:
        """Decides about one recipient.

        Args:
            path: as the client gave it.
            address: its mailbox (`<Postmaster>` with a domain put behind it).
            found: what the directory says.
            standing: looked at only if `needs_known_sender`.
        """
        if self.submission and isinstance(standing, Stranger):
            return self.refusal(standing, address)
        if found is RecipientClass.LOCAL:
            return _LOCAL
        if found is not RecipientClass.REMOTE:
            return _LOCAL_REFUSALS[found]
        if not path.may_be_relayed:
            text = (
                f"Relaying to <{address}> denied: no source routes, no % or ! or @ in the user part"
            )
            return Decision("route trick", Reply(550, "5.7.1", text), relay_refusal=True)
        if not self.submission and address.domain in self.relay_domains:
            return _RELAY_DOMAIN
        if isinstance(standing, Stranger):
            return self.refusal(standing, address)
        return _GRANTED[standing.way]

    def refusal(self, stranger: Stranger, recipient: MailAddress | None) -> Decision:
        """The refusal of a stranger, in words that tell a person what to do."""
        match stranger.why:
            case Unknown.UNREACHABLE:
                reply = Reply(451, "4.4.3", "Cannot find out who you are now, try again later")
                return Decision("connection manager unreachable", reply)
            case Unknown.TOO_MANY_CHECKS:
                reply = Reply(451, "4.7.1", "Too many attempts from your address, try again later")
                return Decision("too many checks", reply)
            case Unknown.SENDER_REFUSED if stranger.user:
                return Decision(
                    "sender refused", sender_refused(stranger.sender, stranger.user), True
                )
            case Unknown.NO_LOGIN | Unknown.SENDER_REFUSED:  # or a login that names nobody
                return self._no_login(recipient)

    def _no_login(self, recipient: MailAddress | None) -> Decision:
        if self.submission and self.auth_offered:
            reply = Reply(530, "5.7.0", "Authentication required")
            return Decision("authentication required", reply, relay_refusal=True)
        what = f"Relaying to <{recipient}> denied" if recipient else "Relaying denied"
        how = self._ways_in() or "this server relays for nobody"
        return Decision("no login", Reply(550, "5.7.1", f"{what}: {how}"), relay_refusal=True)

    def must_be_known(
        self, stranger: Stranger, recipient: MailAddress | None, why: str, enhanced: str
    ) -> Decision:
        """The refusal of a stranger that may not even send to users of ours.

        Args:
            stranger: who it is.
            recipient: whom it wants to send to.
            why: in one line, for the client.
            enhanced: the status code that says so (RFC 7372).
        """
        if stranger.why is not Unknown.NO_LOGIN:
            return self.refusal(stranger, recipient)
        how = self._ways_in() or "this server takes nothing from you"
        text = f"{why or 'You must authenticate'}: {how}"
        return Decision("must be known", Reply(550, enhanced, text), relay_refusal=True)

    def _ways_in(self) -> str:
        ways = []
        if self.smtp_after_pop:
            ways.append("log in by POP3 or IMAP4 first")
        if self.auth_offered:
            ways.append("use SMTP authentication")
        return ", or ".join(ways)


def sender_refused(sender: str, user: str) -> Reply:
    """The refusal of a sender address, naming it and the user."""
    return Reply(550, "5.7.1", f"<{sender}> is not an address that user {user} may send from")
