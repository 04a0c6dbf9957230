"""Savepoints, names for versions of configs: the log tells of all that there were, the table holds those there are."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, insert, select

from ...domain.keys import ConfigKey
from ...domain.records import ChangeKind, Link, LogEntry, NewSavepoint, Savepoint
from .. import rows
from ..protocol import SavepointConflictError
from ..schema import savepoints, versions
from . import history
from .keys import is_key, is_number, of

_NAMED: Final = and_(is_key(savepoints), savepoints.c.savepoint == bindparam("named"))
_VERSION: Final = select(savepoints.c.version).where(_NAMED)
_REMOVE: Final = delete(savepoints).where(_NAMED)
_EVERY: Final = select(savepoints).where(is_key(savepoints)).order_by(savepoints.c.savepoint)
_HAS_DOCUMENT: Final = select(versions.c.revision).where(
    is_key(versions), versions.c.version == bindparam("number"), versions.c.document.is_not(None)
)


def commit(connection: Connection, change: NewSavepoint, link: Link | None = None) -> LogEntry:
    """Set, move or remove a savepoint. Raises SavepointConflictError."""
    key, number = change.key, change.version
    revision = history.next_revision(connection)
    found = connection.execute(_VERSION, {**of(key), "named": change.name}).scalar() or 0
    there = number is None or (
        is_number(number) and connection.execute(_HAS_DOCUMENT, {**of(key), "number": number}).first() is not None
    )
    if found != change.base or not there or (number is None and not found):
        raise SavepointConflictError(key, change.name, found)
    entry = LogEntry(
        revision,
        change.kind,
        change.changed_by,
        change.timestamp,
        key=key,
        version=change.entry_version,
        savepoint=change.name,
    )
    entry = history.append(connection, entry, link)
    follow(connection, entry)
    return entry


def every(connection: Connection, key: ConfigKey) -> list[Savepoint]:
    """Return the savepoints of ``key``, by name."""
    return [rows.read_savepoint(row) for row in connection.execute(_EVERY, of(key)).mappings()]


def follow(connection: Connection, entry: LogEntry) -> None:
    """Do to the savepoints that there are what ``entry`` says."""
    if entry.key is None or entry.savepoint is None:
        return
    connection.execute(_REMOVE, {**of(entry.key), "named": entry.savepoint})
    if entry.kind is ChangeKind.SAVEPOINT_SET:
        connection.execute(insert(savepoints), rows.savepoint_values(Savepoint.of(entry)))
