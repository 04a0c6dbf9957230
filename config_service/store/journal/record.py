"""What one commit made, as one record, and its spelling in plain fields: numbers, text, bytes, lists, mappings. Pure.

A record stands for one or more consecutive revisions and bears the first of them as its number. It tells the log entry
of every change and what was made; the sealed documents stand apart, so that a record can be read without them. Where a
spelling knows no bytes, as JSON does not, they are Base64 (RFC 4648 section 4) and read back from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from config_client.protocol import format_timestamp, parse_timestamp

from ...domain.errors import InvalidRequestError, StoreCorruptError
from ...domain.keys import ConfigKey
from ...domain.records import (
    ChangeKind,
    KeyUse,
    LogEntry,
    SchemaInfo,
    StoredKey,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from ...domain.scopes import Scope
from .fields import Fields, moment_fields

Made: TypeAlias = VersionInfo | SchemaInfo
"""What a change made: a version or a schema, without its document."""

DOCUMENTS: Final = "documents"
"""The field that holds all the documents of a record, and may be left out when it is read."""
MALFORMED: Final = (ValueError, TypeError, KeyError, AttributeError, OverflowError, InvalidRequestError)


@dataclass(frozen=True, slots=True)
class Change:
    """One revision: its log entry and what it made. ``draft``: the SHA-256 of the sealed draft that it published."""

    entry: LogEntry
    made: Made | None = None
    draft: bytes | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Record:
    """One commit: the changes of consecutive revisions, the sealed document of each revision that has one, and tokens.

    ``tokens``, and ``keys`` and the ``check`` value of the master key (None: unchanged), are as they are from the last
    of these revisions on.
    """

    epoch: str
    changes: tuple[Change, ...]
    documents: Mapping[int, bytes] = field(default_factory=dict)
    tokens: tuple[StoredToken, ...] = ()
    keys: tuple[WrappedKey, ...] | None = None
    check: bytes | None = None
    edition: int = field(default=0, compare=False)
    """How often the record was amended, where several may do so."""

    def __repr__(self) -> str:
        return f"Record({self.number} to {self.last})"

    @property
    def number(self) -> int:
        """The first revision of the record, which no other record has."""
        return self.changes[0].entry.revision

    @property
    def last(self) -> int:
        """The last revision of the record; the next record begins after it."""
        return self.changes[-1].entry.revision


def version_of(info: VersionInfo, document: bytes | None) -> Version:
    """Return the version that ``info`` tells of, with its document."""
    return Version(
        key=info.key,
        version=info.version,
        revision=info.revision,
        kind=info.kind,
        changed_by=info.changed_by,
        timestamp=info.timestamp,
        document=document,
        source_version=info.source_version,
        valid_from=info.valid_from,
        activation=info.activation,
        cancelled=info.cancelled,
        archived=info.archived,
    )


def schema_of(info: SchemaInfo, schema: bytes | None) -> StoredSchema:
    """Return the schema that ``info`` tells of, with what it says."""
    return StoredSchema(info.key, info.number, info.revision, info.changed_by, info.timestamp, schema)


def record_fields(record: Record) -> dict[str, object]:
    """Return the spelling of ``record``.

    Raises InvalidRequestError for the scope of a token whose spelling would not be read back.
    """
    return {
        "revision": record.number,
        "epoch": record.epoch,
        "changes": [_change_fields(change) for change in record.changes],
        **({"tokens": [_token_fields(token) for token in record.tokens]} if record.tokens else {}),
        **({} if record.keys is None else keys_fields(record.keys)),
        **({} if record.check is None else {"check": record.check}),
        DOCUMENTS: {str(revision): document for revision, document in record.documents.items()},
    }


def read_record(given: Mapping[str, object], number: int) -> Record:
    """Return the record ``number`` from its spelling, with or without documents.

    Raises StoreCorruptError, which names the record and none of its content.
    """
    try:
        fields = Fields(given)
        changes = tuple(_read_change(one) for one in fields.many("changes"))
        tokens = tuple(_read_token(one) for one in fields.many("tokens")) if "tokens" in given else ()
        keys = read_keys(fields) if "keys" in given else None
        documents = fields.one(DOCUMENTS) if DOCUMENTS in given else Fields({})
        record = Record(
            epoch=fields.text("epoch"),
            changes=changes,
            documents={int(revision): documents.binary(revision) for revision in documents},
            tokens=tokens,
            keys=keys,
            check=fields.binary_or_none("check"),
        )
        expected = list(range(number, number + len(changes)))
        if (
            changes
            and [change.entry.revision for change in changes] == expected
            and fields.number("revision") == number
        ):
            return record
    except MALFORMED:
        pass
    raise damaged(f"the record of revision {number}")


def as_kept(record: Record) -> Record:
    """Return ``record`` as it will be read, without its documents: times in UTC, say."""
    return read_record({**record_fields(record), DOCUMENTS: {}}, record.number)


def damaged(what: str) -> StoreCorruptError:
    """Return the error for something that cannot be read."""
    return StoreCorruptError(f"{what} cannot be read: the store is damaged; restore it from a backup")


def key_fields(key: ConfigKey) -> dict[str, object]:
    """Return the fields that identify ``key``."""
    return {"name": key.name, "environment": key.environment, "label": key.label}


def read_key(fields: Fields) -> ConfigKey:
    """Return the key that ``fields`` identify."""
    return ConfigKey(fields.text("name"), fields.text("environment"), fields.text("label"))


def keys_fields(keys: tuple[WrappedKey, ...]) -> dict[str, object]:
    """Return the field that keeps the keys of a store."""
    return {
        "keys": [
            {
                "id": key.id,
                "use": key.use.value,
                "wrapped": key.wrapped,
                "created_at": format_timestamp(key.created_at),
            }
            for key in keys
        ]
    }


def read_keys(fields: Fields) -> tuple[WrappedKey, ...]:
    """Return the keys that ``keys_fields`` spelled."""
    return tuple(
        WrappedKey(
            one.number("id"),
            KeyUse(one.text("use")),
            one.binary("wrapped"),
            parse_timestamp(one.text("created_at")),
        )
        for one in fields.many("keys")
    )


def _change_fields(change: Change) -> dict[str, object]:
    """Return the spelling of a change. What does not apply is left out."""
    entry, made = change.entry, change.made
    fields: dict[str, object] = {
        "revision": entry.revision,
        "kind": entry.kind.value,
        "changed_by": entry.changed_by,
        "timestamp": format_timestamp(entry.timestamp),
        **(key_fields(entry.key) if entry.key else {}),
        "version": entry.version,
        "schema": entry.schema,
        "token_id": entry.token_id,
        "audit": entry.audit,
        "link": entry.link,
        "savepoint": entry.savepoint,
        "archived": None if entry.archived is None else list(entry.archived),
    }
    if isinstance(made, VersionInfo):
        # Whether it was activated or cancelled later is told by later changes.
        fields |= {"deleted": made.deleted, "source_version": made.source_version, "published_draft": change.draft}
        fields |= moment_fields(valid_from=made.valid_from)
    elif isinstance(made, SchemaInfo):
        fields |= {"removed": made.removed}
    return {name: value for name, value in fields.items() if value is not None}


def _read_change(fields: Fields) -> Change:
    key = read_key(fields) if "name" in fields else None
    version, schema = fields.number_or_none("version"), fields.number_or_none("schema")
    entry = LogEntry(
        revision=fields.number("revision"),
        kind=ChangeKind(fields.text("kind")),
        changed_by=fields.number("changed_by"),
        timestamp=parse_timestamp(fields.text("timestamp")),
        key=key,
        version=version,
        token_id=fields.number_or_none("token_id"),
        schema=schema,
        audit=fields.binary_or_none("audit"),
        link=fields.binary_or_none("link"),
        savepoint=fields.text("savepoint") if "savepoint" in fields else None,
        archived=tuple(fields.numbers("archived")) if "archived" in fields else None,
    )
    made: Made | None = None
    if key is not None and version is not None and "deleted" in fields:
        made = VersionInfo(
            key=key,
            version=version,
            revision=entry.revision,
            kind=entry.kind,
            changed_by=entry.changed_by,
            timestamp=entry.timestamp,
            deleted=fields.flag("deleted"),
            source_version=fields.number_or_none("source_version"),
            valid_from=fields.moment_or_none("valid_from"),
        )
    elif key is not None and schema is not None and "removed" in fields:
        made = SchemaInfo(key, schema, entry.revision, entry.changed_by, entry.timestamp, fields.flag("removed"))
    return Change(entry, made, fields.binary_or_none("published_draft"))


def _token_fields(token: StoredToken) -> dict[str, object]:
    spellings = [str(scope) for scope in token.scopes]
    for spelling in spellings:
        Scope.parse(spelling)
    return {
        "id": token.id,
        "name": token.name,
        "secret_hash": token.secret_hash,
        "keys": [{"sealed": key.sealed, **moment_fields(retires_at=key.retires_at)} for key in token.keys],
        "default_environment": token.default_environment,
        "scopes": spellings,
        "created_by": token.created_by,
        "created_at": format_timestamp(token.created_at),
        **moment_fields(expires_at=token.expires_at, revoked_at=token.revoked_at),
    }


def _read_token(fields: Fields) -> StoredToken:
    return StoredToken(
        id=fields.number("id"),
        name=fields.text("name"),
        secret_hash=fields.binary("secret_hash"),
        keys=tuple(StoredKey(key.binary("sealed"), key.moment_or_none("retires_at")) for key in fields.many("keys")),
        default_environment=fields.text("default_environment"),
        scopes=tuple(Scope.parse(spelling) for spelling in fields.texts("scopes")),
        created_by=fields.number("created_by"),
        created_at=parse_timestamp(fields.text("created_at")),
        expires_at=fields.moment_or_none("expires_at"),
        revoked_at=fields.moment_or_none("revoked_at"),
    )
