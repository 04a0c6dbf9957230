"""Drafts of configs, and their schemas, of which log entries tell."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _word() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Create both tables; no config has a draft or a schema yet."""
    op.create_table(
        "drafts",
        sa.Column("name", _word(), nullable=False),
        sa.Column("environment", _word(), nullable=False),
        sa.Column("label", _word(), nullable=False),
        sa.Column("base", _number(), nullable=False),
        sa.Column("changed_by", _number(), nullable=False),
        sa.Column("timestamp", sa.Text, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", "environment", "label", name=op.f("pk_drafts")),
    )
    op.create_table(
        "schemas",
        sa.Column("name", _word(), nullable=False),
        sa.Column("environment", _word(), nullable=False),
        sa.Column("label", _word(), nullable=False),
        sa.Column("number", _number(), nullable=False),
        sa.Column("revision", _number(), nullable=False),
        sa.Column("changed_by", _number(), nullable=False),
        sa.Column("timestamp", sa.Text, nullable=False),
        sa.Column("schema", sa.LargeBinary),
        sa.PrimaryKeyConstraint("name", "environment", "label", "number", name=op.f("pk_schemas")),
        sa.ForeignKeyConstraint(["revision"], ["log.revision"], name=op.f("fk_schemas_revision")),
        sa.UniqueConstraint("revision", name=op.f("uq_schemas_revision")),
        sa.CheckConstraint("number > 0", name=op.f("ck_schemas_from_one")),
    )


def downgrade() -> None:
    """Drop both tables, and with them every draft and schema.

    Revisions have no gaps, so the log entries stay. An older service knows no word for a schema, and reads an entry
    that names neither a config nor a token as a change of nothing.
    """
    op.drop_table("schemas")
    op.drop_table("drafts")
    op.execute(
        "UPDATE log SET kind = 'published', name = NULL, environment = NULL, label = NULL, version = NULL "
        "WHERE kind IN ('schema_set', 'schema_removed')"
    )
