"""The first schema: the history, its log, the versions of every config, the tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _word() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "history",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Text, nullable=False),
        sa.Column("revision", _number(), nullable=False),
        sa.Column("last_token_id", _number(), nullable=False),
        sa.Column("seal_check", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history")),
        sa.CheckConstraint("id = 1", name=op.f("ck_history_one_row")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", _number(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("default_environment", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_by", _number(), nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text),
        sa.Column("revoked_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
    )
    op.create_table(
        "log",
        sa.Column("revision", _number(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("changed_by", _number(), nullable=False),
        sa.Column("timestamp", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("environment", sa.Text),
        sa.Column("label", sa.Text),
        sa.Column("version", _number()),
        sa.Column("token_id", _number()),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_log")),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name=op.f("fk_log_token_id")),
    )
    op.create_table(
        "versions",
        sa.Column("name", _word(), nullable=False),
        sa.Column("environment", _word(), nullable=False),
        sa.Column("label", _word(), nullable=False),
        sa.Column("version", _number(), nullable=False),
        sa.Column("revision", _number(), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("changed_by", _number(), nullable=False),
        sa.Column("timestamp", sa.Text, nullable=False),
        sa.Column("source_version", _number()),
        sa.Column("document", sa.LargeBinary),
        sa.PrimaryKeyConstraint("name", "environment", "label", "version", name=op.f("pk_versions")),
        sa.ForeignKeyConstraint(["revision"], ["log.revision"], name=op.f("fk_versions_revision")),
        sa.UniqueConstraint("revision", name=op.f("uq_versions_revision")),
        sa.CheckConstraint("version > 0", name=op.f("ck_versions_from_one")),
    )


def downgrade() -> None:
    """Drop every table, and with them all data."""
    for table in ("versions", "log", "tokens", "history"):
        op.drop_table(table)
