"""Configuration of the Connection Manager."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from netmail_common.config._base import (
    RELOADED,
    Address,
    AddressRange,
    Domain,
    Duration,
    NetworkRange,
    Section,
)
from netmail_common.config.common import AgentConfig


class LegacyUdpConfig(Section):
    """NetMail's own UDP port 689 protocols. Off while `listen` is empty.

    Needs `allowed_sources`, together with a credential or `plain: true`.
    """

    listen: list[Address] = []
    allowed_sources: list[NetworkRange] = []
    """Agents that may ask and register; everybody else gets silence. May not overlap a shared
    network."""
    plain: bool = False
    """Speak the protocol without authentication as well (NIMS, NetMail 2 and 3)."""
    credential_file: Path | None = None
    """The shared credential (NIMS:ACL), 4096 characters; needs `tree`."""
    tree: str | None = None
    """The server's DN up to its second backslash: \\Tree."""
    access_hash_file: Path | None = None
    """The access hash itself, 256 hex digits, instead of credential_file and tree."""
    tree_without_backslash: bool = False
    """Leave the tree's leading backslash out and cut it at 100 characters, as some agents do."""
    default_context: str | None = None
    """Context of a bare user name; default: the first own context of the first Messaging Server
    that names this Connection Manager."""


class PostfixPolicyConfig(Section):
    """Postfix's policy delegation protocol. Off while there is neither `listen` nor `socket`."""

    listen: list[Address] = []
    socket: Path | None = None
    """A Unix socket; whoever can open it may ask."""
    allowed_sources: list[NetworkRange] = []
    """Who may ask by TCP; everybody else gets silence. May not overlap a shared network."""
    sender_binding: Literal["strict", "domain", "any"] = "strict"
    """strict and domain need an address_map."""
    known_answer: Annotated[str, Field(pattern=r"^[!-~][ -~]{0,499}$")] = "OK"
    """Action for a known sender in smtpd_relay_restrictions."""
    unknown_answer: Annotated[str, Field(pattern=r"^[!-~][ -~]{0,499}$")] = "DUNNO"
    """Action for everybody else there: DUNNO, or REJECT and what to tell the client."""
    trace_word_file: Path | None = None
    """A secret word of 16 to 64 letters and digits that our X-Auth-OK begins with. Postfix takes
    it out, and every X-Auth-OK without it, by the header_checks of the documentation."""
    idle_timeout: Annotated[Duration, Field(ge=1)] = 600
    max_connections: Annotated[int, Field(ge=1)] = 1000


class DovecotPolicyConfig(Section):
    """Dovecot's authentication policy by HTTP. Off while there is neither `listen` nor `socket`."""

    listen: list[Address] = []
    """By TLS, unless on loopback."""
    socket: Path | None = None
    """A Unix socket; whoever can open it may report, without a key."""
    allowed_sources: list[NetworkRange] = []
    """Who may ask by TCP; everybody else gets silence. May not overlap a shared network."""
    api_key_file: Path | None = None
    """The value of the X-API-Key header; needed with `listen`."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None


class WhosonConfig(Section):
    """The WHOSON protocol over UDP and TCP. Off while `listen` is empty."""

    listen: list[Address] = []
    """Usually port 9876."""
    allowed_sources: list[NetworkRange] = []
    """Who may ask; everybody else gets silence. May not overlap a shared network."""
    udp_login: bool = False
    """Take LOGIN and LOGOUT by UDP too, whose source is easily forged."""


class DnsListConfig(Section):
    """A DNS list of the addresses that may relay. Off while `listen` is empty."""

    listen: list[Address] = []
    allowed_sources: list[NetworkRange] = []
    """Who may ask; everybody else gets silence. May not overlap a shared network."""
    zone: Domain = "logins.invalid"
    """4.3.2.1.ZONE answers 127.0.0.2 while 1.2.3.4 is known."""
    ttl: Annotated[int, Field(ge=0, le=5)] = 1
    """Seconds, of answers and of their absence."""
    txt: bool = False
    """TXT gives the user's name."""


class AddressMapConfig(Section):
    """Whose a mail address is, for front ends that have no directory."""

    file: Path | None = None
    """Lines of `address user` or `address user@context`; `#` begins a comment. Reloaded when it
    changes."""
    domains: list[Domain] = []
    """In these domains user@domain belongs to the user of that name, unless the file says
    otherwise."""
    subaddress_separator: Annotated[str, Field(max_length=1)] = "+"
    """user+tag@domain is an address of user; empty: it is not."""


class ListsConfig(Section):
    """Addresses that are judged before anything else."""

    allowed: list[AddressRange] = []
    """May connect and relay, without a login. May not overlap a shared network."""
    blocked: list[AddressRange] = []
    """May not connect."""


class DnsblZoneConfig(Section):
    """One DNS list of unwanted clients (RFC 5782)."""

    zone: Domain
    answers: list[NetworkRange] = ["127.0.0.0/24"]
    """Answers that count as listed; others do not."""
    services: list[Literal["smtp", "submission", "pop3", "imap"]] = ["smtp"]
    """Whose clients are looked up. People read and submit mail from addresses of dial-up ranges,
    which many lists name."""
    action: Literal["deny", "require_auth"] = "deny"
    """deny: a listed client may not connect. require_auth: it must authenticate."""
    comment: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] = ""
    """For the client, in ASCII; {address} stands for its address. Default: names the zone."""


class DnsblConfig(Section):
    """DNS lists that clients are looked up in when they connect. Off while `zones` is empty."""

    zones: list[DnsblZoneConfig] = []
    hit_cache: Annotated[Duration, Field(ge=0)] = 86_400
    """Seconds that a listed client stays listed, whatever the record's TTL."""
    miss_cache: Annotated[Duration, Field(ge=0)] = 900
    """Seconds that a client which is not listed is not looked up again."""
    timeout: Annotated[float, Field(gt=0, le=30)] = 3.0
    """Seconds for all zones together; then the client is let in."""


class ReverseDnsConfig(Section):
    """Clients without a reverse name that resolves back must authenticate."""

    enabled: bool = False
    cache: Annotated[Duration, Field(ge=0)] = 10_800
    """Seconds that an answer counts, whatever its TTL."""
    timeout: Annotated[float, Field(gt=0, le=30)] = 3.0
    """Seconds for all questions about a client; then it is let in."""


class GuessingConfig(Section):
    """Failed logins of POP3, IMAP and SMTP AUTH, counted over all agents."""

    enabled: bool = True
    window: Annotated[Duration, Field(ge=60)] = 3600
    """Seconds over which failures of an address are counted."""
    address_delay_from: Annotated[int, Field(ge=1)] = 5
    """Failures of an address in the window from which its logins are slowed down."""
    address_deny_from: Annotated[int, Field(ge=1)] = 20
    """Failures from which it is denied until they have grown old."""
    user_delay_from: Annotated[int, Field(ge=1)] = 5
    """Failures of a user in a day from which logins from new addresses are slowed down."""
    user_deny_from: Annotated[int, Field(ge=1)] = 20
    """Failures from which logins from addresses that are new to the user are denied."""
    max_delay: Annotated[float, Field(ge=0, le=30)] = 8.0
    known_address_days: Annotated[int, Field(ge=0)] = 30
    """A user is never denied from an address where he logged in within so many days."""
    exempt_networks: list[NetworkRange] = []
    """Clients that are never slowed down or denied."""


class RateLimit(Section):
    """What one known sender may send in an hour; 0: no limit."""

    recipients: Annotated[int, Field(ge=0)]
    messages: Annotated[int, Field(ge=0)] = 0


class RateOverride(Section):
    """Other rates for one user, or for the users of one context."""

    context: str
    user: str | None = None
    after_login: RateLimit | None = None
    after_auth: RateLimit | None = None


class RatesConfig(Section):
    """Rates of known senders, each counted per user, per client network and per login."""

    after_login: RateLimit = RateLimit(recipients=100)
    """Known by a POP3 or IMAP login."""
    after_auth: RateLimit = RateLimit(recipients=500)
    """Known by SMTP AUTH."""
    overrides: list[RateOverride] = []
    """The first that fits counts: put users before contexts."""
    revoke_on_excess: bool = False
    """Ends the logins of the client's network when its rate is exceeded."""


class AuditConfig(Section):
    """The log of registrations, decisions that allowed, revocations and denials."""

    directory: Path | None = None
    """A file of JSON lines a day, only ever appended to. Unset: no audit log."""
    retention: Annotated[Duration, Field(ge=86_400)] = 90 * 86_400
    """Files older than this are removed."""
    pseudonymize: bool = False
    """Addresses stand as HMAC, by the key in `key_file`: the same address gives the same word."""
    key_file: Path | None = None
    """At least 32 octets."""


class ValkeyConfig(Section):
    """A Valkey or Redis that holds the table for any number of replicas."""

    mode: Literal["single", "sentinel", "cluster"] = "single"
    addresses: list[Address] = Field(min_length=1)
    """Of the server; of the Sentinels; of some nodes of the cluster."""
    service_name: str = "netmail"
    """What the Sentinels call the primary."""
    username: str | None = None
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password_file: Path | None = None
    database: Annotated[int, Field(ge=0)] = 0
    tls: bool = False
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = "netmail"
    """Of every key and channel."""
    timeout: Annotated[float, Field(gt=0, le=30)] = 2.0
    """Seconds for an answer."""
    wait_replicas: Annotated[int, Field(ge=0, le=10)] = 0
    """Replicas that must have a registration before it is acknowledged. Revocations always wait
    for one where there is one."""
    buffered_registrations: Annotated[int, Field(ge=0)] = 10_000
    """Registrations that are kept, and made later, while the server is away."""


class ConnectionManagerConfig(AgentConfig):
    """One Connection Manager; Messaging Servers that name it share its logins."""

    name: str
    """Unique in the installation."""
    store: Literal["memory", "valkey"] = "memory"
    """memory: one process owns the table. valkey: replicas share it."""
    valkey: ValkeyConfig | None = None
    login_lifetime: Annotated[Duration, Field(ge=300, le=86400), RELOADED] = 900
    """How long a login vouches for its address, seconds, 5 to 1440 minutes. A change counts for
    logins and renewals from then on."""
    settle_time: Annotated[Duration, Field(ge=0, le=300)] = 4
    """With the table in memory: seconds after a restart in which the POP/IMAP Agents tell their
    logins again; who is not known yet is answered "try again later" (451) instead of "no"."""
    max_networks_per_user: Annotated[int, Field(ge=1, le=4096)] = 64
    """The oldest login goes when a user logs in from one more network."""
    max_users_per_network: Annotated[int, Field(ge=1, le=4096), RELOADED] = 8
    """With more users than this a network's sender binding becomes strict."""
    max_logins: Annotated[int, Field(ge=1)] = 2_000_000
    """The table's bound; beyond it new logins are refused (REGISTER_OUTCOME_TABLE_FULL) until
    others expire."""
    ipv6_prefix: Annotated[int, Field(ge=32, le=128)] = 64
    """IPv6 clients are known by this prefix."""
    nat64_prefixes: list[NetworkRange] = []
    """NAT64 prefixes (RFC 6052) besides 64:ff9b::/96 and 64:ff9b:1::/48."""
    shared_networks: Annotated[list[NetworkRange], RELOADED] = []
    """Networks that never grant, besides loopback, link-local, 100.64.0.0/10, the listeners'
    proxies and the Connection Manager's own addresses."""
    granting_networks: Annotated[list[NetworkRange], RELOADED] = []
    """Private ranges that may grant where private ranges are shared."""
    private_ranges_shared: Annotated[bool, RELOADED] = False
    """RFC 1918 and ULA ranges never grant unless in granting_networks. On Kubernetes always."""
    learn_cluster_networks: bool = False
    """Learn from the Kubernetes API which addresses nodes, pods and Services have: they never
    grant, whatever granting_networks says. Needs leave to list and watch nodes and
    servicecidrs."""
    loopback_grants: bool = False
    """Loopback addresses may grant. Only for a demonstration: refused with any listener that is
    not on loopback."""
    lists: Annotated[ListsConfig, RELOADED] = ListsConfig()
    dnsbl: Annotated[DnsblConfig, RELOADED] = DnsblConfig()
    reverse_dns: Annotated[ReverseDnsConfig, RELOADED] = ReverseDnsConfig()
    dns_servers: Annotated[list[Address], RELOADED] = []
    """Resolvers to ask instead of the system's: IP addresses with their port."""
    guessing: Annotated[GuessingConfig, RELOADED] = GuessingConfig()
    rates: Annotated[RatesConfig, RELOADED] = RatesConfig()
    audit: AuditConfig = AuditConfig()
    front_end_workers: Annotated[int, Field(ge=0, le=64)] = 0
    """Processes that serve the front ends below beside the one that owns the table; 0: that one
    serves them itself."""
    address_map: Annotated[AddressMapConfig, RELOADED] = AddressMapConfig()
    legacy_udp: Annotated[LegacyUdpConfig, RELOADED] = LegacyUdpConfig()
    postfix_policy: Annotated[PostfixPolicyConfig, RELOADED] = PostfixPolicyConfig()
    dovecot_policy: Annotated[DovecotPolicyConfig, RELOADED] = DovecotPolicyConfig()
    whoson: Annotated[WhosonConfig, RELOADED] = WhosonConfig()
    dns_list: Annotated[DnsListConfig, RELOADED] = DnsListConfig()

    @field_validator("nat64_prefixes")
    @classmethod
    def _lengths_of_rfc_6052(cls, prefixes: list[str]) -> list[str]:
        for text in prefixes:
            prefix = ipaddress.ip_network(text)
            if prefix.version != 6 or prefix.prefixlen not in {32, 40, 48, 56, 64, 96}:
                raise ValueError(
                    f"{text}: a NAT64 prefix is IPv6, of 32, 40, 48, 56, 64 or 96 bits"
                    " (RFC 6052 2.2)"
                )
        return prefixes

    @model_validator(mode="after")
    def _complete(self) -> "ConnectionManagerConfig":
        if (self.store == "valkey") != (self.valkey is not None):
            raise ValueError("store: valkey and the section valkey come together")
        policy, known = self.postfix_policy, self.address_map
        asks = bool(policy.listen or policy.socket)
        if asks and policy.sender_binding != "any" and not (known.file or known.domains):
            raise ValueError(
                f"postfix_policy.sender_binding: {policy.sender_binding} needs an address_map;"
                " give one, or say `any`, which lets a login vouch for every sender"
            )
        return self
