"""The keys of the store, wrapped, and the rule that what is new is sealed under the active one."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from ...domain.records import KeyUse, Link, LogEntry, WrappedKey
from ...domain.sealing import MASTER_KEY_ID, NewKeys, data_key_id
from .. import rows
from ..protocol import KeysConflictError, SealingKeyError
from ..schema import data_keys
from ..schema import history as history_row
from . import history

_KEYS: Final = select(data_keys).order_by(data_keys.c.id)
_ACTIVE: Final = select(data_keys.c.id).where(data_keys.c.use == KeyUse.ACTIVE.value)


def every(connection: Connection) -> tuple[WrappedKey, ...]:
    """Return every key, by id; none in a store that was never given any."""
    return tuple(rows.read_data_key(row) for row in connection.execute(_KEYS).mappings())


def commit(connection: Connection, change: NewKeys, link: Link | None = None) -> LogEntry | None:
    """Put other keys in place, with a log entry when ``change`` names its kind.

    Raises KeysConflictError when ``change.base`` is not what there is.
    """
    history.lock(connection)
    if every(connection) != change.base:
        raise KeysConflictError
    connection.execute(delete(data_keys))
    if change.keys:
        connection.execute(insert(data_keys), [rows.data_key_values(key) for key in change.keys])
    if change.check is not None:
        connection.execute(update(history_row).values(seal_check=change.check))
    if change.kind is None:
        return None
    entry = LogEntry(history.next_revision(connection), change.kind, change.changed_by, change.timestamp)
    return history.append(connection, entry, link)


def require_active(connection: Connection, *sealed: bytes | None) -> None:
    """Raise SealingKeyError when a value is sealed under a data key that is not the active one, if there is one.

    The transaction is the only writer by now, so that no rotation can come in between.
    """
    used = {data_key_id(value) for value in sealed if value is not None} - {MASTER_KEY_ID}
    if used:
        active = connection.execute(_ACTIVE).scalar()
        if active is not None and used != {active}:
            raise SealingKeyError(min(used - {active}), active)
