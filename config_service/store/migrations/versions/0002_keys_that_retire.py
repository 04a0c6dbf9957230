"""Keys that retire: each key of a token has a time from which on it is not used; a log entry tells of a rotation.

Rows are rewritten in Python, because no two databases agree on how to build JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_tokens = sa.table("tokens", sa.column("id", sa.BigInteger), sa.column("keys", sa.Text))


def upgrade() -> None:
    """Give every key a time to retire: none. What 0001 could only call a creation is a rotation again."""
    _rewrite(lambda keys: [{"sealed": key, "retires_at": None} for key in keys])
    op.execute(
        "UPDATE log SET kind = 'token_rekeyed' WHERE kind = 'token_created' AND EXISTS ("
        "SELECT 1 FROM log AS earlier WHERE earlier.kind = 'token_created' "
        "AND earlier.token_id = log.token_id AND earlier.revision < log.revision)"
    )


def downgrade() -> None:
    """Keep the keys that never retire; an older service uses the newest one alone, and would let no other one end.

    A rotation is told as a second creation: an older service knows no other word for "read this token again".
    """
    _rewrite(lambda keys: [key["sealed"] for key in keys if key["retires_at"] is None])
    op.execute("UPDATE log SET kind = 'token_created' WHERE kind = 'token_rekeyed'")


def _rewrite(change: Callable[[list[Any]], list[Any]]) -> None:
    connection = op.get_bind()
    for token_id, keys in connection.execute(sa.select(_tokens.c["id"], _tokens.c["keys"])).all():
        rewritten = json.dumps(change(json.loads(keys)))
        connection.execute(_tokens.update().where(_tokens.c["id"] == token_id).values(keys=rewritten))
