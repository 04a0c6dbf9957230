"""What the store of record keeps: versions, the log of changes, tokens. Pure values.

Documents and token keys appear here sealed at rest; opening them is the business of ``security``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from .keys import ConfigKey
from .scopes import Scope


class ChangeKind(str, Enum):
    """What a log entry says has happened."""

    PUBLISHED = "published"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"
    TOKEN_CREATED = "token_created"  # noqa: S105 - not a password
    TOKEN_REVOKED = "token_revoked"  # noqa: S105


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version about to be committed, conditional on ``base`` still being the newest one (0: none yet).

    It becomes version ``base + 1``. ``document`` is sealed at rest; None is a tombstone (a delete).
    """

    key: ConfigKey
    base: int
    document: bytes | None
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    source_version: int | None = None

    @property
    def version(self) -> int:
        """The number this version takes."""
        return self.base + 1


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version. It never changes. ``document`` is sealed at rest; None is a tombstone."""

    key: ConfigKey
    version: int
    revision: int
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    document: bytes | None
    source_version: int | None = None

    @property
    def deleted(self) -> bool:
        """Whether this version is a tombstone."""
        return self.document is None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change of the store. Revisions have no gaps, and commit order is revision order."""

    revision: int
    kind: ChangeKind
    changed_by: int
    timestamp: datetime
    key: ConfigKey | None = None
    version: int | None = None
    token_id: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class NewToken:
    """A token about to be committed. ``secret_hash`` is SHA-256 of the secret; ``keys`` are sealed at rest."""

    name: str
    secret_hash: bytes
    keys: tuple[bytes, ...]
    default_environment: str
    scopes: tuple[Scope, ...]
    created_by: int
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, repr=False)
class StoredToken:
    """A committed token. The preferred key comes first."""

    id: int
    name: str
    secret_hash: bytes
    keys: tuple[bytes, ...]
    default_environment: str
    scopes: tuple[Scope, ...]
    created_by: int
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def __repr__(self) -> str:
        return f"StoredToken(id={self.id}, name={self.name!r}, scopes={self.scopes})"
