"""Savepoints, archived documents, and what log entries tell of both."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ABOUT_THEM = "kind IN ('savepoint_set', 'savepoint_removed', 'archived')"
_NOTHING = "kind = 'published', name = NULL, environment = NULL, label = NULL, version = NULL"


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _word() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make room for both; every document is there, and no version has a name."""
    # SQLite would add a column behind the constraints, and the document has to stay the last one.
    sqlite = op.get_bind().dialect.name == "sqlite"
    rebuild: Literal["always", "never"] = "always" if sqlite else "never"
    with op.batch_alter_table("versions", recreate=rebuild) as versions:
        versions.add_column(sa.Column("archived", _number()), insert_before="document" if sqlite else None)
    with op.batch_alter_table("log", recreate=rebuild) as log:
        log.add_column(sa.Column("about", sa.Text))
    op.create_table(
        "savepoints",
        sa.Column("name", _word(), nullable=False),
        sa.Column("environment", _word(), nullable=False),
        sa.Column("label", _word(), nullable=False),
        sa.Column("savepoint", _word(), nullable=False),
        sa.Column("version", _number(), nullable=False),
        sa.Column("revision", _number(), nullable=False),
        sa.Column("changed_by", _number(), nullable=False),
        sa.Column("timestamp", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", "environment", "label", "savepoint", name=op.f("pk_savepoints")),
        sa.ForeignKeyConstraint(["revision"], ["log.revision"], name=op.f("fk_savepoints_revision")),
        sa.UniqueConstraint("revision", name=op.f("uq_savepoints_revision")),
    )


def downgrade() -> None:
    """Drop the savepoints; an archived version, whose document is gone, is told as one that was deleted.

    Revisions have no gaps, so their entries stay, as changes of nothing. Where there are some, the chain of the log
    would tell of tampering: it begins anew.
    """
    op.drop_table("savepoints")
    for table in ("history", "log"):
        op.execute(f"UPDATE {table} SET link = NULL WHERE EXISTS (SELECT 1 FROM log WHERE {_ABOUT_THEM})")  # noqa: S608
    op.execute(f"UPDATE log SET {_NOTHING} WHERE {_ABOUT_THEM}")  # noqa: S608 - nothing comes from outside
    with op.batch_alter_table("log") as log:
        log.drop_column("about")
    with op.batch_alter_table("versions") as versions:
        versions.drop_column("archived")
