"""Configuration of the NMAP Agent: directory, mail store, queue."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from netmail_common.config._base import RELOADED, Duration, Octets, Section
from netmail_common.config.common import AgentConfig


class InitialUser(Section):
    """A user made at the first start with it, if the context has no user of that name.

    Who is removed later stays removed.
    """

    name: str
    password: SecretStr
    addresses: list[str] = []
    """Besides name@domain for each domain of the Messaging Server."""


class ContextConfig(Section):
    """A named set of users, held by exactly one NMAP agent."""

    name: str
    backend: Literal["internal", "htpasswd"] = "internal"
    file: Path | None = None
    """The htpasswd backend's file; read again when it changes."""
    initial_users: list[InitialUser] = []

    @model_validator(mode="after")
    def _file_for_htpasswd(self) -> "ContextConfig":
        if (self.backend == "htpasswd") != (self.file is not None):
            raise ValueError("file belongs to the htpasswd backend, and it needs one")
        if self.backend == "htpasswd" and self.initial_users:
            raise ValueError("initial_users belong to the internal backend")
        return self


class Argon2Config(Section):
    """Password hashing (RFC 9106) off the event loop, a bounded number at once."""

    time_cost: Annotated[int, Field(ge=1)] = 3
    memory_kib: Annotated[int, Field(ge=8)] = 65_536
    parallelism: Annotated[int, Field(ge=1)] = 1
    concurrency: Annotated[int, Field(ge=1)] = 2
    """Verifications at once: memory is this times memory_kib."""
    queue: Annotated[int, Field(ge=1)] = 256
    """Verifications that may wait; beyond it a login fails temporarily."""
    cache: Annotated[Duration, Field(ge=0)] = 300
    """How long a verified password is remembered (as an HMAC)."""
    scram_iterations: Annotated[int, Field(ge=4096)] = 4096
    """RFC 7677 section 4."""


class ObjectsConfig(Section):
    """An S3-compatible object store for bodies of large messages; the rest stays in PostgreSQL."""

    url: Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,62}(/[A-Za-z0-9._/-]*)?$")]
    """s3://BUCKET or s3://BUCKET/FOLDER; the bucket exists. Stores that share it do not meet."""
    endpoint: Annotated[str | None, Field(pattern=r"^https?://")] = None
    """Of a server that is not AWS's."""
    region: str = "us-east-1"
    virtual_hosted: bool = False
    """The bucket is part of the host name; else of the path."""
    access_key_file: Path | None = None
    """Has the access key's id; read again when it may have changed. Without it AWS's environment
    variables, web identity or instance role count."""
    secret_key_file: Path | None = None
    """Has the secret access key."""
    min_size: Annotated[int, Field(ge=256 * 1024, le=1024 * 1024)] = 256 * 1024
    """Messages with more octets go there; smaller ones are sooner found and read in PostgreSQL."""

    @model_validator(mode="after")
    def _both_keys(self) -> Self:
        if (self.access_key_file is None) != (self.secret_key_file is None):
            raise ValueError("access_key_file and secret_key_file: both or neither")
        return self


class StoreConfig(Section):
    """Mail store and queue."""

    url: str = "sqlite:///{state}/nmap-{server}.db"
    """{state} and {server} are replaced. postgresql://USER@HOST:PORT/DATABASE: any number of NMAP
    agents may share that database."""
    url_file: Path | None = None
    """Has PostgreSQL's URL, password included, instead of `url`; read anew for each connection."""
    password_file: Path | None = None
    """Has the password of PostgreSQL; read anew for each connection."""
    pooled: bool = False
    """PostgreSQL is behind pgbouncer (transaction pooling): no prepared statements are kept."""
    listen_url: str | None = None
    """PostgreSQL itself, when `url` leads to pgbouncer: NOTIFY does not pass through it. Without it
    changes by other agents are found by polling."""
    listen_url_file: Path | None = None
    """Has it, instead of `listen_url`."""
    readers: Annotated[int, Field(ge=1, le=64)] = 4
    """Connections that read."""
    writers: Annotated[int, Field(ge=1, le=64)] = 4
    """Connections that write, on PostgreSQL; SQLite has one."""
    objects: ObjectsConfig | None = None
    """Where bodies of large messages of a PostgreSQL store are; default: in PostgreSQL."""
    copies: Path | None = None
    """Folder in which `netmail backup` lets the agent write its copy of a PostgreSQL store, all of
    it; default: the state directory."""
    start_timeout: Annotated[Duration, Field(ge=0)] = 60
    """How long a start waits for PostgreSQL while it cannot be reached."""

    @property
    def shared(self) -> bool:
        """The store is a PostgreSQL database."""
        return bool(self.url_file) or self.url.startswith(("postgresql://", "postgres://"))

    @model_validator(mode="after")
    def _engine(self) -> Self:
        shared = self.shared
        if not shared and not self.url.startswith("sqlite:"):
            raise ValueError("url: sqlite:///PATH or postgresql://...")
        # Not by `model_fields_set`: a configuration that is made of another one has every field.
        if self.url_file and self.url != type(self).model_fields["url"].default:
            raise ValueError("url and url_file: one of them")
        if self.listen_url and self.listen_url_file:
            raise ValueError("listen_url and listen_url_file: one of them")
        listen = self.listen_url or self.listen_url_file
        others = (self.password_file, self.pooled, listen, self.copies, self.objects)
        if not shared and any(others):
            raise ValueError(
                "password_file, pooled, listen_url, copies and objects are for PostgreSQL"
            )
        return self


class QueueConfig(Section):
    """Retry schedule of remote deliveries."""

    first_retry: Annotated[Duration, Field(ge=1)] = 300
    max_retry: Annotated[Duration, Field(ge=1)] = 14_400
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the delay that is random."""
    lifetime: Annotated[Duration, Field(ge=1)] = 432_000
    """Then the message is returned: 5 days (RFC 5321 4.5.4.1)."""
    delay_warning: Annotated[Duration, Field(ge=1)] = 14_400
    """When a delay DSN is sent."""


class NmapConfig(AgentConfig):
    """The NMAP Agent of one Messaging Server."""

    store: StoreConfig = StoreConfig()
    argon2: Argon2Config = Argon2Config()
    queue: Annotated[QueueConfig, RELOADED] = QueueConfig()
    default_quota: Annotated[Octets, RELOADED] = 0
    """Octets per user; 0: unlimited."""
    max_message_size: Annotated[Octets, RELOADED] = 64 * 1024 * 1024
    catch_all: Annotated[str | None, RELOADED] = None
    """Mail address of a user who gets mail to unknown local parts."""
    postmaster: Annotated[str | None, RELOADED] = None
    """Mail address of the user who gets mail to postmaster and abuse; default: the first user."""
    subaddress_separator: Annotated[str, Field(max_length=1), RELOADED] = "+"
    """Empty: no subaddresses."""
    drain_timeout: Annotated[Duration, Field(ge=1)] = 30
