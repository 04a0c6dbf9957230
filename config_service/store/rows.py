"""Records of the domain ↔ rows of ``schema``. Pure: runs no statement.

A row that cannot be read back means a damaged file: StoreCorruptError, which names the row and none of its content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import RowMapping

from config_client.protocol import Position, format_timestamp, parse_timestamp

from ..domain.errors import InvalidRequestError, StoreCorruptError
from ..domain.keys import ConfigKey
from ..domain.records import (
    Activation,
    ChangeKind,
    Draft,
    Head,
    KeyUse,
    LogEntry,
    NewSchema,
    NewToken,
    NewVersion,
    Savepoint,
    SchemaInfo,
    StoredKey,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from ..domain.scopes import Scope

_ABOUT_SCHEMAS: Final = frozenset({ChangeKind.SCHEMA_SET, ChangeKind.SCHEMA_REMOVED})
"""Kinds of log entries whose column ``version`` holds the number of a schema."""
_ABOUT_SAVEPOINTS: Final = frozenset({ChangeKind.SAVEPOINT_SET, ChangeKind.SAVEPOINT_REMOVED})
_MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError, InvalidRequestError)


_KINDS: Final[Mapping[type[object], str]] = {bytes: "bytes", int: "number", str: "text"}

T = TypeVar("T")


def key_values(key: ConfigKey) -> dict[str, object]:
    """Return the columns that identify ``key``."""
    return {"name": key.name, "environment": key.environment, "label": key.label}


def version_values(version: Version) -> dict[str, object]:
    """Return the row of ``versions`` that keeps ``version``."""
    return {
        **key_values(version.key),
        "version": version.version,
        "revision": version.revision,
        "kind": version.kind.value,
        "changed_by": version.changed_by,
        "timestamp": format_timestamp(version.timestamp),
        "source_version": version.source_version,
        "valid_from": _text_or_none(version.valid_from),
        "activated": None if version.activation is None else version.activation.revision,
        "activated_at": None if version.activation is None else format_timestamp(version.activation.timestamp),
        "cancelled": version.cancelled,
        "archived": version.archived,
        "document": version.document,
    }


def log_values(entry: LogEntry) -> dict[str, object]:
    """Return the row of ``log`` that keeps ``entry``."""
    key = entry.key
    return {
        "revision": entry.revision,
        "kind": entry.kind.value,
        "changed_by": entry.changed_by,
        "timestamp": format_timestamp(entry.timestamp),
        "name": key.name if key else None,
        "environment": key.environment if key else None,
        "label": key.label if key else None,
        "version": entry.version if entry.schema is None else entry.schema,
        "token_id": entry.token_id,
        "audit": entry.audit,
        "link": entry.link,
        "about": _about(entry),
    }


def token_values(token: StoredToken) -> dict[str, object]:
    """Return the row of ``tokens`` that keeps ``token``.

    Raises InvalidRequestError for a scope whose spelling would not be read back.
    """
    spellings = [str(scope) for scope in token.scopes]
    for spelling in spellings:
        Scope.parse(spelling)
    return {
        "id": token.id,
        "name": token.name,
        "secret_hash": token.secret_hash,
        "keys": keys_text(token.keys),
        "default_environment": token.default_environment,
        "scopes": json.dumps(spellings),
        "created_by": token.created_by,
        "created_at": format_timestamp(token.created_at),
        "expires_at": _text_or_none(token.expires_at),
        "revoked_at": _text_or_none(token.revoked_at),
    }


def keys_text(keys: Iterable[StoredKey]) -> str:
    """Return what the column ``keys`` of ``tokens`` holds."""
    return json.dumps([{"sealed": key.sealed.hex(), "retires_at": _text_or_none(key.retires_at)} for key in keys])


def committed_version(change: NewVersion, revision: int) -> Version:
    """Return ``change`` as the version it becomes at ``revision``."""
    return Version(
        key=change.key,
        version=change.version,
        revision=revision,
        kind=change.kind,
        changed_by=change.changed_by,
        timestamp=change.timestamp,
        document=change.document,
        source_version=change.source_version,
        valid_from=change.valid_from,
    )


def committed_token(token: NewToken, token_id: int) -> StoredToken:
    """Return ``token`` as it is kept under ``token_id``."""
    return StoredToken(
        id=token_id,
        name=token.name,
        secret_hash=token.secret_hash,
        keys=token.keys,
        default_environment=token.default_environment,
        scopes=token.scopes,
        created_by=token.created_by,
        created_at=token.created_at,
        expires_at=token.expires_at,
    )


def read_version(row: RowMapping) -> Version:
    """Return the version that a row of ``versions`` keeps. Raises StoreCorruptError."""
    try:
        return Version(
            key=_key(row),
            version=_number(row["version"]),
            revision=_number(row["revision"]),
            kind=ChangeKind(row["kind"]),
            changed_by=_number(row["changed_by"]),
            timestamp=parse_timestamp(row["timestamp"]),
            document=_bytes_or_none(row["document"]),
            source_version=_number_or_none(row["source_version"]),
            valid_from=_timestamp_or_none(row["valid_from"]),
            activation=_activation_or_none(row),
            cancelled=_number_or_none(row["cancelled"]),
            archived=_number_or_none(row["archived"]),
        )
    except _MALFORMED:
        pass
    raise _damaged(f"the version of revision {row['revision']}")


def read_version_info(row: RowMapping) -> VersionInfo:
    """Return what a row of ``versions`` without its document tells, ``deleted`` in its place.

    Raises StoreCorruptError.
    """
    try:
        return VersionInfo(
            key=_key(row),
            version=_number(row["version"]),
            revision=_number(row["revision"]),
            kind=ChangeKind(row["kind"]),
            changed_by=_number(row["changed_by"]),
            timestamp=parse_timestamp(row["timestamp"]),
            deleted=bool(row["deleted"]),
            source_version=_number_or_none(row["source_version"]),
            valid_from=_timestamp_or_none(row["valid_from"]),
            activation=_activation_or_none(row),
            cancelled=_number_or_none(row["cancelled"]),
            archived=_number_or_none(row["archived"]),
        )
    except _MALFORMED:
        pass
    raise _damaged(f"the version of revision {row['revision']}")


def read_log_entry(row: RowMapping) -> LogEntry:
    """Return the entry that a row of ``log`` keeps. Raises StoreCorruptError."""
    try:
        kind = ChangeKind(row["kind"])
        about_schema = kind in _ABOUT_SCHEMAS
        entry = LogEntry(
            revision=row["revision"],
            kind=kind,
            changed_by=row["changed_by"],
            timestamp=parse_timestamp(row["timestamp"]),
            key=None if row["name"] is None else _key(row),
            version=None if about_schema else row["version"],
            token_id=row["token_id"],
            schema=row["version"] if about_schema else None,
            audit=_bytes_or_none(row["audit"]),
            link=_bytes_or_none(row["link"]),
            savepoint=row["about"] if kind in _ABOUT_SAVEPOINTS else None,
            archived=_numbers(row["about"]) if kind is ChangeKind.ARCHIVED else None,
        )
        if _says_no_more(row, entry):
            return entry
    except _MALFORMED:
        pass
    raise _damaged(f"the log entry of revision {row['revision']}")


def draft_values(draft: Draft) -> dict[str, object]:
    """Return the row of ``drafts`` that keeps ``draft``."""
    return {
        **key_values(draft.key),
        "base": draft.base,
        "changed_by": draft.changed_by,
        "timestamp": format_timestamp(draft.timestamp),
        "document": draft.document,
    }


def schema_values(schema: StoredSchema) -> dict[str, object]:
    """Return the row of ``schemas`` that keeps ``schema``."""
    return {
        **key_values(schema.key),
        "number": schema.number,
        "revision": schema.revision,
        "changed_by": schema.changed_by,
        "timestamp": format_timestamp(schema.timestamp),
        "schema": schema.schema,
    }


def committed_schema(change: NewSchema, revision: int) -> StoredSchema:
    """Return ``change`` as the schema it becomes at ``revision``."""
    return StoredSchema(change.key, change.number, revision, change.changed_by, change.timestamp, change.schema)


def read_draft(row: RowMapping) -> Draft:
    """Return the draft that a row of ``drafts`` keeps. Raises StoreCorruptError."""
    try:
        return Draft(
            key=_key(row),
            base=_natural(row["base"]),
            document=_bytes(row["document"]),
            changed_by=_number(row["changed_by"]),
            timestamp=parse_timestamp(row["timestamp"]),
        )
    except _MALFORMED:
        pass
    raise _damaged("a draft")


def read_schema(row: RowMapping) -> StoredSchema:
    """Return the schema that a row of ``schemas`` keeps. Raises StoreCorruptError."""
    try:
        return StoredSchema(
            key=_key(row),
            number=_number(row["number"]),
            revision=_number(row["revision"]),
            changed_by=_number(row["changed_by"]),
            timestamp=parse_timestamp(row["timestamp"]),
            schema=_bytes_or_none(row["schema"]),
        )
    except _MALFORMED:
        pass
    raise _damaged(f"the schema of revision {row['revision']}")


def read_schema_info(row: RowMapping) -> SchemaInfo:
    """Return what a row of ``schemas`` tells with ``removed`` in the place of its schema. Raises StoreCorruptError."""
    try:
        return SchemaInfo(
            key=_key(row),
            number=_number(row["number"]),
            revision=_number(row["revision"]),
            changed_by=_number(row["changed_by"]),
            timestamp=parse_timestamp(row["timestamp"]),
            removed=bool(row["removed"]),
        )
    except _MALFORMED:
        pass
    raise _damaged(f"the schema of revision {row['revision']}")


def read_token(row: RowMapping) -> StoredToken:
    """Return the token that a row of ``tokens`` keeps. Raises StoreCorruptError."""
    secret_hash = _in_column("tokens.secret_hash", row["secret_hash"], bytes, f" of token {row['id']}")
    try:
        return StoredToken(
            id=row["id"],
            name=_text(row["name"]),
            secret_hash=secret_hash,
            keys=tuple(
                StoredKey(bytes.fromhex(key["sealed"]), _timestamp_or_none(key["retires_at"]))
                for key in json.loads(row["keys"])
            ),
            default_environment=_text(row["default_environment"]),
            scopes=tuple(Scope.parse(spelling) for spelling in json.loads(row["scopes"])),
            created_by=_number(row["created_by"]),
            created_at=parse_timestamp(row["created_at"]),
            expires_at=_timestamp_or_none(row["expires_at"]),
            revoked_at=_timestamp_or_none(row["revoked_at"]),
        )
    except _MALFORMED:
        pass
    raise _damaged(f"token {row['id']}")


def data_key_values(key: WrappedKey) -> dict[str, object]:
    """Return the row of ``data_keys`` that keeps ``key``."""
    return {
        "id": key.id,
        "use": key.use.value,
        "wrapped": key.wrapped,
        "created_at": format_timestamp(key.created_at),
    }


def read_data_key(row: RowMapping) -> WrappedKey:
    """Return the key that a row of ``data_keys`` keeps. Raises StoreCorruptError."""
    try:
        return WrappedKey(
            _natural(row["id"]), KeyUse(row["use"]), _bytes(row["wrapped"]), parse_timestamp(row["created_at"])
        )
    except _MALFORMED:
        pass
    raise _damaged(f"data key {row['id']}")


def savepoint_values(savepoint: Savepoint) -> dict[str, object]:
    """Return the row of ``savepoints`` that keeps ``savepoint``."""
    return {
        **key_values(savepoint.key),
        "savepoint": savepoint.name,
        "version": savepoint.version,
        "revision": savepoint.revision,
        "changed_by": savepoint.changed_by,
        "timestamp": format_timestamp(savepoint.timestamp),
    }


def read_savepoint(row: RowMapping) -> Savepoint:
    """Return the savepoint that a row of ``savepoints`` keeps. Raises StoreCorruptError."""
    try:
        return Savepoint(
            key=_key(row),
            name=row["savepoint"],
            version=_number(row["version"]),
            revision=_number(row["revision"]),
            changed_by=_number(row["changed_by"]),
            timestamp=parse_timestamp(row["timestamp"]),
        )
    except _MALFORMED:
        pass
    raise _damaged(f"the savepoint of revision {row['revision']}")


def read_position(row: RowMapping) -> Position:
    """Return where the row of ``history`` says that the log ends. Raises StoreCorruptError, which names the column."""
    return Position(
        _in_column("history.epoch", row["epoch"], str), _in_column("history.revision", row["revision"], int)
    )


def read_head(row: RowMapping) -> Head:
    """Return the same with the newest link. Raises StoreCorruptError, which names the column."""
    position = read_position(row)
    return Head(position.epoch, position.revision, read_link(row["link"]))


def read_link(value: object) -> bytes | None:
    """Return what the column ``link`` of ``history`` holds. Raises StoreCorruptError."""
    return None if value is None else _in_column("history.link", value, bytes)


def read_check(value: object) -> bytes | None:
    """Return what the column ``seal_check`` of ``history`` holds. Raises StoreCorruptError."""
    return None if value is None else _in_column("history.seal_check", value, bytes)


def read_last_token_id(value: object) -> int:
    """Return what the column ``last_token_id`` of ``history`` holds. Raises StoreCorruptError."""
    return _in_column("history.last_token_id", value, int)


def read_named(row: RowMapping) -> ConfigKey:
    """Return the config that a row of ``savepoints`` is of. Raises StoreCorruptError."""
    try:
        return _key(row)
    except _MALFORMED:
        pass
    raise _damaged("the config of a savepoint")


def _about(entry: LogEntry) -> str | None:
    return entry.savepoint if entry.archived is None else ",".join(map(str, entry.archived))


def _says_no_more(row: RowMapping, entry: LogEntry) -> bool:
    """Tell whether ``row`` is what ``entry`` is kept as: what the entry does not hold, its link does not cover."""
    for number in (entry.revision, entry.changed_by, entry.version, entry.schema, entry.token_id):
        _number_or_none(number)
    return all(row[column] == value for column, value in log_values(entry).items())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _activation_or_none(row: RowMapping) -> Activation | None:
    if row["activated"] is None and row["activated_at"] is None:
        return None
    return Activation(_number(row["activated"]), parse_timestamp(row["activated_at"]))


def _number(value: object) -> int:
    if isinstance(value, int):
        return value
    raise TypeError("expected a number")


def _key(row: RowMapping) -> ConfigKey:
    return ConfigKey(_text(row["name"]), _text(row["environment"]), _text(row["label"]))


def _natural(value: object) -> int:
    if _number(value) < 0:
        raise ValueError("expected no number below 0")
    return _number(value)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("expected text")


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError("expected bytes")


def _number_or_none(value: object) -> int | None:
    return None if value is None else _number(value)


def _text_or_none(moment: datetime | None) -> str | None:
    return None if moment is None else format_timestamp(moment)


def _timestamp_or_none(text: str | None) -> datetime | None:
    return None if text is None else parse_timestamp(text)


def _bytes_or_none(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    raise TypeError("expected bytes")


def _in_column(column: str, value: object, kind: type[T], of: str = "") -> T:
    """Return ``value``, which SQLite lets be of any kind, whatever the column was made for."""
    if isinstance(value, kind):
        return value
    raise StoreCorruptError(
        f"{column}{of} holds no {_KINDS[kind]}: the store was damaged or altered; restore it from a backup"
    )


def _damaged(what: str) -> StoreCorruptError:
    return StoreCorruptError(f"{what} cannot be read: the store is damaged; restore it from a backup")
