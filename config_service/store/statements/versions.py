"""Versions of configs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, bindparam, func, insert, or_, select, update

from config_client.protocol import format_timestamp

from ...domain.archiving import archivable
from ...domain.keys import ConfigKey
from ...domain.records import Activation, ChangeKind, Link, LogEntry, NewArchive, NewVersion, Version, VersionInfo
from .. import rows
from ..protocol import RunningConflictError, ScheduleConflictError, VersionConflictError
from ..schema import versions
from . import data_keys, drafts, history, savepoints, schemas
from .keys import is_key, is_number, newest_page, of

_OF_KEY: Final = is_key(versions)
_NEWEST: Final = select(func.coalesce(func.max(versions.c.version), 0)).where(_OF_KEY)
_NEWEST_PAGE: Final = newest_page(versions, versions.c.version)
_VERSION: Final = select(versions).where(_OF_KEY, versions.c.version == bindparam("number"))
_VERSIONS: Final = (
    select(
        *(column for column in versions.c if column is not versions.c.document),
        and_(versions.c.document.is_(None), versions.c.archived.is_(None)).label("deleted"),
    )
    .where(_OF_KEY)
    .order_by(versions.c.version)
)


_SERVED: Final = and_(_OF_KEY, or_(versions.c.valid_from.is_(None), versions.c.activated.is_not(None)))
_RUNNING: Final = select(versions).where(_SERVED).order_by(versions.c.version.desc()).limit(1)
_RUNNING_NUMBER: Final = select(func.max(versions.c.version)).where(_SERVED)
_ACTIVATE: Final = (
    update(versions)
    .where(_OF_KEY, versions.c.version == bindparam("number"))
    .values(activated=bindparam("of_entry"), activated_at=bindparam("at"))
)
_CANCEL: Final = (
    update(versions).where(_OF_KEY, versions.c.version == bindparam("number")).values(cancelled=bindparam("of_entry"))
)
_REMOVE_DOCUMENT: Final = (
    update(versions)
    .where(_OF_KEY, versions.c.version == bindparam("number"))
    .values(archived=bindparam("of_entry"), document=None)
)
_FOLLOWED: Final = {ChangeKind.ACTIVATED: _ACTIVATE, ChangeKind.SCHEDULE_CANCELLED: _CANCEL}


def commit(connection: Connection, change: NewVersion, link: Link | None = None) -> Version:
    """Append a version and its log entry; a draft that it publishes is gone.

    Raises VersionConflictError, RunningConflictError, SchemaConflictError, DraftConflictError or SealingKeyError.
    """
    revision = history.next_revision(connection)
    newest = connection.execute(_NEWEST, of(change.key)).scalar_one()
    if newest != change.base:
        raise VersionConflictError(change.key, change.base, newest)
    if change.running is not None:
        _require_running(connection, change.key, change.running)
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


def activate(connection: Connection, key: ConfigKey, number: int, at: datetime, link: Link | None = None) -> Version:
    """Serve a version that was published for later. Raises ScheduleConflictError."""
    revision = history.next_revision(connection)
    version = _awaited(connection, key, number)
    connection.execute(_ACTIVATE, {**of(key), "number": number, "of_entry": revision, "at": format_timestamp(at)})
    entry = LogEntry(revision, ChangeKind.ACTIVATED, version.changed_by, at, key=key, version=number)
    history.append(connection, entry, link)
    return replace(version, activation=Activation(revision, at))


def cancel(
    connection: Connection, key: ConfigKey, number: int, cancelled_by: int, at: datetime, link: Link | None = None
) -> LogEntry:
    """Note that a version that was published for later is never to run. Raises ScheduleConflictError."""
    revision = history.next_revision(connection)
    _awaited(connection, key, number)
    connection.execute(_CANCEL, {**of(key), "number": number, "of_entry": revision})
    entry = LogEntry(revision, ChangeKind.SCHEDULE_CANCELLED, cancelled_by, at, key=key, version=number)
    return history.append(connection, entry, link)


def archive(connection: Connection, change: NewArchive, link: Link | None = None) -> LogEntry | None:
    """Remove the documents of those versions of ``change`` that may go; None when none may."""
    history.lock(connection)
    key = change.key
    may_go = archivable(
        infos(connection, key), savepoints.every(connection, key), drafts.find(connection, key), change.before
    )
    going = tuple(one.version for one in may_go if one.version in set(change.versions))
    if not going:
        return None
    revision = history.next_revision(connection)
    _remove_documents(connection, key, going, revision)
    entry = LogEntry(revision, ChangeKind.ARCHIVED, change.archived_by, change.timestamp, key=key, archived=going)
    return history.append(connection, entry, link)


def follow(connection: Connection, entry: LogEntry) -> None:
    """Do to a version that is there what ``entry`` says has happened to it after it was committed."""
    if entry.key is not None and entry.archived is not None:
        _remove_documents(connection, entry.key, entry.archived, entry.revision)
    if entry.key is None or entry.kind not in _FOLLOWED:
        return
    values: dict[str, object] = {**of(entry.key), "number": entry.version, "of_entry": entry.revision}
    if entry.kind is ChangeKind.ACTIVATED:
        values["at"] = format_timestamp(entry.timestamp)
    connection.execute(_FOLLOWED[entry.kind], values)


def running(connection: Connection, key: ConfigKey) -> Version | None:
    """Return the newest version of ``key`` that is served, or None."""
    row = connection.execute(_RUNNING, of(key)).mappings().first()
    return None if row is None else rows.read_version(row)


def _remove_documents(connection: Connection, key: ConfigKey, numbers: Sequence[int], revision: int) -> None:
    values = {**of(key), "of_entry": revision}
    connection.execute(_REMOVE_DOCUMENT, [{**values, "number": number} for number in numbers])


def _require_running(connection: Connection, key: ConfigKey, number: int) -> None:
    found = connection.execute(_RUNNING_NUMBER, of(key)).scalar() or 0
    if found != number:
        raise RunningConflictError(key, number, found)


def _awaited(connection: Connection, key: ConfigKey, number: int) -> Version:
    """Return the newest version of ``key`` if it is ``number`` and waits for its moment."""
    version = find(connection, key, number)
    newest = connection.execute(_NEWEST, of(key)).scalar_one()
    if version is None or newest != number or not version.awaited:
        raise ScheduleConflictError(key, number)
    return version


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
