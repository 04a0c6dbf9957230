"""Tokens and their keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from config_client.protocol import format_timestamp

from ...domain.records import ChangeKind, KeyRotation, Link, LogEntry, NewToken, StoredToken
from .. import rows
from ..protocol import KeyConflictError
from ..schema import tokens
from . import data_keys, history
from .keys import is_number

_TOKENS: Final = select(tokens).order_by(tokens.c.id)
_TOKEN: Final = select(tokens).where(tokens.c.id == bindparam("of_id"))
_ROTATE: Final = (
    update(tokens)
    .where(tokens.c.id == bindparam("of_id"), tokens.c["keys"] == bindparam("base"), tokens.c.revoked_at.is_(None))
    .values(keys=bindparam("newest"))
)
_REVOKE: Final = (
    update(tokens)
    .where(tokens.c.id == bindparam("of_id"), tokens.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("at"))
)


def commit(connection: Connection, token: NewToken, link: Link | None = None) -> tuple[StoredToken, LogEntry]:
    """Append a token and its log entry.

    Raises InvalidRequestError for a scope that has no spelling, or SealingKeyError.
    """
    revision, token_id = history.next_token(connection)
    stored = rows.committed_token(token, token_id)
    entry = LogEntry(revision, ChangeKind.TOKEN_CREATED, token.created_by, token.created_at, token_id=token_id)
    data_keys.require_active(connection, *(key.sealed for key in token.keys))
    connection.execute(insert(tokens), rows.token_values(stored))
    return stored, history.append(connection, entry, link)


def rotate_keys(
    connection: Connection, rotation: KeyRotation, link: Link | None = None
) -> tuple[StoredToken, LogEntry] | None:
    """Give a token other keys. Returns None when there is none of that id, or it is revoked.

    Raises KeyConflictError when ``rotation.base`` is not what its keys are, or SealingKeyError for a new one.
    """
    if not is_number(rotation.token_id):
        return None
    row = connection.execute(_TOKEN, {"of_id": rotation.token_id}).mappings().first()
    if row is None or row["revoked_at"] is not None:
        return None
    stored = rows.read_token(row)
    # The condition on the very text that was read holds also where a transaction is not the only writer.
    change = {"of_id": stored.id, "base": row["keys"], "newest": rows.keys_text(rotation.keys)}
    if stored.keys != rotation.base or connection.execute(_ROTATE, change).rowcount == 0:
        raise KeyConflictError(rotation.token_id)
    revision = history.next_revision(connection)
    kept = {key.sealed for key in rotation.base}
    data_keys.require_active(connection, *(key.sealed for key in rotation.keys if key.sealed not in kept))
    entry = LogEntry(revision, ChangeKind.TOKEN_REKEYED, rotation.rotated_by, rotation.rotated_at, token_id=stored.id)
    return replace(stored, keys=rotation.keys), history.append(connection, entry, link)


def revoke(
    connection: Connection, token_id: int, revoked_by: int, at: datetime, link: Link | None = None
) -> LogEntry | None:
    """Mark a token revoked. Returns None when there is none of that id, or it is revoked already."""
    if not is_number(token_id):
        return None
    if connection.execute(_REVOKE, {"of_id": token_id, "at": format_timestamp(at)}).rowcount == 0:
        return None
    revision = history.next_revision(connection)
    entry = LogEntry(revision, ChangeKind.TOKEN_REVOKED, revoked_by, at, token_id=token_id)
    return history.append(connection, entry, link)


def every(connection: Connection) -> list[StoredToken]:
    """Return every token, revoked ones included, by id."""
    return [rows.read_token(row) for row in connection.execute(_TOKENS).mappings()]


def find(connection: Connection, token_id: int) -> StoredToken | None:
    """Return one token, which may be revoked, or None."""
    if not is_number(token_id):
        return None
    row = connection.execute(_TOKEN, {"of_id": token_id}).mappings().first()
    return None if row is None else rows.read_token(row)
