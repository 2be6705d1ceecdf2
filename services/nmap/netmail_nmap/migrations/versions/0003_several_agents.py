"""Several agents on one database: locks of mailboxes, ids in blocks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BLOCKS = {"bodies": 1024, "queue_messages": 256, "queue_items": 256}


def upgrade() -> None:
    op.create_table(
        "mailbox_locks",
        sa.Column("user_id", _ID, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "name", name="pk_mailbox_locks"),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "postgresql":
        for table, size in _BLOCKS.items():
            op.execute(f"ALTER SEQUENCE {table}_id_seq INCREMENT BY {size}")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in _BLOCKS:
            op.execute(f"ALTER SEQUENCE {table}_id_seq INCREMENT BY 1")
    op.drop_table("mailbox_locks")
