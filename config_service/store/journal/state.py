"""What the records of a journal say so far. Pure: no thread, no file, no network.

Folding the same records in order always leads to the same state, so nothing but the records has to be kept. Documents
are left where they are; of them the state knows which record holds which.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import replace
from hashlib import sha256
from typing import Final, TypeVar

from ...domain.errors import StoreCorruptError
from ...domain.keys import ConfigKey
from ...domain.records import (
    Activation,
    ChangeKind,
    LogEntry,
    Savepoint,
    SchemaInfo,
    StoredToken,
    VersionInfo,
    WrappedKey,
)
from .record import Change, Record

Kept = TypeVar("Kept")

RECENT: Final = 10_000
"""Log entries kept at hand: as many as a starting service replays. Older ones are read from their records."""


class State:
    """What a store holds at ``revision`` of ``epoch``."""

    def __init__(self, epoch: str) -> None:
        self.epoch: Final = epoch
        self.revision = 0
        self.versions: dict[ConfigKey, list[VersionInfo]] = {}
        self.schemas: dict[ConfigKey, list[SchemaInfo]] = {}
        self.savepoints: dict[ConfigKey, dict[str, Savepoint]] = {}
        self.tokens: list[StoredToken] = []
        self.keys: tuple[WrappedKey, ...] | None = None
        """The keys that a record has put in place; None: no record has."""
        self.check: bytes | None = None
        """The check value that came with them."""
        self.link: bytes | None = None
        """The link of the last linked entry."""
        self._token_records: list[int] = []
        self._with_versions: list[ConfigKey] = []
        self._with_schemas: list[ConfigKey] = []
        self._numbers = array("Q")
        self._recent: deque[LogEntry] = deque(maxlen=RECENT)
        self._published: dict[ConfigKey, bytes] = {}

    def apply(self, record: Record) -> bool:
        """Take in the next record. Returns False for one that was taken in before.

        Raises StoreCorruptError for one that does not follow; the state is then of no use any more.
        """
        if record.number <= self.revision:
            return False
        if record.epoch != self.epoch:
            raise StoreCorruptError(
                f"the record of revision {record.number} belongs to another store; restore a backup of one store"
            )
        if record.number != self.revision + 1:
            raise StoreCorruptError(
                f"the record of revision {self.revision + 1} is missing; restore the store from a backup"
            )
        for change in record.changes:
            self._take(change)
        for token in record.tokens:
            if not 0 < token.id <= len(self.tokens) + 1:
                raise _unfounded(record.changes[-1].entry)
            self.tokens[token.id - 1 : token.id] = [token]
            self._token_records[token.id - 1 : token.id] = [record.number]
        if record.keys is not None:
            self.keys = record.keys
        self.check = self.check if record.check is None else record.check
        self._numbers.append(record.number)
        self.revision = record.last
        return True

    def record_of(self, revision: int) -> int:
        """Return the number of the record that holds ``revision``, which is one of this state."""
        return self._numbers[bisect_right(self._numbers, revision) - 1]

    def recent(self, after: int, limit: int) -> list[LogEntry] | None:
        """Return the entries after ``after``, at most ``limit``; None when some of them are no longer at hand."""
        if after >= self.revision or limit <= 0:
            return []
        begin = max(after, 0) - (self.revision - len(self._recent))
        if begin < 0:
            return None
        return [self._recent[place] for place in range(begin, min(len(self._recent), begin + limit))]

    def newest_version(self, key: ConfigKey) -> int:
        """Return the number of the newest version of ``key``; 0: there is none."""
        return len(self.versions.get(key, ()))

    def newest_schema(self, key: ConfigKey) -> int:
        """Return the number of the newest schema of ``key``; 0: it never had one."""
        return len(self.schemas.get(key, ()))

    def token(self, token_id: int) -> StoredToken | None:
        """Return one token, which may be revoked, or None."""
        return self.tokens[token_id - 1] if 0 < token_id <= len(self.tokens) else None

    def keys_of_versions(self, first: ConfigKey) -> list[ConfigKey]:
        """Return the keys that have versions, in order, beginning with ``first`` or what comes after it."""
        self._with_versions = _in_order(self.versions, self._with_versions)
        return self._with_versions[bisect_left(self._with_versions, first) :]

    def keys_of_schemas(self, first: ConfigKey) -> list[ConfigKey]:
        """Return the keys that ever had a schema, in order, beginning with ``first`` or what comes after it."""
        self._with_schemas = _in_order(self.schemas, self._with_schemas)
        return self._with_schemas[bisect_left(self._with_schemas, first) :]

    def token_record(self, token_id: int) -> int:
        """Return the number of the record that tells how a token of this state is now."""
        return self._token_records[token_id - 1]

    def renew_tokens(self, record: Record) -> None:
        """Take over how ``record``, which was taken in before and sealed anew since, tells of tokens."""
        for token in record.tokens:
            if self.token(token.id) is not None and self.token_record(token.id) == record.number:
                self.tokens[token.id - 1] = token

    def was_published(self, key: ConfigKey, draft: bytes) -> bool:
        """Tell whether the draft sealed as ``draft`` became a version: then it is gone, whatever is left of it."""
        return self._published.get(key) == digest(draft)

    def running(self, key: ConfigKey) -> VersionInfo | None:
        """Return the newest version of ``key`` that is served, or None."""
        return next((info for info in reversed(self.versions.get(key, ())) if info.served), None)

    def _follow(self, entry: LogEntry) -> None:
        """Note what has happened to a version since it was committed."""
        kept = self.versions.get(entry.key, []) if entry.key else []
        if entry.version is None or not 0 < entry.version <= len(kept):
            raise _unfounded(entry)
        info = kept[entry.version - 1]
        if entry.kind is ChangeKind.ACTIVATED:
            info = replace(info, activation=Activation(entry.revision, entry.timestamp))
        else:
            info = replace(info, cancelled=entry.revision)
        kept[entry.version - 1] = info

    def _name(self, entry: LogEntry) -> None:
        """Note which version a savepoint stands for, or that there is none of that name any more."""
        if entry.key is None or entry.savepoint is None:
            raise _unfounded(entry)
        named = self.savepoints.setdefault(entry.key, {})
        named.pop(entry.savepoint, None)
        if entry.kind is ChangeKind.SAVEPOINT_SET:
            named[entry.savepoint] = Savepoint.of(entry)

    def _archive(self, entry: LogEntry) -> None:
        """Note whose documents are not there any more, whatever is left of them."""
        kept = self.versions.get(entry.key, []) if entry.key else []
        for number in entry.archived or ():
            if not 0 < number <= len(kept):
                raise _unfounded(entry)
            kept[number - 1] = replace(kept[number - 1], archived=entry.revision)

    def _take(self, change: Change) -> None:
        entry, made = change.entry, change.made
        if isinstance(made, VersionInfo):
            _append(self.versions.setdefault(made.key, []), made, made.version, entry)
            if change.draft is not None:
                self._published[made.key] = change.draft
        elif isinstance(made, SchemaInfo):
            _append(self.schemas.setdefault(made.key, []), made, made.number, entry)
        elif entry.kind in {ChangeKind.ACTIVATED, ChangeKind.SCHEDULE_CANCELLED}:
            self._follow(entry)
        elif entry.kind in {ChangeKind.SAVEPOINT_SET, ChangeKind.SAVEPOINT_REMOVED}:
            self._name(entry)
        elif entry.kind is ChangeKind.ARCHIVED:
            self._archive(entry)
        self._recent.append(entry)
        self.link = entry.link or self.link


def digest(sealed: bytes) -> bytes:
    """Return what a record remembers a sealed draft by; no two seals are alike."""
    return sha256(sealed).digest()


def _append(kept: list[Kept], made: Kept, number: int, entry: LogEntry) -> None:
    if number != len(kept) + 1:
        raise _unfounded(entry)
    kept.append(made)


def _in_order(kept: dict[ConfigKey, list[Kept]], known: list[ConfigKey]) -> list[ConfigKey]:
    """Return the keys of ``kept`` in order; ``known`` are those of some time ago. No key ever goes."""
    return known if len(known) == len(kept) else sorted(kept)


def _unfounded(entry: LogEntry) -> StoreCorruptError:
    return StoreCorruptError(
        f"the record of revision {entry.revision} does not follow from those before it: the store was damaged or "
        "altered; restore it from a backup"
    )
