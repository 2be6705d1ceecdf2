"""First schema: directory, mail store, queue."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "accepted",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", "recipient", name="pk_accepted"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_accepted_expires_at", "accepted", ["expires_at"])

    op.create_table(
        "bodies",
        sa.Column("id", _ID, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("local_size", sa.Integer(), nullable=False),
        sa.Column("header", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_bodies"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "body_chunks",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_body_chunks"),
    )
    op.create_table(
        "expunged",
        sa.Column("mailbox_id", _ID, autoincrement=False, nullable=False),
        sa.Column("modseq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("mailbox_id", "modseq", "uid", name="pk_expunged"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "keywords",
        sa.Column("mailbox_id", _ID, autoincrement=False, nullable=False),
        sa.Column("bit", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("mailbox_id", "bit", name="pk_keywords"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "messages",
        sa.Column("mailbox_id", _ID, autoincrement=False, nullable=False),
        sa.Column("uid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("modseq", sa.BigInteger(), nullable=False),
        sa.Column("flags", sa.BigInteger(), nullable=False),
        sa.Column("internal_date", sa.BigInteger(), nullable=False),
        sa.Column("save_date", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("body_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("mailbox_id", "uid", name="pk_messages"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_messages_body_id", "messages", ["body_id"])
    op.create_index("ix_messages_mailbox_id_modseq", "messages", ["mailbox_id", "modseq"])

    op.create_table(
        "orphans",
        sa.Column("body_id", _ID, autoincrement=False, nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("body_id", name="pk_orphans"),
    )
    op.create_index("ix_orphans_due_at", "orphans", ["due_at"])

    op.create_table(
        "pending_revocations",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("credential_epoch", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pending_revocations"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "queue_items",
        sa.Column("id", _ID, nullable=False),
        sa.Column("queue_message_id", _ID, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("leased_until", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("delay_warned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_queue_items"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_queue_items_held_destination_due_at", "queue_items", ["held", "destination", "due_at"]
    )
    op.create_index("ix_queue_items_held_due_at", "queue_items", ["held", "due_at"])
    op.create_index("ix_queue_items_queue_message_id", "queue_items", ["queue_message_id"])

    op.create_table(
        "queue_messages",
        sa.Column("id", _ID, nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("body_id", _ID, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("smtputf8", sa.Boolean(), nullable=False),
        sa.Column("body_8bit", sa.Boolean(), nullable=False),
        sa.Column("return_headers_only", sa.Boolean(), nullable=False),
        sa.Column("envelope_id", sa.Text(), nullable=False),
        sa.Column("messaging_server", sa.Text(), nullable=False),
        sa.Column("relayed_for", sa.Text(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_queue_messages"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_queue_messages_body_id", "queue_messages", ["body_id"])
    op.create_index("ix_queue_messages_message_id", "queue_messages", ["message_id"])

    op.create_table(
        "queue_recipients",
        sa.Column("item_id", _ID, autoincrement=False, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("notify", sa.Integer(), nullable=False),
        sa.Column("original_recipient", sa.Text(), nullable=False),
        sa.Column("last_status", sa.Text(), server_default="", nullable=False),
        sa.Column("last_diagnostic", sa.Text(), server_default="", nullable=False),
        sa.Column("last_remote_mta", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("item_id", "address", name="pk_queue_recipients"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "store_meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_store_meta"),
    )
    op.create_table(
        "users",
        sa.Column("id", _ID, nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("scram_salt", sa.LargeBinary(), nullable=True),
        sa.Column("scram_iterations", sa.Integer(), nullable=True),
        sa.Column("scram_stored_key", sa.LargeBinary(), nullable=True),
        sa.Column("scram_server_key", sa.LargeBinary(), nullable=True),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("credential_epoch", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("quota_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("used_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("forward_to", sa.Text(), server_default="[]", nullable=False),
        sa.Column("keep_copy", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("context", "name_key", name="uq_users_context_name_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "mailboxes",
        sa.Column("id", _ID, nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("special_use", sa.Text(), server_default="", nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), nullable=False),
        sa.Column("uid_next", sa.BigInteger(), nullable=False),
        sa.Column("highest_modseq", sa.BigInteger(), nullable=False),
        sa.Column("first_recent_uid", sa.BigInteger(), nullable=False),
        sa.Column("messages", sa.Integer(), nullable=False),
        sa.Column("unseen", sa.Integer(), nullable=False),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_mailboxes_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_mailboxes"),
        sa.UniqueConstraint("user_id", "name", name="uq_mailboxes_user_id_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "subscriptions",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_subscriptions_user_id_users", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "name", name="pk_subscriptions"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "user_addresses",
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_addresses_user_id_users", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("address_key", name="pk_user_addresses"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_user_addresses_user_id", "user_addresses", ["user_id"])


def downgrade() -> None:
    op.drop_table("user_addresses")
    op.drop_table("subscriptions")
    op.drop_table("mailboxes")
    op.drop_table("users")
    op.drop_table("store_meta")
    op.drop_table("queue_recipients")
    op.drop_table("queue_messages")
    op.drop_table("queue_items")
    op.drop_table("pending_revocations")
    op.drop_table("orphans")
    op.drop_table("messages")
    op.drop_table("keywords")
    op.drop_table("expunged")
    op.drop_table("body_chunks")
    op.drop_table("bodies")
    op.drop_table("accepted")
