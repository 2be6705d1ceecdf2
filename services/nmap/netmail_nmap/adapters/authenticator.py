"""Verifies users: passwords in one step, SCRAM-SHA-256 in two."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum

from netmail_common.config import Installation
from netmail_common.logging import get_logger
from netmail_common.mail_address import fold
from netmail_common.metrics import counter
from netmail_common.nmap import scram_offered
from netmail_common.sasl import AuthMalformed, parse_client_first, prepare_password

from netmail_nmap.adapters.device_passwords import DevicePasswords
from netmail_nmap.adapters.directory import UserDirectory
from netmail_nmap.adapters.hashing import PasswordHasher
from netmail_nmap.domain.credentials import fake_verifier, is_outdated, make_credentials
from netmail_nmap.domain.directory_errors import HashingBusy
from netmail_nmap.domain.errors import StoreUnavailable
from netmail_nmap.domain.scram import ScramExchange, ScramMalformed, ScramProofWrong
from netmail_nmap.domain.users import UserRecord
from netmail_nmap.domain.verified import VerifiedPasswords

_log = get_logger(__name__)
_OUTCOMES = counter("nmap_authentications", "Authentication outcomes", ("service", "outcome"))


class AuthOutcome(Enum):
    """How an authentication ends, or goes on."""

    OK = "ok"
    CONTINUE = "continue"
    INVALID_CREDENTIALS = "invalid credentials"
    UNKNOWN_USER = "unknown user"
    TEMPORARY_FAILURE = "temporary failure"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class AuthAnswer:
    """The answer to one step.

    Attributes:
        user: with OK; with INVALID_CREDENTIALS, if there is such a user, for those who count.
        data: a SCRAM message, with CONTINUE and OK.
        device: name of the device whose password it was.
    """

    outcome: AuthOutcome
    user: UserRecord | None = None
    data: bytes = b""
    device: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks.

    Attributes:
        messaging_server: its contexts decide who exists.
        service: smtp, pop3 or imap.
        client_address: as text, for the log.
        last: nobody else is asked behind us: an unknown user is a wrong password, in time too.
    """

    messaging_server: str
    service: str
    client_address: str
    last: bool


@dataclass(frozen=True, slots=True)
class ScramUnderWay:
    """A SCRAM exchange after its first step; no user: it will fail."""

    exchange: ScramExchange
    user: UserRecord | None
    username: str
    asker: Asker


class Authenticator:
    """Verifies the users of one NMAP agent.

    Args:
        installation: who may ask for whom.
        directory: finds users.
        hasher: off the event loop.
        verified: passwords that were verified a moment ago.
        scram_secret: makes the salts of users who do not exist.
        devices: judges the passwords of single devices.
    """

    def __init__(
        self,
        installation: Installation,
        directory: UserDirectory,
        hasher: PasswordHasher,
        verified: VerifiedPasswords,
        scram_secret: bytes,
        devices: DevicePasswords,
    ) -> None:
        self._installation = installation
        self._directory = directory
        self._hasher = hasher
        self._verified = verified
        self._scram_secret = scram_secret
        self._devices = devices
        # Of a password that nobody has: verifying against it takes as long as against a real one.
        self._nobodys_hash = make_credentials(scram_secret.hex(), hasher.parameters).password_hash

    def use(self, installation: Installation) -> None:
        """Goes on with another configuration."""
        self._installation = installation

    async def verify_password(self, username: str, password: str, asker: Asker) -> AuthAnswer:
        """One step: PLAIN, LOGIN, USER and PASS."""
        answer = await self._guarded(lambda: self._verify_password(username, password, asker))
        _report(answer, username, asker)
        return answer

    async def start_scram(
        self, client_first: bytes, asker: Asker
    ) -> tuple[AuthAnswer, ScramUnderWay | None]:
        """First step of SCRAM-SHA-256; the second part is for `finish_scram`, with CONTINUE."""
        try:
            first = parse_client_first(client_first)
        except AuthMalformed:
            return AuthAnswer(AuthOutcome.MALFORMED), None
        if not self._offers_scram(asker.messaging_server):
            return AuthAnswer(AuthOutcome.INVALID_CREDENTIALS), None
        try:
            user = await self._find(first.username, asker)
        except StoreUnavailable:
            return AuthAnswer(AuthOutcome.TEMPORARY_FAILURE), None
        if user is None and not asker.last:
            return AuthAnswer(AuthOutcome.UNKNOWN_USER), None
        verifier = user.credentials.scram if user is not None else None
        if verifier is None:
            user = None
            verifier = fake_verifier(
                self._scram_secret,
                fold(first.username),
                self._hasher.parameters.scram_iterations,
            )
        try:
            exchange = ScramExchange(first, verifier)
        except ScramMalformed:
            return AuthAnswer(AuthOutcome.MALFORMED), None
        under_way = ScramUnderWay(exchange, user, first.username, asker)
        return AuthAnswer(AuthOutcome.CONTINUE, data=exchange.server_first), under_way

    async def finish_scram(self, under_way: ScramUnderWay, client_final: bytes) -> AuthAnswer:
        """Second step of SCRAM-SHA-256."""
        answer = await self._guarded(lambda: self._finish_scram(under_way, client_final))
        _report(answer, under_way.username, under_way.asker)
        return answer

    async def _verify_password(self, username: str, password: str, asker: Asker) -> AuthAnswer:
        user = await self._find(username, asker)
        if user is None and not asker.last:
            return AuthAnswer(AuthOutcome.UNKNOWN_USER)
        try:
            prepared = prepare_password(password)
        except ValueError:
            return AuthAnswer(AuthOutcome.INVALID_CREDENTIALS, user)
        if user is None:
            await self._hasher.verify(self._dummy_hash(), prepared)
            return AuthAnswer(AuthOutcome.INVALID_CREDENTIALS)
        device = self._devices.find(user, password)
        if device is not None:
            admitted = self._devices.admit(device, asker.service, asker.client_address)
            outcome = AuthOutcome.OK if admitted else AuthOutcome.INVALID_CREDENTIALS
            return AuthAnswer(outcome, user, device=device.name)
        if not self._verified.has(user, prepared):
            if not await self._hasher.verify(user.credentials.password_hash, prepared):
                return AuthAnswer(AuthOutcome.INVALID_CREDENTIALS, user)
            user = await self._directory.ensure_stored(user)
            user = await self._renewed(user, prepared)
            self._verified.remember(user, prepared)
        return AuthAnswer(AuthOutcome.OK, user)

    async def _renewed(self, user: UserRecord, prepared: str) -> UserRecord:
        """Hashes a verified password anew when the parameters have changed since it was stored."""
        if user.context in self._directory.files or not is_outdated(
            user.credentials, self._hasher.parameters
        ):
            return user
        try:
            credentials = await self._hasher.make(prepared)
        except HashingBusy:
            return user  # the next login will do
        old_hash = user.credentials.password_hash
        await self._directory.store.write(
            lambda changes: changes.renew_credentials(user.id, old_hash, credentials)
        )
        return replace(user, credentials=credentials)

    async def _finish_scram(self, under_way: ScramUnderWay, client_final: bytes) -> AuthAnswer:
        try:
            server_final = under_way.exchange.finish(client_final)
        except ScramMalformed:
            return AuthAnswer(AuthOutcome.MALFORMED)
        except ScramProofWrong:
            return AuthAnswer(AuthOutcome.INVALID_CREDENTIALS, under_way.user)
        if under_way.user is None:
            return AuthAnswer(AuthOutcome.INVALID_CREDENTIALS)
        return AuthAnswer(AuthOutcome.OK, under_way.user, server_final)

    async def _guarded(self, work: Callable[[], Awaitable[AuthAnswer]]) -> AuthAnswer:
        try:
            return await work()
        except (StoreUnavailable, HashingBusy):
            return AuthAnswer(AuthOutcome.TEMPORARY_FAILURE)

    async def _find(self, username: str, asker: Asker) -> UserRecord | None:
        """The user, if the asking Messaging Server knows our contexts at all."""
        try:
            reachable = self._installation.reachable_servers(asker.messaging_server)
        except KeyError:
            return None
        if all(server.name != self._directory.settings.server for server in reachable):
            return None
        return await self._directory.find_login(username)

    def _offers_scram(self, messaging_server: str) -> bool:
        try:
            return scram_offered(self._installation, messaging_server)
        except KeyError:
            return False

    def _dummy_hash(self) -> str:
        """What an unknown user is verified against: as slow as a user of the first context."""
        first = self._directory.settings.contexts[0]
        return self._directory.a_file_hash(first) or self._nobodys_hash


def _report(answer: AuthAnswer, username: str, asker: Asker) -> None:
    _OUTCOMES.labels(asker.service, answer.outcome.value).inc()
    # Who is asked next says what becomes of a user that we do not know.
    log = _log.debug if answer.outcome is AuthOutcome.UNKNOWN_USER else _log.info
    log(
        "authentication",
        outcome=answer.outcome.value,
        username=username,
        context=answer.user.context if answer.user else "",
        service=asker.service,
        messaging_server=asker.messaging_server,
        client=asker.client_address,
        **({"device": answer.device} if answer.device else {}),
    )
