"""IMAP connections (RFC 3501): the commands."""

from collections.abc import Awaitable, Mapping
from typing import ClassVar

from netmail_common.connmgr.clients_seen import PROBE
from netmail_common.logging import get_logger
from netmail_common.nmap import AuthenticatedUser
from prometheus_client import Counter

from netmail_pop_imap.adapters import imap_names, imap_selected
from netmail_pop_imap.adapters.authentication import (
    authenticate_password,
    authenticate_sasl,
    offered_mechanisms,
    plaintext_allowed,
)
from netmail_pop_imap.adapters.imap_rows import flag_names
from netmail_pop_imap.adapters.imap_session import Handler, ImapSession
from netmail_pop_imap.adapters.metrics import COMMANDS, LOGINS
from netmail_pop_imap.domain.imap_mailbox import View
from netmail_pop_imap.domain.imap_states import State, capabilities
from netmail_pop_imap.protocol.errors import NotWelcome, PlaintextRefused, ReplyError
from netmail_pop_imap.protocol.imap import commands as c
from netmail_pop_imap.protocol.imap import reader as r
from netmail_pop_imap.protocol.imap.errors import BadCommand, Refused

log = get_logger(__name__)

_ANY = frozenset(State)
_BEFORE = frozenset({State.NOT_AUTHENTICATED})
_AFTER = frozenset({State.AUTHENTICATED, State.SELECTED})
_SELECTED = frozenset({State.SELECTED})


class ImapConnection(ImapSession):
    """One IMAP client."""

    __slots__ = ()

    def greeting(self) -> bytes:
        """The banner, with capabilities."""
        text = f"{self.context.server.host_name} IMAP4rev1 ready"
        return f"* OK [CAPABILITY {self._capabilities()}] {text}\r\n".encode("ascii")

    def turned_away(self, error: NotWelcome) -> bytes:
        """BYE."""
        return error.imap_greeting()

    # Any state.

    def _capabilities(self) -> str:
        return capabilities(
            authenticated=self._user is not None,
            starttls=self.context.listener.tls == "starttls" and not self.secure,
            login=plaintext_allowed(self),
            mechanisms=offered_mechanisms(self),
            literals=self.context.limits.non_sync_literals,
            append_limit=self.context.limits.literal,
        )

    def _capability(self, _command: c.Command) -> None:
        self.write(f"* CAPABILITY {self._capabilities()}\r\n".encode("ascii"))
        self.complete("CAPABILITY completed")

    def _noop(self, command: c.Command) -> None:
        self.complete(f"{command.name} completed")

    def _logout(self, _command: c.Command) -> None:
        self.write(f"* BYE Logging out\r\n{self._tag} OK LOGOUT completed\r\n".encode("ascii"))
        self.leave_mailbox()
        self.close()

    def _identify(self, command: c.Identify) -> None:
        if command.fields:
            known = {key: command.fields.get(key, "")[:80] for key in ("name", "version")}
            log.debug("client identified itself", **known)
        if PROBE in command.fields:
            self.start(self._answer_probe(command.fields[PROBE]), "ID")
            return
        self._identified(None)

    async def _answer_probe(self, token: str) -> None:
        self._identified(await self.probed(f"{PROBE} {token}"))

    def _identified(self, address: str | None) -> None:
        if address is not None:
            self.write(f'* ID ("name" "NetMail" "{PROBE}" "{address}")\r\n'.encode("ascii"))
            self.complete("ID completed")
            return
        self.write(b'* ID ("name" "NetMail" "vendor" "NetMail")\r\n')
        self.complete("ID completed")

    # Not authenticated.

    def _starttls(self, _command: c.Command) -> None:
        if self.context.listener.tls != "starttls" or self.context.tls is None:
            raise BadCommand("STARTTLS is not offered here")
        if self.secure:
            raise BadCommand("TLS is on already")
        self.upgrade_tls(f"{self._tag} OK Begin TLS negotiation now\r\n".encode("ascii"))

    async def _login_command(self, command: c.Login) -> None:
        if not plaintext_allowed(self):
            raise PlaintextRefused
        try:
            username = command.username.decode("utf-8")
            password = command.password.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCommand("Name or password is not UTF-8") from None
        await self._log_in(await authenticate_password(self, username, password), "LOGIN")

    async def _authenticate(self, command: c.Authenticate) -> None:
        user = await authenticate_sasl(self, command.mechanism, command.initial, self._challenge)
        await self._log_in(user, command.mechanism)

    async def _challenge(self, encoded: bytes) -> bytes | None:
        self._reader.expect_line()
        self.write(b"+ %b\r\n" % encoded)
        event = await self.next_input(self._reader.next_event)
        if not isinstance(event, r.Line):
            raise BadCommand("Line is too long")
        return event.octets

    async def _log_in(self, user: AuthenticatedUser, mechanism: str) -> None:
        try:
            self._login = await self.context.logins.register(self, user, self.client)
        except ReplyError:
            LOGINS.labels("imap", "revoked").inc()
            raise
        self._user = user
        self.hub.enter(user, self)
        self.logged_in()
        LOGINS.labels("imap", "ok").inc()
        log.info(
            "logged in",
            protocol="imap",
            user=str(user),
            address=str(self.client.address),
            mechanism=mechanism,
            tls=self.secure,
        )
        self.complete("Logged in", f"CAPABILITY {self._capabilities()}")

    # Authenticated.

    def _enable(self, command: c.Enable) -> None:
        enabled = " CONDSTORE" if "CONDSTORE" in command.extensions else ""
        if enabled:
            self.enable_condstore()
        self.write(f"* ENABLED{enabled}\r\n".encode("ascii"))
        self.complete("ENABLE completed")

    def _namespace(self, _command: c.Command) -> None:
        self.write(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
        self.complete("NAMESPACE completed")

    def _set_quota(self, _command: c.Command) -> None:
        raise Refused("Quotas are set by the administrator", "NOPERM")

    async def _select(self, command: c.Select) -> None:
        if self._selected is not None:
            self.leave_mailbox()
            self.write(b"* OK [CLOSED] Previous mailbox closed\r\n")
        if command.condstore:
            self.enable_condstore()
        read_only = command.name == "EXAMINE"
        selected = await self.hub.open(
            self.user, command.mailbox, read_only=read_only, on_change=self.changed
        )
        if self.closing:
            self.hub.release(selected)
            return
        self._selected = selected
        self._describe(selected.view)
        self._tell(f"OK [{'READ-ONLY' if read_only else 'READ-WRITE'}] {command.name} completed")

    def _tell(self, text: str) -> None:
        self.write(f"{self._tag} {text}\r\n".encode("ascii"))

    def _describe(self, view: View) -> None:
        mailbox = view.mailbox
        permanent = b"" if view.read_only else b" ".join((*flag_names(view), b"\\*"))
        unseen = _first_unseen(view)
        lines = [
            self.flags_line(view),
            b"* OK [PERMANENTFLAGS (%b)] Kept\r\n" % permanent,
            b"* %d EXISTS\r\n* %d RECENT\r\n" % (view.count, view.recent_count()),
            b"* OK [UNSEEN %d] First unseen\r\n" % unseen if unseen else b"",
            b"* OK [UIDVALIDITY %d] UIDs valid\r\n" % mailbox.uid_validity,
            b"* OK [UIDNEXT %d] Predicted next UID\r\n" % mailbox.uid_next,
            b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % mailbox.modseq,
        ]
        if mailbox.object_id:
            lines.append(b"* OK [MAILBOXID (%b)] Ok\r\n" % mailbox.object_id.encode("ascii"))
        self.write(b"".join(lines))

    # Selected.

    async def _close(self, _command: c.Command) -> None:
        if not self.view.read_only:
            await imap_selected.remove_deleted(self, None)
        self.leave_mailbox()
        self._tell("OK CLOSE completed")

    def _unselect(self, _command: c.Command) -> None:
        self.leave_mailbox()
        self._tell("OK UNSELECT completed")

    def _fetch(self, command: c.Fetch) -> Awaitable[None]:
        if c.Metadata.MODSEQ in command.items:
            self.enable_condstore()
        return imap_selected.fetch(self, command)

    def _store(self, command: c.Store) -> Awaitable[None]:
        if command.unchanged_since is not None:
            self.enable_condstore()
        return imap_selected.store(self, command)

    _VERBS: ClassVar[Mapping[frozenset[State], Mapping[str, Handler]]] = {
        _ANY: {
            "CAPABILITY": _capability,
            "NOOP": _noop,
            "LOGOUT": _logout,
            "ID": _identify,
        },
        _BEFORE: {
            "STARTTLS": _starttls,
            "LOGIN": _login_command,
            "AUTHENTICATE": _authenticate,
        },
        _AFTER: {
            "ENABLE": _enable,
            "NAMESPACE": _namespace,
            "SELECT": _select,
            "EXAMINE": _select,
            "IDLE": ImapSession.idle,
            "LIST": imap_names.list_mailboxes,
            "LSUB": imap_names.list_mailboxes,
            "STATUS": imap_names.status,
            "CREATE": imap_names.create,
            "DELETE": imap_names.delete,
            "RENAME": imap_names.rename,
            "SUBSCRIBE": imap_names.subscribe,
            "UNSUBSCRIBE": imap_names.subscribe,
            "GETQUOTA": imap_names.get_quota,
            "GETQUOTAROOT": imap_names.get_quota_root,
            "SETQUOTA": _set_quota,
        },
        _SELECTED: {
            "CHECK": _noop,
            "CLOSE": _close,
            "UNSELECT": _unselect,
            "FETCH": _fetch,
            "STORE": _store,
            "SEARCH": imap_selected.search_messages,
            "COPY": imap_selected.copy,
            "MOVE": imap_selected.copy,
            "UID FETCH": _fetch,
            "UID STORE": _store,
            "UID SEARCH": imap_selected.search_messages,
            "UID COPY": imap_selected.copy,
            "UID MOVE": imap_selected.copy,
            "EXPUNGE": imap_selected.expunge,
            "UID EXPUNGE": imap_selected.expunge,
        },
    }

    HANDLERS: ClassVar[dict[str, tuple[frozenset[State], Handler]]] = {
        verb: (states, handler)
        for states, verbs in _VERBS.items()
        for verb, handler in verbs.items()
    }
    COUNTERS: ClassVar[dict[str, Counter]] = {
        verb: COMMANDS.labels("imap", verb) for verb in (*HANDLERS, "APPEND")
    }


def _first_unseen(view: View) -> int:
    """Sequence number, or 0."""
    mailbox = view.mailbox
    seen = mailbox.sets_with("\\Seen")
    if all(seen):
        return 0
    rows = enumerate(mailbox.flag_set[: view.count], 1)
    return next((number for number, row in rows if not seen[row]), 0)
