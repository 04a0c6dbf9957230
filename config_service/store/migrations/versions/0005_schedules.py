"""Versions that are published for later, and whether they have been activated or cancelled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NOTHING = "kind = 'published', name = NULL, environment = NULL, label = NULL, version = NULL"


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns; every version that is there runs, or ran."""
    columns = (
        sa.Column("valid_from", sa.Text),
        sa.Column("activated", _number()),
        sa.Column("activated_at", sa.Text),
        sa.Column("cancelled", _number()),
    )
    if op.get_bind().dialect.name == "sqlite":
        # A copy of the table keeps the document, which spills over pages, behind everything else.
        with op.batch_alter_table("versions", recreate="always") as versions:
            for column in columns:
                versions.add_column(column, insert_before="document")
    else:
        for column in columns:
            op.add_column("versions", column)


def downgrade() -> None:
    """Take away what an older service has no word for, such that it goes on with what is running.

    It serves the newest version of a config. So versions behind the running one, which wait for their moment or were
    cancelled, are lost; older ones that never ran become versions like all others. One that was activated becomes a
    version that was published at that revision. Revisions have no gaps, so every log entry stays; one that names
    neither a config nor a token is read as a change of nothing. Where entries are rewritten for that, the chain of the
    log would tell of tampering: it begins anew.
    """
    rewritten = "SELECT 1 FROM log WHERE kind IN ('scheduled', 'activated', 'schedule_cancelled')"
    for table in ("history", "log"):
        op.execute(f"UPDATE {table} SET link = NULL WHERE EXISTS ({rewritten})")  # noqa: S608 - nothing comes from outside
    op.execute(
        "DELETE FROM versions WHERE valid_from IS NOT NULL AND activated IS NULL AND NOT EXISTS ("
        "SELECT 1 FROM versions AS later WHERE later.name = versions.name "
        "AND later.environment = versions.environment AND later.label = versions.label "
        "AND later.version > versions.version AND (later.valid_from IS NULL OR later.activated IS NOT NULL))"
    )
    op.execute(
        f"UPDATE log SET {_NOTHING} WHERE kind = 'scheduled' AND NOT EXISTS ("  # noqa: S608
        "SELECT 1 FROM versions WHERE versions.revision = log.revision AND versions.activated IS NULL)"
    )
    op.execute("UPDATE versions SET revision = activated, timestamp = activated_at WHERE activated IS NOT NULL")
    op.execute("UPDATE versions SET kind = 'published' WHERE kind = 'scheduled'")
    op.execute("UPDATE log SET kind = 'published' WHERE kind IN ('scheduled', 'activated')")
    op.execute(f"UPDATE log SET {_NOTHING} WHERE kind = 'schedule_cancelled'")  # noqa: S608
    with op.batch_alter_table("versions") as versions:
        for column in ("cancelled", "activated_at", "activated", "valid_from"):
            versions.drop_column(column)
