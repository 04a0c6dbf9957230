"""Everything that a store holds, as one stream of records that is whole at one revision while the store is written to.

Knows the protocol of stores and the order in which ``ConfigStore.restore`` wants records. Knows no file and no key.

What never changes once it is committed (versions, schemas, the log) is read along the log, up to where it ends. What
does change is read where a later reading can only know more: drafts first, so that a draft that is published meanwhile
is there as a draft or as a version or both; tokens last, and again until no token changed while they were read, and no
version was activated that had been read before. The revision at which that was so is the revision of the whole. Data
keys come first, and are the same at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from ..domain.errors import StoreCorruptError, UnavailableError
from ..domain.records import VERSION_KINDS, ChangeKind, LogEntry, Record
from ..store.protocol import ConfigStore

_PAGE: Final = 256
"""Log entries read at a time."""
_AT_ONCE: Final = 4
"""Versions that are read, and in memory, at a time."""
_CHANGES_VERSIONS: Final = frozenset({ChangeKind.ACTIVATED, ChangeKind.SCHEDULE_CANCELLED, ChangeKind.ARCHIVED})
"""What happens to a version after it was committed: a version may have been read before, so the entry has to follow."""
_ROUNDS: Final = 64
"""How often tokens are read before their changes count as not ending."""


async def read_everything(store: ConfigStore) -> AsyncIterator[Record]:
    """Yield all that ``store`` holds but its check value, in the order that ``ConfigStore.restore`` asks for.

    Raises StoreError; StoreCorruptError when the log tells of something that is not there; UnavailableError when tokens
    changed all the time, or the data key did.
    """
    keys = await store.keys()
    for key in keys:
        yield key
    async for draft in store.drafts():
        yield draft
    revision = 0
    for _ in range(_ROUNDS):
        async for record in _along_the_log(store, revision, (await store.position()).revision):
            if isinstance(record, LogEntry):
                revision = record.revision
            yield record
        tokens = await store.tokens()
        if not await _changed_since(store, revision):
            for token in tokens:
                yield token
            if {key.id for key in await store.keys()} != {key.id for key in keys}:
                raise UnavailableError("the data key of the store was rotated while it was read; try again")
            return
    raise UnavailableError(f"tokens changed {_ROUNDS} times while they were read; try again")


async def _along_the_log(store: ConfigStore, after: int, until: int) -> AsyncIterator[Record]:
    while after < until:
        entries = await store.log(after, min(_PAGE, until - after))
        if not entries or entries[0].revision != after + 1:
            raise StoreCorruptError(
                f"the log of the store has no revision {after + 1}, before {until}; restore it from a backup"
            )
        for start in range(0, len(entries), _AT_ONCE):
            some = entries[start : start + _AT_ONCE]
            for entry, made in zip(some, await asyncio.gather(*(_made(store, entry) for entry in some)), strict=True):
                yield entry
                if made is not None:
                    yield made
        after = entries[-1].revision


async def _made(store: ConfigStore, entry: LogEntry) -> Record | None:
    """Return what ``entry`` made and is kept for good; None when that is nothing."""
    if entry.key is None:
        return None
    made: Record | None = None
    if entry.kind in VERSION_KINDS and entry.version is not None:
        made = await store.version(entry.key, entry.version)
    elif entry.schema is not None:
        made = await store.schema(entry.key, entry.schema)
    else:
        return None
    if made is None:
        raise StoreCorruptError(
            f"what revision {entry.revision} made of {entry.key} is in the log but not in the store: it was damaged "
            "or altered; restore it from a backup"
        )
    return made


async def _changed_since(store: ConfigStore, after: int) -> bool:
    """Tell whether after revision ``after`` something changed that is read as it is now: a token or a schedule."""
    while entries := await store.log(after, _PAGE):
        if any(entry.token_id is not None or entry.kind in _CHANGES_VERSIONS for entry in entries):
            return True
        after = entries[-1].revision
    return False
