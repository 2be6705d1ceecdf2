"""What every session of the process works with."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from netmail_common.config import SenderBinding, SmtpLimits, SmtpListenerConfig
from netmail_common.connmgr.gate import Gate
from netmail_common.networks import Address, Network
from netmail_common.nmap import DirectoryClient, QueueClient
from netmail_common.sasl import Mechanism
from netmail_common.shared_networks import is_within
from netmail_common.tls import ServerTls

from netmail_smtp.adapters.connection import Connection, EndRequest
from netmail_smtp.adapters.lookups import RecipientLookups
from netmail_smtp.adapters.recognition import Recognizer
from netmail_smtp.domain.relay import KnownSender, RelayPolicy
from netmail_smtp.domain.user_word import UserWords
from netmail_smtp.protocol.reply import Reply

__all__ = ["Listener", "Services", "SessionRegistry"]


_DRAIN = EndRequest(Reply(421, "4.3.2", "The service is being shut down, try again later"))


class SessionRegistry:
    """The sessions that are open, for the drain."""

    def __init__(self) -> None:
        self._sessions: set[Connection] = set()
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._sessions)

    def add(self, session: Connection) -> None:
        """A session begins."""
        self._sessions.add(session)
        self._empty.clear()
        if self._draining:
            session.request_end(_DRAIN)

    def discard(self, session: Connection) -> None:
        """A session ended."""
        self._sessions.discard(session)
        if not self._sessions:
            self._empty.set()

    def open_sessions(self) -> tuple[Connection, ...]:
        """Those that are open now."""
        return tuple(self._sessions)

    async def wait_empty(self) -> None:
        """Returns when no session is open."""
        await self._empty.wait()

    def drain(self) -> None:
        """Every session ends at its next chance, those to come too."""
        self._draining = True
        for session in tuple(self._sessions):
            session.request_end(_DRAIN)

    def abort(self) -> None:
        """Ends every session at once."""
        for session in tuple(self._sessions):
            session.abort_connection()


@dataclass(frozen=True, slots=True)
class Services:
    """One Messaging Server's, shared by its listeners.

    Attributes:
        messaging_server: its name.
        host_name: in greeting, EHLO and Received.
        postmaster_domain: where `<Postmaster>` without a domain goes.
        limits: what a stranger meets.
        directory: Authenticate and Resolve.
        lookups: Resolve for recipients.
        queue: Submit.
        recognizer: who a client is without AUTH.
        separator_of: the subaddress separator of a Messaging Server.
        sessions: that are open.
        gate: who may log in, and how much known senders may send.
        user_words: stand for users' names in what leaves; None: the names leave.
    """

    messaging_server: str
    host_name: str
    postmaster_domain: str
    limits: SmtpLimits
    directory: DirectoryClient
    lookups: RecipientLookups
    queue: QueueClient
    recognizer: Recognizer
    separator_of: Callable[[str], str]
    sessions: SessionRegistry
    gate: Gate
    user_words: UserWords | None = None

    def user_word(self, known: KnownSender | None) -> str:
        """The word of a known sender; empty: his name may leave, or he has none."""
        if self.user_words is None or known is None or not known.user:
            return ""
        return self.user_words.word(known.user, known.context)


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener's rules.

    Attributes:
        config: its part of the configuration.
        policy: the relay decision.
        after_auth: sender binding.
        after_login: sender binding.
        tls: for STARTTLS; None where there is none.
        plaintext_auth_networks: clients that may send passwords without TLS.
        mechanisms: SASL mechanisms that may be offered, in order of preference.
        extensions: EHLO keywords that are on.
    """

    config: SmtpListenerConfig
    policy: RelayPolicy
    after_auth: SenderBinding
    after_login: SenderBinding
    tls: ServerTls | None
    plaintext_auth_networks: tuple[Network, ...]
    mechanisms: tuple[Mechanism, ...]
    extensions: frozenset[str]

    def mechanisms_for(self, address: Address, *, tls: bool) -> tuple[Mechanism, ...]:
        """The mechanisms that this client may use now."""
        if tls or self.plaintext_allowed(address):
            return self.mechanisms
        return tuple(m for m in self.mechanisms if not m.reveals_password)

    def plaintext_allowed(self, address: Address) -> bool:
        """Whether passwords may come without TLS."""
        return self.config.plaintext_auth or is_within(address, self.plaintext_auth_networks)
