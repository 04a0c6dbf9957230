"""Versions of configs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, select

from ...domain.keys import ConfigKey
from ...domain.records import Link, LogEntry, NewVersion, Version, VersionInfo
from .. import rows
from ..protocol import VersionConflictError
from ..schema import versions
from . import data_keys, drafts, history, schemas
from .keys import is_key, is_number, newest_page, of

_OF_KEY: Final = is_key(versions)
_NEWEST: Final = select(func.coalesce(func.max(versions.c.version), 0)).where(_OF_KEY)
_NEWEST_PAGE: Final = newest_page(versions, versions.c.version)
_VERSION: Final = select(versions).where(_OF_KEY, versions.c.version == bindparam("number"))
_VERSIONS: Final = (
    select(
        *(column for column in versions.c if column is not versions.c.document),
        versions.c.document.is_(None).label("deleted"),
    )
    .where(_OF_KEY)
    .order_by(versions.c.version)
)


def commit(connection: Connection, change: NewVersion, link: Link | None = None) -> Version:
    """Append a version and its log entry; a draft that it publishes is gone.

    Raises VersionConflictError, SchemaConflictError, DraftConflictError or SealingKeyError.
    """
    revision = history.next_revision(connection)
    newest = connection.execute(_NEWEST, of(change.key)).scalar_one()
    if newest != change.base:
        raise VersionConflictError(change.key, change.base, newest)
    if change.schema is not None:
        schemas.require(connection, change.key, change.schema)
    if change.draft is not None:
        drafts.remove(connection, change.key, change.draft)
    data_keys.require_active(connection, change.document)
    version = rows.committed_version(change, revision)
    entry = LogEntry(
        revision, change.kind, change.changed_by, change.timestamp, key=change.key, version=version.version
    )
    history.append(connection, entry, link)
    connection.execute(insert(versions), rows.version_values(version))
    return version


def commit_all(connection: Connection, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
    """Append a version for each of ``changes``, in their order. Raises what ``commit`` raises."""
    return [commit(connection, change, link) for change in changes]


def newest_after(connection: Connection, key: ConfigKey) -> list[Version]:
    """Return the newest version of each of the ``PAGE`` keys that come after ``key``, ordered by key."""
    return [rows.read_version(row) for row in connection.execute(_NEWEST_PAGE, of(key)).mappings()]


def infos(connection: Connection, key: ConfigKey) -> list[VersionInfo]:
    """Return every version of ``key`` without its document, oldest first."""
    return [rows.read_version_info(row) for row in connection.execute(_VERSIONS, of(key)).mappings()]


def find(connection: Connection, key: ConfigKey, number: int) -> Version | None:
    """Return one version of ``key``, or None."""
    if not is_number(number):
        return None
    row = connection.execute(_VERSION, {**of(key), "number": number}).mappings().first()
    return None if row is None else rows.read_version(row)
