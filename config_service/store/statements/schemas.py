"""Schemas of configs."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, select

from ...domain.keys import ConfigKey
from ...domain.records import Link, LogEntry, NewSchema, SchemaInfo, StoredSchema
from .. import rows
from ..protocol import SchemaConflictError
from ..schema import schemas
from . import data_keys, history
from .keys import is_key, is_number, newest_page, of

_OF_KEY: Final = is_key(schemas)
_NEWEST: Final = select(func.coalesce(func.max(schemas.c.number), 0)).where(_OF_KEY)
_NEWEST_PAGE: Final = newest_page(schemas, schemas.c.number)
_SCHEMA: Final = select(schemas).where(_OF_KEY, schemas.c.number == bindparam("wanted"))
_SCHEMAS: Final = (
    select(
        *(column for column in schemas.c if column is not schemas.c.schema),
        schemas.c.schema.is_(None).label("removed"),
    )
    .where(_OF_KEY)
    .order_by(schemas.c.number)
)


def commit(connection: Connection, change: NewSchema, link: Link | None = None) -> StoredSchema:
    """Append a schema and its log entry.

    Raises SchemaConflictError when ``change.base`` is not the newest one, or SealingKeyError.
    """
    revision = history.next_revision(connection)
    require(connection, change.key, change.base)
    data_keys.require_active(connection, change.schema)
    schema = rows.committed_schema(change, revision)
    entry = LogEntry(revision, change.kind, change.changed_by, change.timestamp, key=change.key, schema=schema.number)
    history.append(connection, entry, link)
    connection.execute(insert(schemas), rows.schema_values(schema))
    return schema


def require(connection: Connection, key: ConfigKey, number: int) -> None:
    """Raise SchemaConflictError unless ``number`` is that of the newest schema of ``key`` (0: it never had one)."""
    newest = connection.execute(_NEWEST, of(key)).scalar_one()
    if newest != number:
        raise SchemaConflictError(key, number, newest)


def newest_after(connection: Connection, key: ConfigKey) -> list[StoredSchema]:
    """Return the newest schema of each of the ``PAGE`` keys that come after ``key``, ordered by key."""
    return [rows.read_schema(row) for row in connection.execute(_NEWEST_PAGE, of(key)).mappings()]


def infos(connection: Connection, key: ConfigKey) -> list[SchemaInfo]:
    """Return every schema of ``key`` without what it says, oldest first."""
    return [rows.read_schema_info(row) for row in connection.execute(_SCHEMAS, of(key)).mappings()]


def find(connection: Connection, key: ConfigKey, number: int) -> StoredSchema | None:
    """Return one schema of ``key``, or None."""
    if not is_number(number):
        return None
    row = connection.execute(_SCHEMA, {**of(key), "wanted": number}).mappings().first()
    return None if row is None else rows.read_schema(row)
