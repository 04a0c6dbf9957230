"""What the store of record keeps: versions, drafts, schemas, the log of changes, tokens and their keys. Pure values.

Documents, schemas and token keys appear here sealed at rest; opening them is the business of ``security``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

from .keys import ConfigKey
from .scopes import Scope


class ChangeKind(str, Enum):
    """What a log entry says has happened."""

    PUBLISHED = "published"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"
    TOKEN_CREATED = "token_created"  # noqa: S105 - not a password
    TOKEN_REKEYED = "token_rekeyed"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    SCHEMA_SET = "schema_set"
    SCHEMA_REMOVED = "schema_removed"
    RESTORED = "restored"
    DATA_KEY_CREATED = "data_key_created"
    DATA_KEYS_DESTROYED = "data_keys_destroyed"
    MASTER_KEY_ROTATED = "master_key_rotated"
    AUDIT_STARTED = "audit_started"
    SCHEDULED = "scheduled"
    ACTIVATED = "activated"
    SCHEDULE_CANCELLED = "schedule_cancelled"
    SAVEPOINT_SET = "savepoint_set"
    SAVEPOINT_REMOVED = "savepoint_removed"
    ARCHIVED = "archived"


VERSION_KINDS: Final = frozenset(
    {ChangeKind.PUBLISHED, ChangeKind.ROLLED_BACK, ChangeKind.DELETED, ChangeKind.SCHEDULED}
)
"""The changes that make a version."""
SERVING_KINDS: Final = frozenset(
    {ChangeKind.PUBLISHED, ChangeKind.ROLLED_BACK, ChangeKind.DELETED, ChangeKind.ACTIVATED}
)
"""The changes by which a version becomes the running one: watchers hear of these and of no others."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version about to be committed, conditional on ``base`` still being the newest one (0: none yet).

    It becomes version ``base + 1``. ``document`` is sealed at rest; None is a tombstone (a delete). With ``schema``:
    also conditional on this being the number of the newest schema of the key (0: it never had one). With ``draft``: it
    publishes the draft that was sealed like this, which is removed in the same transaction. With ``running``: also
    conditional on this being the number of the running version (0: none). With ``valid_from`` it does not run before it
    is activated; ``kind`` is then SCHEDULED, and only then.
    """

    key: ConfigKey
    base: int
    document: bytes | None
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    source_version: int | None = None
    schema: int | None = None
    draft: bytes | None = None
    running: int | None = None
    valid_from: datetime | None = None

    @property
    def version(self) -> int:
        """The number this version takes."""
        return self.base + 1


@dataclass(frozen=True, slots=True)
class Activation:
    """At which revision, and when, a version that was published for later became the running one."""

    revision: int
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version. It never changes. ``document`` is sealed at rest; None is a tombstone.

    A version with ``valid_from`` was published for later: it runs from its ``activation`` on (None: it never did).
    ``cancelled`` is the revision at which its schedule was cancelled by itself; that of an older version also ends
    when a newer one is committed, which needs no mark. ``archived`` is the revision at which its document was archived:
    it is not there any more, and ``document`` is None.
    """

    key: ConfigKey
    version: int
    revision: int
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    document: bytes | None
    source_version: int | None = None
    valid_from: datetime | None = None
    activation: Activation | None = None
    cancelled: int | None = None
    archived: int | None = None

    @property
    def deleted(self) -> bool:
        """Whether this version is a tombstone."""
        return self.document is None and self.archived is None

    @property
    def served(self) -> bool:
        """Whether this version is or was the running one."""
        return self.valid_from is None or self.activation is not None

    @property
    def awaited(self) -> bool:
        """Whether this version is to run later, provided that it is the newest one."""
        return not self.served and self.cancelled is None

    @property
    def info(self) -> VersionInfo:
        """What a history tells of this version."""
        return VersionInfo(
            key=self.key,
            version=self.version,
            revision=self.revision,
            kind=self.kind,
            changed_by=self.changed_by,
            timestamp=self.timestamp,
            deleted=self.deleted,
            source_version=self.source_version,
            valid_from=self.valid_from,
            activation=self.activation,
            cancelled=self.cancelled,
            archived=self.archived,
        )


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """All there is to know of a committed version but its document: a history of large documents stays small."""

    key: ConfigKey
    version: int
    revision: int
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    deleted: bool
    source_version: int | None = None
    valid_from: datetime | None = None
    activation: Activation | None = None
    cancelled: int | None = None
    archived: int | None = None

    @property
    def served(self) -> bool:
        """Whether this version is or was the running one."""
        return self.valid_from is None or self.activation is not None

    @property
    def awaited(self) -> bool:
        """Whether this version is to run later, provided that it is the newest one."""
        return not self.served and self.cancelled is None


class VersionState(str, Enum):
    """How a version stands among those of its config."""

    RUNNING = "running"
    SAVED = "saved"
    SCHEDULED = "scheduled"
    CANCELLED = "cancelled"


def version_states(history: Sequence[VersionInfo]) -> dict[int, VersionState]:
    """Return how each version of ``history``, oldest first and complete, stands. A tombstone that counts is running."""
    running = max((one.version for one in history if one.served), default=0)
    states: dict[int, VersionState] = {}
    for one in history:
        if one.served:
            states[one.version] = VersionState.RUNNING if one.version == running else VersionState.SAVED
        else:
            newest = one.version == history[-1].version
            states[one.version] = VersionState.SCHEDULED if newest and one.awaited else VersionState.CANCELLED
    return states


@dataclass(frozen=True, slots=True)
class NewSavepoint:
    """A name for a version, about to be committed, conditional on ``base`` being the version it stands for (0: none).

    ``version`` None removes the name.
    """

    key: ConfigKey
    name: str
    version: int | None
    base: int
    changed_by: int
    timestamp: datetime

    @property
    def kind(self) -> ChangeKind:
        """What the log says of it."""
        return ChangeKind.SAVEPOINT_REMOVED if self.version is None else ChangeKind.SAVEPOINT_SET

    @property
    def entry_version(self) -> int:
        """The version that the log entry names: the one that the name stands for, or stood for."""
        return self.base if self.version is None else self.version


@dataclass(frozen=True, slots=True)
class Savepoint:
    """A name that stands for a version of a config since ``revision``."""

    key: ConfigKey
    name: str
    version: int
    revision: int
    changed_by: int
    timestamp: datetime

    @classmethod
    def of(cls, entry: LogEntry) -> Savepoint:
        """Return the savepoint that ``entry``, of the kind SAVEPOINT_SET, tells of. Raises ValueError for another."""
        if entry.key is None or entry.savepoint is None or entry.version is None:
            raise ValueError(f"revision {entry.revision} sets no savepoint")
        return cls(entry.key, entry.savepoint, entry.version, entry.revision, entry.changed_by, entry.timestamp)


@dataclass(frozen=True, slots=True)
class NewArchive:
    """Versions of a config whose documents are to be archived, as far as they may be for the cut-off ``before``."""

    key: ConfigKey
    versions: tuple[int, ...]
    before: datetime
    archived_by: int
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to become the next version of a config, made on version ``base`` (0: on nothing).

    ``document`` is sealed at rest. No two seals are alike, so the sealed bytes say which draft is meant.
    """

    key: ConfigKey
    base: int
    document: bytes
    changed_by: int
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class NewSchema:
    """A schema about to be committed, conditional on ``base`` still being the newest one of its key (0: none yet).

    It takes the number ``base + 1``. ``schema`` is sealed at rest; None removes the one before it.
    """

    key: ConfigKey
    base: int
    schema: bytes | None
    changed_by: int
    timestamp: datetime

    @property
    def number(self) -> int:
        """The number this schema takes."""
        return self.base + 1

    @property
    def kind(self) -> ChangeKind:
        """What the log says of it."""
        return ChangeKind.SCHEMA_REMOVED if self.schema is None else ChangeKind.SCHEMA_SET


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """A committed schema. It never changes. ``schema`` is sealed at rest; None: the schema before it was removed."""

    key: ConfigKey
    number: int
    revision: int
    changed_by: int
    timestamp: datetime
    schema: bytes | None

    @property
    def removed(self) -> bool:
        """Whether from here on the config has no schema."""
        return self.schema is None

    @property
    def info(self) -> SchemaInfo:
        """What a history tells of this schema."""
        return SchemaInfo(self.key, self.number, self.revision, self.changed_by, self.timestamp, self.removed)


@dataclass(frozen=True, slots=True)
class SchemaInfo:
    """All there is to know of a committed schema but the schema itself."""

    key: ConfigKey
    number: int
    revision: int
    changed_by: int
    timestamp: datetime
    removed: bool


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change of the store. Revisions have no gaps, and commit order is revision order.

    ``version`` is that of a config, ``schema`` the number of a schema; a change is about one of them or about a token,
    or about the keys of the store. ``audit`` is what else is known of the change, sealed; ``link`` ties the entry to
    all that came before it. Entries made before the log was chained have neither. ``savepoint`` is the name that was
    set to ``version`` or removed from it; ``archived`` are the versions whose documents were archived.
    """

    revision: int
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    key: ConfigKey | None = None
    version: int | None = None
    token_id: int | None = None
    schema: int | None = None
    audit: bytes | None = None
    link: bytes | None = None
    savepoint: str | None = None
    archived: tuple[int, ...] | None = None


Link: TypeAlias = Callable[[LogEntry, bytes | None], LogEntry]
"""Chains the log: returns an entry with its ``audit`` and ``link``, given the link of the last linked entry before it.

A store calls it within the transaction that makes the entry, and knows nothing of what it does. What it raises ends the
transaction: a change whose entry cannot be made does not happen.
"""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the log ends: the newest revision, and the link of the last linked entry (None: there is none)."""

    epoch: str
    revision: int
    link: bytes | None


@dataclass(frozen=True, slots=True, repr=False)
class BesideLog:
    """What a store keeps beside its log and what the log leads to, by which an alteration shows."""

    last_token_id: int
    """The highest id that a token was given; 0: there was none."""
    seal_check: bytes | None
    """The sealed check value of the master key; None: there is none."""
    named: frozenset[ConfigKey]
    """The configs that have savepoints, whether or not they have versions."""


@dataclass(frozen=True, slots=True, repr=False)
class StoredKey:
    """A key of a token, sealed at rest. From ``retires_at`` on (None: never) nothing is sealed with it any more."""

    sealed: bytes
    retires_at: datetime | None = None

    def __repr__(self) -> str:
        return f"StoredKey(retires_at={self.retires_at})"

    def valid_at(self, moment: datetime) -> bool:
        """Tell whether this key has not retired at ``moment``."""
        return self.retires_at is None or moment < self.retires_at


@dataclass(frozen=True, slots=True, repr=False)
class NewToken:
    """A token about to be committed. ``secret_hash`` is SHA-256 of the secret; the newest key comes first."""

    name: str
    secret_hash: bytes
    keys: tuple[StoredKey, ...]
    default_environment: str
    scopes: tuple[Scope, ...]
    created_by: int
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, repr=False)
class StoredToken:
    """A committed token. The newest key comes first."""

    id: int
    name: str
    secret_hash: bytes
    keys: tuple[StoredKey, ...]
    default_environment: str
    scopes: tuple[Scope, ...]
    created_by: int
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def __repr__(self) -> str:
        return f"StoredToken(id={self.id}, name={self.name!r}, scopes={self.scopes})"


@dataclass(frozen=True, slots=True, repr=False)
class KeyRotation:
    """Other keys for a token, conditional on ``base`` still being the ones it has. The newest key comes first."""

    token_id: int
    base: tuple[StoredKey, ...]
    keys: tuple[StoredKey, ...]
    rotated_by: int
    rotated_at: datetime

    def __repr__(self) -> str:
        return f"KeyRotation(token_id={self.token_id}, {len(self.base)} -> {len(self.keys)} keys)"


class KeyUse(str, Enum):
    """What a key of the store is used for."""

    ACTIVE = "active"
    """Seals what is new, and opens. There is one."""
    RETIRED = "retired"
    """Opens only, until nothing is sealed under it any more."""
    CHAIN = "chain"
    """Links and seals the entries of the log. There is one, and it stays."""


@dataclass(frozen=True, slots=True, repr=False)
class WrappedKey:
    """A key as the store keeps it: wrapped under a key that comes from the master key, to which its row is bound."""

    id: int
    use: KeyUse
    wrapped: bytes
    created_at: datetime

    def __repr__(self) -> str:
        return f"WrappedKey(id={self.id}, use={self.use.value})"


@dataclass(frozen=True, slots=True, repr=False)
class SealCheck:
    """The check value by which a store knows its master key again."""

    sealed: bytes


Record = SealCheck | Draft | LogEntry | Version | StoredSchema | StoredToken | WrappedKey
"""All that a store keeps: whoever has these can make the same store again. See ``ConfigStore.restore``."""
