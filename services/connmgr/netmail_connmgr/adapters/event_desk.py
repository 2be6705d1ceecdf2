"""What agents report: logins that failed or succeeded, mail that known senders want to relay."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from netmail.connmgr.v1 import connmgr_pb2 as pb
from netmail_common.config import RatesConfig
from netmail_common.connmgr.decision import MAX_NAMED_USERS
from netmail_common.connmgr.model import ANONYMOUS, UserKey
from netmail_common.connmgr.rates import RelayWanted
from netmail_common.logging import get_logger
from netmail_common.networks import NetworkMap

from netmail_connmgr.adapters import convert, record
from netmail_connmgr.adapters.failure_counts import FailureCounts
from netmail_connmgr.domain.counters import Count, Counters
from netmail_connmgr.domain.front_desk import RelayedMail
from netmail_connmgr.domain.rates import Rates, RateVerdict
from netmail_connmgr.domain.store import LoginStore, RevokeOrder, StoreError

__all__ = ["EventDesk"]

log = get_logger(__name__)

_ONCE_WITHIN = 600.0
"""Seconds within which a repeated event is known again."""
_SAID_AGAIN_AFTER = 60.0
_MAX_SAID = 10_000
_MAX_NAME = 255


class _Mail(NamedTuple):
    """Mail of a known sender.

    Attributes:
        server: that tells of it, for the log.
    """

    client_address: bytes
    server: str
    wanted: RelayWanted


class EventDesk:
    """Takes events. Belongs to one event loop.

    Args:
        counters: shared by all replicas.
        failures: counts failed logins; None: nobody does.
        config: the rates.
        store: of the logins that may be revoked for a rate.
        networks: gives the map from addresses to networks of this moment.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        counters: Counters,
        failures: FailureCounts | None,
        config: RatesConfig,
        store: LoginStore,
        networks: Callable[[], NetworkMap],
        clock: Callable[[], float],
    ) -> None:
        self._counters = counters
        self._failures = failures
        self._rates = Rates(counters, config)
        self._revokes = config.revoke_on_excess
        self._store = store
        self._networks = networks
        self._clock = clock
        self._said: dict[tuple[str, ...], float] = {}

    def use(self, failures: FailureCounts | None, config: RatesConfig) -> None:
        """Goes on with other rates, and with or without counting failed logins."""
        self._failures = failures
        self._rates = Rates(self._counters, config)
        self._revokes = config.revoke_on_excess

    async def report(self, events: Sequence[pb.Event]) -> list[pb.EventResult]:
        """Takes events; a result for each, in the same order. One that is repeated changes nothing.

        Raises: ValueError, for an address that is none; CountersUnavailable.
        """
        for event in events:
            self._networks().locate(event.client_address)
        results = [pb.EventResult(accepted=True) for _ in events]
        news = await self._news(events)
        failed = [index for index in news if events[index].HasField("login_failed")]
        relayed = [index for index in news if events[index].HasField("relay_wanted")]
        for index in news:
            if events[index].HasField("login_succeeded"):
                self._succeeded(events[index])
        for index, delay in zip(
            failed, await self._count_failures([events[index] for index in failed]), strict=True
        ):
            results[index].delay_ms = int(delay * 1000)
        for index, verdict in zip(
            relayed,
            await self._count([self._mail(events[index]) for index in relayed]),
            strict=True,
        ):
            if not verdict.accepted:
                results[index].accepted = False
                results[index].rate = verdict.rate
                results[index].retry_after_seconds = int(verdict.retry_after)
        return results

    async def count_mail(self, mails: Sequence[RelayedMail]) -> list[bool]:
        """Counts mail; whether it is within the rates of its sender: what is not is not counted.

        Raises: ValueError, for an address that is none; CountersUnavailable.
        """
        verdicts = await self._count(
            [
                _Mail(
                    mail.client_address,
                    mail.front_end,
                    RelayWanted(
                        mail.user if mail.user != ANONYMOUS else None,
                        self._network(mail.client_address),
                        mail.session_id,
                        mail.authenticated,
                        mail.recipients,
                        mail.messages,
                    ),
                )
                for mail in mails
            ]
        )
        return [verdict.accepted for verdict in verdicts]

    async def forget(self, user: pb.UserKey, address: bytes) -> int:
        """Forgets failed logins of a user, an address, or both; how many counters there were.

        Raises: ValueError, for an address that is none; CountersUnavailable.
        """
        if self._failures is None:
            return 0
        return await self._failures.forget(convert.named_user(user), address)

    async def _news(self, events: Sequence[pb.Event]) -> list[int]:
        """Indexes of the events that were not taken before."""
        counts = [
            Count(f"event:{event.event_id[:_MAX_NAME]}", 1, _ONCE_WITHIN, 1)
            for event in events
            if event.event_id
        ]
        answers = iter(await self._counters.count(counts) if counts else ())
        return [
            index
            for index, event in enumerate(events)
            if not event.event_id or next(answers).admitted
        ]

    async def _count_failures(self, events: Sequence[pb.Event]) -> list[float]:
        if self._failures is None or not events:
            return [0.0] * len(events)
        return await self._failures.failed([convert.connection_question(event) for event in events])

    def _succeeded(self, event: pb.Event) -> None:
        user = convert.named_user(event.user)
        if self._failures is not None and user is not None:
            self._failures.remember([(user, event.client_address)])

    async def _count(self, mails: Sequence[_Mail]) -> list[RateVerdict]:
        verdicts = await self._rates.admit([mail.wanted for mail in mails])
        audited = record.is_audited()
        users = await self._users_at(mails) if audited else [()] * len(mails)
        for mail, verdict, there in zip(mails, verdicts, users, strict=True):
            if not verdict.accepted:
                await self._exceeded(mail, verdict)
            elif audited:
                record.relayed(mail.wanted, mail.client_address, mail.server, there)
        return verdicts

    async def _users_at(self, mails: Sequence[_Mail]) -> list[tuple[UserKey, ...]]:
        """Everybody with a login where the clients are, for those that a login vouches for."""
        asked = [index for index, mail in enumerate(mails) if not mail.wanted.authenticated]
        networks = self._networks()
        places = [networks.locate(mails[index].client_address).place for index in asked]
        users: list[tuple[UserKey, ...]] = [()] * len(mails)
        try:
            found = await self._store.find(places) if places else ()
        except StoreError:
            return users
        for index, logins in zip(asked, found, strict=True):
            users[index] = tuple(login.user for login in logins.logins[:MAX_NAMED_USERS])
        return users

    def _mail(self, event: pb.Event) -> _Mail:
        relay, address = event.relay_wanted, event.client_address
        wanted = RelayWanted(
            user=convert.named_user(event.user),
            network=self._network(address),
            session_id=relay.session_id,
            authenticated=relay.authenticated,
            recipients=relay.recipients,
            messages=relay.messages,
        )
        return _Mail(address, event.messaging_server, wanted)

    def _network(self, address: bytes) -> bytes | None:
        """The network that a client's mail counts for; None: it is shared, and nobody's."""
        where = self._networks().locate(address)
        return None if where.standing.shared else where.key

    async def _exceeded(self, mail: _Mail, verdict: RateVerdict) -> None:
        """Writes it down, once a minute for each; may end the logins of the client's network."""
        now, wanted = self._clock(), mail.wanted
        whom = (str(wanted.user), (wanted.network or b"").hex(), verdict.rate)
        again = self._said.get(whom, 0.0) > now
        record.rate_exceeded(wanted, verdict, mail.client_address, mail.server, again=again)
        if again:
            return
        if len(self._said) >= _MAX_SAID:
            self._said.clear()
        self._said[whom] = now + _SAID_AGAIN_AFTER
        if self._revokes and not wanted.authenticated and wanted.network is not None:
            await self._revoke(mail.client_address)

    async def _revoke(self, client_address: bytes) -> None:
        where = self._networks().locate(client_address)
        order = RevokeOrder(
            user=None,
            network=where.key,
            credential_epoch=0,
            client_address=client_address,
            prefix_length=where.prefix_length,
            reason="rate exceeded",
        )
        try:
            revoked = await self._store.revoke(order)
        except StoreError as error:
            log.warning("logins not revoked for their rate", reason=str(error))
            return
        record.revocation(order, revoked)
