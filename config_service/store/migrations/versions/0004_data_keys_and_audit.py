"""Data keys, wrapped, and a chained log: every entry gets a sealed detail and a link, ``history`` the newest link."""

from __future__ import annotations

from typing import Literal

import sqlalchemy as sa
from alembic import op

from config_service.domain.errors import StoreError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SEALED = (("versions", "document"), ("drafts", "document"), ("schemas", "schema"))


def _number() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make room for both. Entries that are there stay as they are; the service starts their chain when it opens."""
    op.create_table(
        "data_keys",
        sa.Column("id", _number(), autoincrement=False, nullable=False),
        sa.Column("use", sa.Text, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_keys")),
    )
    # SQLite would add a column behind the constraints, where no new store has it.
    rebuild: Literal["always", "never"] = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("history", recreate=rebuild) as changed:
        changed.add_column(sa.Column("link", sa.LargeBinary))
    with op.batch_alter_table("log", recreate=rebuild) as changed:
        changed.add_column(sa.Column("audit", sa.LargeBinary))
        changed.add_column(sa.Column("link", sa.LargeBinary))


def downgrade() -> None:
    """Drop the keys and the chain. Revisions have no gaps, so the entries about keys stay, as changes of nothing.

    Refused while anything is sealed under a data key, because nobody could open it ever again.
    """
    connection = op.get_bind()
    keys = sa.select(sa.func.count()).select_from(sa.table("tokens", sa.column("keys")))
    sealed = connection.execute(keys.where(sa.column("keys").like('%"sealed": "02%'))).scalar_one()
    for table, column in _SEALED:
        found = (
            sa.select(sa.func.count())
            .select_from(sa.table(table, sa.column(column)))
            .where(sa.func.substr(sa.column(column), 1, 1) == sa.literal(b"\x02", sa.LargeBinary))
        )
        sealed += connection.execute(found).scalar_one()
    if sealed:
        raise StoreError(
            "the store holds values that are sealed under data keys, which an older service cannot open; nothing was "
            "changed: restore a backup from before the upgrade instead"
        )
    op.drop_table("data_keys")
    with op.batch_alter_table("log") as changed:
        changed.drop_column("link")
        changed.drop_column("audit")
    with op.batch_alter_table("history") as changed:
        changed.drop_column("link")
    op.execute(
        "UPDATE log SET kind = 'published' WHERE kind IN "
        "('data_key_created', 'data_keys_destroyed', 'master_key_rotated', 'audit_started')"
    )
