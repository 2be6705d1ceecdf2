"""Counters, suspicions and rules on a clock of the test's own."""

from dataclasses import dataclass, field
from ipaddress import ip_address

from netmail_common.config import GuessingConfig
from netmail_common.connmgr.model import UserKey
from netmail_common.networks import AddressRules, NetworkMap
from netmail_connmgr.adapters.memory_counters import MemoryCounters
from netmail_connmgr.domain.connections import ConnectionQuestion, ConnectionVerdict, Service
from netmail_connmgr.domain.guessing import Guessing, GuessingRules
from netmail_connmgr.domain.suspicions import SuspicionBook

ALICE = UserKey("alice", "users.demo")
BOB = UserKey("bob", "users.demo")
HOME, HOTEL = "192.0.2.1", "198.51.100.7"
LISTENERS = (("mail", "imap"), ("mail", "pop3"))


@dataclass
class World:
    """Guessing with memory counters; tests speak of addresses as text."""

    config: GuessingConfig = field(default_factory=GuessingConfig)
    rules: AddressRules = field(default_factory=AddressRules)
    now: float = 1_000_000.0

    def __post_init__(self) -> None:
        self.counters = MemoryCounters(self.clock)
        self.suspicions = SuspicionBook(self.clock)
        self.networks = NetworkMap(self.rules)
        self.guessing = Guessing(
            self.counters,
            self.suspicions,
            lambda: self.networks,
            GuessingRules.from_config(self.config),
            clock=self.clock,
            listeners=LISTENERS,
        )

    def clock(self) -> float:
        return self.now

    async def fail(
        self,
        address: str,
        user: UserKey | None = None,
        *,
        times: int = 1,
        name: str = "",
        listener: str = "imap",
    ) -> float:
        delay = 0.0
        for _ in range(times):
            (delay,) = await self.guessing.failed([question(address, user, name, listener)])
        return delay

    async def check(
        self,
        address: str,
        user: UserKey | None = None,
        *,
        name: str = "",
        listener: str = "imap",
        service: Service = Service.IMAP,
    ) -> ConnectionVerdict:
        asked = question(address, user, name, listener, service)
        (verdict,) = await self.guessing.check([asked])
        return verdict

    async def log_in(self, address: str, user: UserKey) -> None:
        await self.guessing.logged_in([(user, ip_address(address).packed)])


def question(
    address: str,
    user: UserKey | None = None,
    name: str = "",
    listener: str = "imap",
    service: Service = Service.IMAP,
) -> ConnectionQuestion:
    return ConnectionQuestion(
        ip_address(address).packed,
        service=service,
        messaging_server="mail",
        listener=listener,
        user=user,
        typed_name=name,
    )
