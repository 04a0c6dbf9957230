"""What the service asks of a store of record. Knows no SQL, no HTTP and no key.

A store keeps what it is given, sealed. Every implementation passes ``config_service.testing.StoreContract``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Protocol

from config_client.protocol import Position

from ..domain.errors import InvalidRequestError
from ..domain.keys import ConfigKey
from ..domain.records import (
    BesideLog,
    Draft,
    Head,
    KeyRotation,
    Link,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    Record,
    Savepoint,
    SchemaInfo,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from ..domain.sealing import NewKeys, Resealed, SealedPlace, SealedValue


class StoreConflictError(Exception):
    """Base of what a change meets whose condition does not hold any more; nothing was changed."""


class ConfigConflictError(StoreConflictError):
    """A condition on the config ``key`` does not hold any more."""

    def __init__(self, key: ConfigKey, fault: str) -> None:
        super().__init__(f"{key}: {fault}")
        self.key = key


class VersionConflictError(ConfigConflictError):
    """The newest version of the key is not the one the commit was conditional on."""

    def __init__(self, key: ConfigKey, base: int, newest: int) -> None:
        super().__init__(key, f"newest version is {newest}, the change was made on {base}")
        self.newest = newest


class SchemaConflictError(ConfigConflictError):
    """The newest schema of the key is not the one the commit was conditional on."""

    def __init__(self, key: ConfigKey, base: int, newest: int) -> None:
        super().__init__(key, f"newest schema is {newest}, the change was made under {base}")
        self.newest = newest


class DraftConflictError(ConfigConflictError):
    """The draft of the key is not the one the change was conditional on."""

    def __init__(self, key: ConfigKey) -> None:
        super().__init__(key, "its draft was changed meanwhile")


class RunningConflictError(ConfigConflictError):
    """The running version of the key is not the one the commit was conditional on: a schedule came due meanwhile."""

    def __init__(self, key: ConfigKey, wanted: int, running: int) -> None:
        super().__init__(key, f"version {running} is running (0: none), the change was made while {wanted} was")
        self.running = running


class ScheduleConflictError(ConfigConflictError):
    """The version does not wait for its moment any more: it runs, was cancelled, or a newer one was committed."""

    def __init__(self, key: ConfigKey, version: int) -> None:
        super().__init__(key, f"version {version} does not wait for its moment any more")


class SavepointConflictError(ConfigConflictError):
    """The name stands for another version than the change was conditional on, or the version has no document."""

    def __init__(self, key: ConfigKey, name: str, found: int) -> None:
        super().__init__(key, f"savepoint {name} stands for version {found} (0: none), or its version is not there")
        self.found = found


class KeyConflictError(StoreConflictError):
    """The keys of the token are not those that the rotation was made on."""

    def __init__(self, token_id: int) -> None:
        super().__init__(f"token {token_id}: its keys were changed meanwhile")


class StoreNotEmptyError(StoreConflictError):
    """The store holds something already, so nothing may be restored into it."""

    def __init__(self) -> None:
        super().__init__("the store is not empty; a backup is restored into a new store only, and nothing was changed")


def check_distinct(changes: Iterable[NewVersion]) -> None:
    """Return when no key comes twice in ``changes``, else raise InvalidRequestError: each store's first check."""
    seen: set[ConfigKey] = set()
    for change in changes:
        if change.key in seen:
            raise InvalidRequestError(f"{change.key} was named twice; one commit makes at most one version of a config")
        seen.add(change.key)


class KeysConflictError(StoreConflictError):
    """The keys of the store are not those that the change was made on."""

    def __init__(self) -> None:
        super().__init__("the keys of the store were changed meanwhile")


class SealingKeyError(StoreConflictError):
    """A new value is sealed under a data key that is not the active one: who sealed it has not heard of a rotation."""

    def __init__(self, used: int, active: int) -> None:
        super().__init__(f"sealed under data key {used}; what is new is sealed under data key {active}")


class ConfigStore(Protocol):
    """The memory of record: an append-only log, every version and schema of every config, its draft, and the tokens.

    Laws, each proved by the contract suite:

    - A commit is one transaction: version, revision and log entry become durable together, before the call returns.
    - Revisions are 1, 2, 3 … without gaps within an epoch, and commit order is revision order.
    - A committed version or schema never changes and is never lost: what it says, and all that is told of it. Its
      sealed bytes may be replaced by the same sealed anew (``reseal``).
    - The running version of a key is the newest one that is served. A version published for later is served from its
      activation on, a change of its own; only the newest version of a key can be activated, once.
    - A document goes by an archive alone, a change of its own. What is archived is told as such for good.
    - A draft is durable like them, but takes no revision: nobody is served one.
    - Every commit takes a ``link``, which it calls within the transaction with the entry that is about to be logged and
      the link of the last linked entry before it (None: there is none). What that returns is kept as the entry; what
      that raises is raised, and nothing has happened. Without one the entry is logged as it is.
    - Once the store has keys, a new value that is sealed under a data key (``data_key_id``) is refused with
      SealingKeyError unless that key is the active one. So nothing new is sealed under a retired key, whoever writes.
    - Any failure raises a ``domain.errors.StoreError`` and leaves the store as it was.

    All methods may be called from one event loop, concurrently.
    """

    async def open(self) -> None:
        """Open the store, creating or migrating it as needed, and take its lock.

        Raises StoreLockedError, StoreCorruptError or StoreError.
        """

    async def close(self) -> None:
        """Release everything. Closing twice is allowed."""

    @property
    def shared(self) -> bool:
        """Whether other processes may commit to this store while it is open. Then whoever serves it follows the log."""

    async def changed(self, timeout: float) -> None:
        """Return when another process may have committed something, after ``timeout`` seconds at the latest.

        A hint, which may come late, or for nothing: what happened stands in the log.
        """

    async def position(self) -> Position:
        """Return the epoch and the newest revision (0 in a new store)."""

    async def head(self) -> Head:
        """Return epoch, newest revision and newest link, as of one moment."""

    async def beside_log(self) -> BesideLog:
        """Return what the store keeps beside its log: the last token id, the check value, the configs with savepoints.

        Changes nothing.
        """

    async def seal_check(self, candidate: bytes) -> bytes:
        """Return the sealed check value of this store; a store that has none yet keeps ``candidate`` and returns it."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        """Append a version; a draft that it publishes is gone with the same transaction.

        Raises VersionConflictError when ``change.base`` is not the newest version of its key; SchemaConflictError when
        ``change.schema`` is given and not the number of its newest schema; DraftConflictError when ``change.draft`` is
        given and not what its draft is; RunningConflictError when ``change.running`` is given and not what runs.
        """

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        """Append several versions in one transaction: all of them or none, at consecutive revisions in their order.

        Each is conditional as for ``commit_version``, and what one of them raises, whose ``key`` it names, refuses all.
        Raises InvalidRequestError when a key comes twice. No changes make no transaction.
        """

    async def activate_version(self, key: ConfigKey, number: int, at: datetime, link: Link | None = None) -> Version:
        """Make version ``number``, published for later, the running one from ``at`` on, by a log entry of its own.

        The entry names the author of the version as its author. Of activations at once, by whichever process, exactly
        one is made. Raises ScheduleConflictError when the version is not the newest one of ``key``, was not published
        for later, is activated already, or was cancelled.
        """

    async def cancel_schedule(
        self, key: ConfigKey, number: int, cancelled_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry:
        """Note that version ``number`` is never to run by itself. Raises what ``activate_version`` raises."""

    async def commit_savepoint(self, change: NewSavepoint, link: Link | None = None) -> LogEntry:
        """Give a version a name, move the name, or remove it.

        Raises SavepointConflictError when the name does not stand for ``change.base``, or there is no such version, or
        it has no document, as a tombstone or an archived one.
        """

    async def savepoints(self, key: ConfigKey) -> list[Savepoint]:
        """Return the savepoints of ``key``, by name."""

    async def archive_versions(self, change: NewArchive, link: Link | None = None) -> LogEntry | None:
        """Remove the documents of those versions of ``change`` that may go, for good; versions and log entries stay.

        Which may go is told by ``domain.archiving.archivable`` at this very moment. The entry says which went. Returns
        None, and takes no revision, when none may.
        """

    async def commit_schema(self, change: NewSchema, link: Link | None = None) -> StoredSchema:
        """Append a schema. Raises SchemaConflictError when ``change.base`` is not the newest one of its key."""

    async def draft(self, key: ConfigKey) -> Draft | None:
        """Return the draft of ``key``, or None."""

    def drafts(self) -> AsyncIterator[Draft]:
        """Yield the draft of every key that has one, ordered by key. Each is as it is when its page is read."""

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        """Make ``after`` the draft of ``key``; None leaves it without one. Takes no revision.

        Raises DraftConflictError when the draft there is was not sealed as ``before`` (None: there is none).
        """

    async def commit_token(self, token: NewToken, link: Link | None = None) -> tuple[StoredToken, LogEntry]:
        """Append a token; ids count from 1 and are never used again."""

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        """Give a token other keys. Returns None when there is none of that id, or it is revoked.

        Raises KeyConflictError when ``rotation.base`` is not what its keys are: of two rotations at a time one has to
        begin again, so that neither loses the other's key.
        """

    async def revoke_token(
        self, token_id: int, revoked_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry | None:
        """Mark a token revoked. Returns None when there is none of that id, or it is revoked already."""

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        """Return at most ``limit`` entries with a revision above ``after``, in order."""

    def newest_versions(self) -> AsyncIterator[Version]:
        """Yield the newest version of every key, tombstones and those that are not served yet included."""

    async def running_version(self, key: ConfigKey) -> Version | None:
        """Return the newest version of ``key`` that is served, tombstones included, or None."""

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        """Return every version of ``key`` without its document, oldest first; empty when there is none."""

    async def version(self, key: ConfigKey, number: int) -> Version | None:
        """Return one version of ``key``, or None."""

    def newest_schemas(self) -> AsyncIterator[StoredSchema]:
        """Yield the newest schema of every key that ever had one, removals included."""

    async def schemas(self, key: ConfigKey) -> list[SchemaInfo]:
        """Return every schema of ``key`` without what it says, oldest first; empty when there is none."""

    async def schema(self, key: ConfigKey, number: int) -> StoredSchema | None:
        """Return one schema of ``key``, which may be a removal, or None."""

    async def tokens(self) -> list[StoredToken]:
        """Return every token, revoked ones included, by id."""

    async def token(self, token_id: int) -> StoredToken | None:
        """Return one token, which may be revoked, or None."""

    async def restore(self, records: AsyncIterator[Record], epoch: str) -> Position:
        """Become the store that ``records`` tell, in ``epoch``, and return the position: all of it or nothing.

        The records come in this order: check values, keys, drafts, then every log entry in the order of revisions with
        what it made right behind it, then everything that changes without a trace of what it was before (tokens). They
        are taken one by one: a store is larger than memory. Nothing is checked beyond what the store itself relies on.

        Raises StoreNotEmptyError when there was ever a change or a draft here; whatever ``records`` raises; StoreError.
        Then nothing was changed.
        """

    async def keys(self) -> tuple[WrappedKey, ...]:
        """Return every key of the store, by id; none before it was given its first ones."""

    async def commit_keys(self, change: NewKeys, link: Link | None = None) -> LogEntry | None:
        """Put other keys in place; a revision and a log entry when ``change`` names its kind, else None.

        Raises KeysConflictError when ``change.base`` is not what the keys are.
        """

    async def sealed_values(self, after: SealedPlace | None, limit: int) -> list[SealedValue]:
        """Return about ``limit`` sealed values that come after ``after`` (None: from the first), in a lasting order.

        Empty when there is none left. The keys of one token are told together, over the limit if need be.
        """

    async def sealed_counts(self) -> dict[int, int]:
        """Return how many sealed values there are under each data key; 0 stands for values of format 1."""

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        """Replace each value that is still as it was by the same sealed anew; return how many. Takes no revision.

        Raises SealingKeyError when one is sealed under another key than the active one; then none is replaced.
        """
