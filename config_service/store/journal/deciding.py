"""Which record a change makes of a state, or why it makes none. Pure.

Knows the conditions of every change. What is raised here, the failures of a link included, has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from ...domain.archiving import archivable
from ...domain.keys import ConfigKey
from ...domain.records import (
    Activation,
    ChangeKind,
    Draft,
    KeyRotation,
    KeyUse,
    Link,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    SchemaInfo,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from ...domain.sealing import MASTER_KEY_ID, NewKeys, data_key_id
from ..protocol import (
    KeyConflictError,
    KeysConflictError,
    RunningConflictError,
    SavepointConflictError,
    ScheduleConflictError,
    SchemaConflictError,
    SealingKeyError,
    VersionConflictError,
)
from .record import Change, Record, schema_of, version_of
from .state import State, digest


class Deciding:
    """The next record of ``state``; ``keys`` are those of the store, ``link`` chains its entries."""

    def __init__(self, state: State, keys: Sequence[WrappedKey], link: Link | None) -> None:
        self._state = state
        self._keys = keys
        self._link = link
        self._last = state.link

    def versions(self, changes: Sequence[NewVersion]) -> tuple[Record, list[Version]]:
        """Append a version for each of ``changes``, which are of different keys.

        Raises VersionConflictError, RunningConflictError, SchemaConflictError or SealingKeyError. Drafts are not looked
        at: they are not part of the state.
        """
        made, versions, documents = [], [], {}
        for revision, change in enumerate(changes, start=self._state.revision + 1):
            newest = self._state.newest_version(change.key)
            if newest != change.base:
                raise VersionConflictError(change.key, change.base, newest)
            if change.running is not None:
                self._require_running(change.key, change.running)
            if change.schema is not None:
                self._require_schema(change.key, change.schema)
            if change.document is not None:
                require_active(self._keys, [change.document])
                documents[revision] = change.document
            key, number, kind, by, at = change.key, change.version, change.kind, change.changed_by, change.timestamp
            info = VersionInfo(
                key, number, revision, kind, by, at, change.document is None, change.source_version, change.valid_from
            )
            draft = None if change.draft is None else digest(change.draft)
            entry = self._linked(LogEntry(revision, kind, by, at, key=key, version=number))
            made.append(Change(entry, info, draft))
            versions.append(version_of(info, change.document))
        return Record(self._state.epoch, tuple(made), documents), versions

    def activation(self, key: ConfigKey, number: int, at: datetime) -> tuple[Record, VersionInfo]:
        """Serve a version that was published for later. Raises ScheduleConflictError."""
        info = self._awaited(key, number)
        revision = self._state.revision + 1
        entry = self._linked(LogEntry(revision, ChangeKind.ACTIVATED, info.changed_by, at, key=key, version=number))
        return Record(self._state.epoch, (Change(entry),)), replace(info, activation=Activation(revision, at))

    def cancellation(self, key: ConfigKey, number: int, by: int, at: datetime) -> tuple[Record, LogEntry]:
        """Note that a version that was published for later is never to run. Raises ScheduleConflictError."""
        self._awaited(key, number)
        revision, kind = self._state.revision + 1, ChangeKind.SCHEDULE_CANCELLED
        entry = self._linked(LogEntry(revision, kind, by, at, key=key, version=number))
        return Record(self._state.epoch, (Change(entry),)), entry

    def savepoint(self, change: NewSavepoint) -> tuple[Record, LogEntry]:
        """Set, move or remove a savepoint. Raises SavepointConflictError."""
        key, number = change.key, change.version
        there = self._state.savepoints.get(key, {}).get(change.name)
        found = 0 if there is None else there.version
        kept = self._state.versions.get(key, [])
        if number is None:
            has_document = found > 0
        else:
            info = kept[number - 1] if 0 < number <= len(kept) else None
            has_document = info is not None and not info.deleted and info.archived is None
        if found != change.base or not has_document:
            raise SavepointConflictError(key, change.name, found)
        entry = self._linked(
            LogEntry(
                self._state.revision + 1,
                change.kind,
                change.changed_by,
                change.timestamp,
                key=key,
                version=change.entry_version,
                savepoint=change.name,
            )
        )
        return Record(self._state.epoch, (Change(entry),)), entry

    def archive(self, change: NewArchive, draft: Draft | None) -> tuple[Record | None, LogEntry | None]:
        """Archive those versions of ``change`` that may go, beside ``draft``; nothing when none may."""
        key, state = change.key, self._state
        may_go = archivable(state.versions.get(key, []), state.savepoints.get(key, {}).values(), draft, change.before)
        going = tuple(one.version for one in may_go if one.version in set(change.versions))
        if not going:
            return None, None
        by, at = change.archived_by, change.timestamp
        entry = self._linked(LogEntry(state.revision + 1, ChangeKind.ARCHIVED, by, at, key=key, archived=going))
        return Record(state.epoch, (Change(entry),)), entry

    def schema(self, change: NewSchema) -> tuple[Record, StoredSchema]:
        """Append a schema. Raises SchemaConflictError or SealingKeyError."""
        self._require_schema(change.key, change.base)
        documents = {}
        revision = self._state.revision + 1
        if change.schema is not None:
            require_active(self._keys, [change.schema])
            documents[revision] = change.schema
        key, by, at = change.key, change.changed_by, change.timestamp
        info = SchemaInfo(key, change.number, revision, by, at, change.schema is None)
        entry = self._linked(LogEntry(revision, change.kind, by, at, key=key, schema=change.number))
        return Record(self._state.epoch, (Change(entry, info),), documents), schema_of(info, change.schema)

    def token(self, token: NewToken) -> tuple[Record, tuple[StoredToken, LogEntry]]:
        """Create a token under the next id. Raises SealingKeyError."""
        require_active(self._keys, (key.sealed for key in token.keys))
        stored = StoredToken(
            id=len(self._state.tokens) + 1,
            name=token.name,
            secret_hash=token.secret_hash,
            keys=token.keys,
            default_environment=token.default_environment,
            scopes=token.scopes,
            created_by=token.created_by,
            created_at=token.created_at,
            expires_at=token.expires_at,
        )
        return self._about(stored, ChangeKind.TOKEN_CREATED, token.created_by, token.created_at)

    def rotation(self, rotation: KeyRotation) -> tuple[Record | None, tuple[StoredToken, LogEntry] | None]:
        """Give a token other keys; nothing when it is unknown or revoked.

        Raises KeyConflictError; SealingKeyError, though not for keys that the token has already.
        """
        token = self._state.token(rotation.token_id)
        if token is None or token.revoked_at is not None:
            return None, None
        if token.keys != rotation.base:
            raise KeyConflictError(token.id)
        there = {key.sealed for key in token.keys}
        require_active(self._keys, (key.sealed for key in rotation.keys if key.sealed not in there))
        rotated = replace(token, keys=rotation.keys)
        return self._about(rotated, ChangeKind.TOKEN_REKEYED, rotation.rotated_by, rotation.rotated_at)

    def revocation(
        self, token_id: int, revoked_by: int, at: datetime
    ) -> tuple[Record | None, tuple[StoredToken, LogEntry] | None]:
        """Revoke a token; nothing when it is unknown or revoked already."""
        token = self._state.token(token_id)
        if token is None or token.revoked_at is not None:
            return None, None
        return self._about(replace(token, revoked_at=at), ChangeKind.TOKEN_REVOKED, revoked_by, at)

    def keys(self, change: NewKeys, kind: ChangeKind) -> tuple[Record, LogEntry]:
        """Put other keys in place. Raises KeysConflictError, also when a token still needs one that is to go."""
        if change.base != tuple(self._keys):
            raise KeysConflictError
        gone = {key.id for key in change.base} - {key.id for key in change.keys}
        if any(data_key_id(key.sealed) in gone for token in self._state.tokens for key in token.keys):
            raise KeysConflictError
        entry = self._linked(LogEntry(self._state.revision + 1, kind, change.changed_by, change.timestamp))
        return Record(self._state.epoch, (Change(entry),), keys=change.keys, check=change.check), entry

    def _about(
        self, token: StoredToken, kind: ChangeKind, by: int, at: datetime
    ) -> tuple[Record, tuple[StoredToken, LogEntry]]:
        entry = self._linked(LogEntry(self._state.revision + 1, kind, by, at, token_id=token.id))
        return Record(self._state.epoch, (Change(entry),), tokens=(token,)), (token, entry)

    def _linked(self, entry: LogEntry) -> LogEntry:
        if self._link is not None:
            entry = self._link(entry, self._last)
            self._last = entry.link
        return entry

    def _awaited(self, key: ConfigKey, number: int) -> VersionInfo:
        """Return the newest version of ``key`` if it is ``number`` and waits for its moment."""
        kept = self._state.versions.get(key)
        if kept is None or number != len(kept) or not kept[-1].awaited:
            raise ScheduleConflictError(key, number)
        return kept[-1]

    def _require_running(self, key: ConfigKey, expected: int) -> None:
        running = self._state.running(key)
        found = 0 if running is None else running.version
        if found != expected:
            raise RunningConflictError(key, expected, found)

    def _require_schema(self, key: ConfigKey, expected: int) -> None:
        newest = self._state.newest_schema(key)
        if newest != expected:
            raise SchemaConflictError(key, expected, newest)


def require_active(keys: Sequence[WrappedKey], sealed: Iterable[bytes]) -> None:
    """Raise SealingKeyError when a value is sealed under a data key that is not the active one of ``keys``, if any."""
    active = next((key.id for key in keys if key.use is KeyUse.ACTIVE), None)
    if active is not None:
        for value in sealed:
            used = data_key_id(value)
            if used not in {MASTER_KEY_ID, active}:
                raise SealingKeyError(used, active)
