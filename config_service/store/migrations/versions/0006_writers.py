"""On PostgreSQL: what the last transaction of every process was, so that a commit whose answer is lost is looked up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. A database in a file loses no connection, and has none."""
    if op.get_bind().dialect.name == "postgresql":
        op.create_table(
            "writers",
            sa.Column("id", sa.Text, nullable=False),
            sa.Column("marker", sa.Text, nullable=False),
            sa.Column("seen_at", sa.Text, nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f("writers_pkey")),
        )


def downgrade() -> None:
    """Drop the table. It is no part of what the store keeps."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_table("writers")
