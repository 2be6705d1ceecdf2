"""Tables of the directory, the mail store and the queue, for every SQL engine.

Times are UTC since the epoch: seconds where a protocol shows them (internal date, save date),
milliseconds in the queue. Sizes are octets. Object ids of messages (RFC 8474 EMAILID) are not
stored: they are made of the store's id and the body's id, neither of which is ever used again.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column whose type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")

store_meta = Table(
    "store_meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""store_id: random, part of every object id. uid_validity: the last one given out."""

# -- directory ---------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("context", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False),
    Column("password_hash", Text),
    Column("scram_salt", LargeBinary),
    Column("scram_iterations", Integer),
    Column("scram_stored_key", LargeBinary),
    Column("scram_server_key", LargeBinary),
    Column("disabled", Boolean, nullable=False, server_default=false()),
    Column("credential_epoch", BigInteger, nullable=False, server_default=text("1")),
    Column("quota_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("used_bytes", BigInteger, nullable=False, server_default=text("0")),
    # JSON array of mail addresses.
    Column("forward_to", Text, nullable=False, server_default="[]"),
    Column("keep_copy", Boolean, nullable=False, server_default=true()),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("context", "name_key"),
    sqlite_autoincrement=True,
)

user_addresses = Table(
    "user_addresses",
    metadata,
    Column("address_key", Text, primary_key=True),
    Column("address", Text, nullable=False),
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Index(None, "user_id"),
    sqlite_with_rowid=False,
)

device_passwords = Table(
    "device_passwords",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("name_key", Text, nullable=False),
    # HMAC of the password, which is too long to be guessed.
    Column("digest", LargeBinary, nullable=False),
    # JSON arrays; empty: all services, any network.
    Column("services", Text, nullable=False, server_default="[]"),
    Column("networks", Text, nullable=False, server_default="[]"),
    Column("expires_at", BigInteger),
    # Its logins were revoked when it had come to its end.
    Column("ended", Boolean, nullable=False, server_default=false()),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("used_from", Text, nullable=False, server_default=""),
    UniqueConstraint("user_id", "name_key"),
    sqlite_autoincrement=True,
)

pending_revocations = Table(
    "pending_revocations",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("credential_epoch", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
"""Revocations that the Connection Manager has not acknowledged yet."""

# -- message bodies ----------------------------------------------------------------------------

bodies = Table(
    "bodies",
    metadata,
    Column("id", _Id, primary_key=True),
    # Of the whole message, the local part included.
    Column("size", BigInteger, nullable=False),
    # Octets at the beginning that belong to local delivery only (Return-Path).
    Column("local_size", Integer, nullable=False),
    # The header section with its empty line; the rest is in body_chunks.
    Column("header", LargeBinary, nullable=False),
    # The rest is in an object store instead.
    Column("elsewhere", Boolean, nullable=False, server_default=false()),
    sqlite_autoincrement=True,
)

body_chunks = Table(
    "body_chunks",
    metadata,
    # body id * 65,536 + index; every chunk but the last has 256 KiB.
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

orphans = Table(
    "orphans",
    metadata,
    Column("body_id", _Id, primary_key=True, autoincrement=False),
    Column("due_at", BigInteger, nullable=False),
    Index(None, "due_at"),
)
"""Bodies that may have no reference left: looked at, and removed if so, when due (ms)."""

# -- mailboxes ---------------------------------------------------------------------------------

mailboxes = Table(
    "mailboxes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("user_id", _Id, ForeignKey("users.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("special_use", Text, nullable=False, server_default=""),
    Column("uid_validity", BigInteger, nullable=False),
    Column("uid_next", BigInteger, nullable=False),
    Column("highest_modseq", BigInteger, nullable=False),
    Column("first_recent_uid", BigInteger, nullable=False),
    # Kept in step with the messages, so that STATUS reads one row.
    Column("messages", Integer, nullable=False),
    Column("unseen", Integer, nullable=False),
    Column("deleted", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    UniqueConstraint("user_id", "name"),
    sqlite_autoincrement=True,
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("user_id", _Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    sqlite_with_rowid=False,
)

keywords = Table(
    "keywords",
    metadata,
    Column("mailbox_id", _Id, primary_key=True, autoincrement=False),
    # Of messages.flags.
    Column("bit", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    sqlite_with_rowid=False,
)

messages = Table(
    "messages",
    metadata,
    Column("mailbox_id", _Id, primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    Column("modseq", BigInteger, nullable=False),
    # Bits 0 to 4: system flags; 5 to 62: keywords of the mailbox.
    Column("flags", BigInteger, nullable=False),
    Column("internal_date", BigInteger, nullable=False),
    Column("save_date", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("body_id", _Id, nullable=False),
    Index("ix_messages_mailbox_id_modseq", "mailbox_id", "modseq"),
    Index("ix_messages_body_id", "body_id"),
    sqlite_with_rowid=False,
)

expunged = Table(
    "expunged",
    metadata,
    Column("mailbox_id", _Id, primary_key=True, autoincrement=False),
    Column("modseq", BigInteger, primary_key=True, autoincrement=False),
    Column("uid", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

mailbox_locks = Table(
    "mailbox_locks",
    metadata,
    Column("user_id", _Id, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    # The process, and the session of it.
    Column("holder", Text, nullable=False),
    # Milliseconds of the database's clock; renewed while it is held.
    Column("held_until", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""POP3's exclusive locks, where several processes have the database."""

# -- queue -------------------------------------------------------------------------------------

accepted = Table(
    "accepted",
    metadata,
    Column("message_id", Text, primary_key=True),
    # "": submitted; "u:ID": in that user's mailbox; "a:ADDRESS": handed over for that recipient.
    Column("recipient", Text, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
    sqlite_with_rowid=False,
)
"""What was taken, so that a repeated Submit or Deliver changes nothing."""

queue_messages = Table(
    "queue_messages",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("sender", Text, nullable=False),
    Column("body_id", _Id, nullable=False),
    # Without the local part of the body.
    Column("size", BigInteger, nullable=False),
    Column("smtputf8", Boolean, nullable=False),
    Column("body_8bit", Boolean, nullable=False),
    Column("return_headers_only", Boolean, nullable=False),
    Column("envelope_id", Text, nullable=False),
    Column("messaging_server", Text, nullable=False),
    Column("relayed_for", Text, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Index(None, "message_id"),
    Index(None, "body_id"),
    sqlite_autoincrement=True,
)

queue_items = Table(
    "queue_items",
    metadata,
    # The lease id.
    Column("id", _Id, primary_key=True),
    Column("queue_message_id", _Id, nullable=False),
    Column("destination", Text, nullable=False),
    # When it may be leased: the next attempt, or the end of a lease.
    Column("due_at", BigInteger, nullable=False),
    Column("held", Boolean, nullable=False, server_default=false()),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    # 0: not leased.
    Column("leased_until", BigInteger, nullable=False, server_default=text("0")),
    Column("worker", Text, nullable=False, server_default=""),
    Column("delay_warned", Boolean, nullable=False, server_default=false()),
    Index(None, "queue_message_id"),
    Index(None, "held", "destination", "due_at"),
    Index(None, "held", "due_at"),
    sqlite_autoincrement=True,
)
"""The recipients of one message for one destination domain: what is leased and tried together."""

queue_recipients = Table(
    "queue_recipients",
    metadata,
    Column("item_id", _Id, primary_key=True, autoincrement=False),
    Column("address", Text, primary_key=True),
    # Bits: 1 never, 2 success, 4 failure, 8 delay, 16 NOTIFY was given (RFC 3461 4.1).
    Column("notify", Integer, nullable=False),
    Column("original_recipient", Text, nullable=False),
    Column("last_status", Text, nullable=False, server_default=""),
    Column("last_diagnostic", Text, nullable=False, server_default=""),
    Column("last_remote_mta", Text, nullable=False, server_default=""),
    sqlite_with_rowid=False,
)
