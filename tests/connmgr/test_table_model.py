"""The login table against a model that scans lists, for any order of events."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from netmail_common.connmgr.model import (
    ANONYMOUS,
    LoginProtocol,
    Profile,
    Registration,
    Revocation,
    UserKey,
)
from netmail_common.connmgr.packed import key_end, login_key, origin_of, times_of
from netmail_common.networks import network_of
from netmail_connmgr.domain.changes import ChangeLog
from netmail_connmgr.domain.marks import MARK_LIFETIME
from netmail_connmgr.domain.table import LoginTable, Outcome, TableLimits

LIFETIME = 900.0
NETWORKS = [bytes([192, 0, 2, n]) for n in range(4)]
PLACES = [*NETWORKS, NETWORKS[0] + b"-"]
USERS = [UserKey("alice", "a"), UserKey("alice", "b"), UserKey("bob", "a"), ANONYMOUS]
KEPT = {Outcome.REGISTERED, Outcome.SHARED_NETWORK}

times = st.sampled_from([0.001, 0.5, 1.0, 60.0, 299.0, 300.0, 899.999, 900.0, 901.0, 86_400.0])
ages = st.sampled_from([0.0, 0.001, 1.0, 60.0, 300.0, 899.0, 900.0, 5000.0])
epochs = st.integers(1, 4)


@dataclass(slots=True)
class Entry:
    """A login as the model keeps it."""

    user: UserKey
    place: bytes
    session: str
    verified: float
    expires: float
    epoch: int | None
    order: int


class Model:
    """The rules of the login table, written down a second time without any index."""

    def __init__(self, max_networks: int, max_logins: int, lifetime: float = LIFETIME) -> None:
        self.lifetime = lifetime
        self.max_networks = max_networks
        self.max_logins = max_logins
        self.entries: list[Entry] = []
        self.revocations: list[Revocation] = []
        self.order = 0

    def live(self, now: float) -> list[Entry]:
        return [entry for entry in self.entries if entry.expires > now]

    def held(self, now: float) -> list[Entry]:
        """What is over takes room until its second is."""
        return [entry for entry in self.entries if int(entry.expires) >= int(now)]

    def register(self, item: Registration, now: float) -> Outcome:
        self.entries = self.held(now)
        user, verified = item.profile.user, now - item.age
        if self.refused(item, verified, now):
            return Outcome.REVOKED
        expires = (now if item.renewal else verified) + self.lifetime
        if expires <= now:
            return Outcome.EXPIRED
        same = [e for e in self.entries if (e.user, e.place) == (user, item.place)]
        if same and same[0].expires <= now:
            self.entries.remove(same.pop())
        if same:
            self.renew(same[0], item, verified, expires)
        elif len(self.entries) >= self.max_logins:
            return Outcome.TABLE_FULL
        else:
            self.add(item, verified, expires)
        return Outcome.REGISTERED if len(item.place) == 4 else Outcome.SHARED_NETWORK

    def refused(self, item: Registration, verified: float, now: float) -> bool:
        user, network = item.profile.user, network_of(item.place)
        binding = [r for r in self.revocations if r.made + MARK_LIFETIME > now]
        # A mark lasts as long as the newest revocation of its kind, and keeps the highest epoch.
        for kind in {(r.user, r.network, bool(r.credential_epoch)) for r in binding}:
            alike = [
                r for r in self.revocations if (r.user, r.network, bool(r.credential_epoch)) == kind
            ]
            if any(r.covers(user, network, verified, item.credential_epoch) for r in alike):
                return True
        return False

    def renew(self, entry: Entry, item: Registration, verified: float, expires: float) -> None:
        repeated = item.session_id == entry.session
        if repeated and not item.renewal:
            return
        entry.expires = max(entry.expires, expires)
        if not repeated and verified >= entry.verified:
            entry.session, entry.verified = item.session_id, verified
            if entry.epoch is None or item.credential_epoch is None:
                entry.epoch = item.credential_epoch
            else:
                entry.epoch = max(entry.epoch, item.credential_epoch)

    def add(self, item: Registration, verified: float, expires: float) -> None:
        user = item.profile.user
        mine = [entry for entry in self.entries if entry.user == user]
        if user != ANONYMOUS and len(mine) >= self.max_networks:
            oldest = min(mine, key=lambda entry: (entry.expires, entry.order))
            self.entries.remove(oldest)
        self.order += 1
        self.entries.append(
            Entry(
                user, item.place, item.session_id, verified, expires, item.credential_epoch,
                self.order,
            )
        )  # fmt: skip

    def revoke(self, revocation: Revocation) -> set[tuple[UserKey, bytes]]:
        self.entries = self.held(revocation.made)
        gone = [
            e
            for e in self.entries
            if revocation.covers(e.user, network_of(e.place), e.verified, e.epoch)
        ]
        self.entries = [e for e in self.entries if e not in gone]
        self.revocations.append(revocation)
        return {(entry.user, entry.place) for entry in gone if entry.expires > revocation.made}


class LoginTableMachine(RuleBasedStateMachine):
    """Any order of registrations, replays, renewals, revocations and passing time."""

    @initialize(max_networks=st.integers(1, 3), max_logins=st.sampled_from([3, 1000]))
    def start(self, max_networks: int, max_logins: int) -> None:
        self.now = 1_000_000.0
        self.table = LoginTable(TableLimits(LIFETIME, max_networks, max_logins), ChangeLog())
        self.model = Model(max_networks, max_logins)
        self.sent: list[tuple[Registration, float]] = []
        self.replica: dict[bytes, bytes] = {}
        self.replica_revision = 0
        self.marks_bounded = max_logins < 10

    @rule(
        user=st.sampled_from(USERS),
        place=st.sampled_from(PLACES),
        session=st.sampled_from("abcdef"),
        age=ages,
        epoch=epochs,
        renewal=st.booleans(),
    )
    def register(
        self, user: UserKey, place: bytes, session: str, age: float, epoch: int, renewal: bool
    ) -> None:
        item = Registration(
            profile=Profile(user),
            place=place,
            client_address=network_of(place),
            protocol=LoginProtocol.IMAP,
            messaging_server=session,
            agent="",
            session_id=f"{user}{session}",
            age=age,
            credential_epoch=None if user == ANONYMOUS else epoch,
            renewal=renewal,
        )
        self.submit(item)
        self.sent.append((item, self.now - age))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        item, verified = data.draw(st.sampled_from(self.sent))
        aged = Registration(
            item.profile, item.place, item.client_address, item.protocol,
            item.messaging_server, "", item.session_id, self.now - verified,
            item.credential_epoch, item.renewal,
        )  # fmt: skip
        self.submit(aged)

    def submit(self, item: Registration) -> None:
        answer = self.table.register(item, self.now)
        assert answer.outcome is self.model.register(item, self.now)
        if answer.outcome in KEPT:
            (login,) = [
                login
                for login in self.table.find(item.place, self.now).logins
                if login.user == item.profile.user
            ]
            assert answer.remaining == login.expires - self.now > 0

    @rule(
        user=st.sampled_from([*USERS[:3], None]),
        network=st.sampled_from([*NETWORKS, None]),
        epoch=st.one_of(st.just(0), epochs),
    )
    def revoke(self, user: UserKey | None, network: bytes | None, epoch: int) -> None:
        if (user is None and (network is None or epoch)) or self.marks_bounded:
            return
        revocation = Revocation(self.now, user, network, epoch)
        gone = {(login.user, login.place) for login in self.table.revoke(revocation)}
        assert gone == self.model.revoke(revocation)

    @rule(seconds=times)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 3))
    def clean_up(self, limit: int) -> None:
        self.table.drop_expired(self.now, limit)

    @invariant()
    def the_same_logins_are_live(self) -> None:
        wanted = {
            (e.user, e.place, e.session, e.verified, e.expires, e.epoch)
            for e in self.model.live(self.now)
        }
        found = {
            (one.user, one.place, one.session_id, one.verified, one.expires, one.credential_epoch)
            for place in PLACES
            for one in self.table.find(place, self.now).logins
        }
        assert found == wanted
        assert sum(expires > self.now for expires, _ in self.times().values()) == len(wanted)
        assert len(self.table) >= len(wanted)

    @invariant()
    def a_replica_that_follows_the_changes_has_them_too(self) -> None:
        """And expires what it has by itself."""
        for change in self.table.changes.after(
            self.replica_revision, 10_000, revocations_only=False
        ):
            assert change.revision == self.replica_revision + 1
            self.replica_revision = change.revision
            for key in change.removed:
                del self.replica[key]
            if change.record:
                self.replica[change.record[: key_end(change.record)]] = change.record
        live = {
            record
            for record in self.replica.values()
            if times_of(record, key_end(record))[0] > self.now
        }
        assert live == {
            record for record, (expires, _) in self.times().items() if expires > self.now
        }

    @invariant()
    def indexes_agree(self) -> None:
        records = self.table._records
        slots = list(records.slots_after(0))
        assert len(slots) == len(records) == len(self.table._users)
        seconds = {
            slot: second
            for second, bucket in records._wheel._buckets.items()
            for slot in bucket
            if records._wheel._due[slot] == second
        }
        assert sorted(seconds) == slots
        origins = set()
        for slot in slots:
            record = records[slot]
            login = self.table.packer.unpack(record)
            key = record[: key_end(record)]
            assert key == login_key(login.place, login.user)
            assert self.table.packer.pack(login) == record
            assert records.find(key) == slot
            assert slot in self.table._slots_of(login.user, login.place)
            assert seconds[slot] <= int(login.expires)
            origins.add(origin_of(record, len(key)))
        assert origins == set(self.table.packer.origins._known)

    def times(self) -> dict[bytes, tuple[float, float]]:
        return {one: times_of(one, key_end(one)) for one in self.table.snapshot() if one}


TestLoginTable = LoginTableMachine.TestCase
TestLoginTable.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
