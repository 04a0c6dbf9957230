"""Filling an empty journal with the records of another store, whatever kind of store that was.

Knows the order in which they come (``ConfigStore.restore``). Knows no thread and no event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ...domain.errors import InvalidRequestError
from ...domain.records import Draft, LogEntry, SealCheck, StoredSchema, StoredToken, Version, WrappedKey
from ...domain.records import Record as Kept
from . import cells, drafts
from .protocol import Cell, Growing
from .record import Change, Record

_CHANGES: Final = 64
_BYTES: Final = 1_048_576
"""At most so many changes, or once their documents have so many bytes, become one record: one write for all of them."""


def fill(journal: Growing, epoch: str, batches: Iterable[list[Kept]]) -> None:
    """Write every record of ``batches`` into ``journal``.

    Raises InvalidRequestError for records that are not in order; what the journal raises.
    """
    filling = _Filling(journal, epoch)
    keys: list[WrappedKey] = []
    for batch in batches:
        for one in batch:
            if isinstance(one, SealCheck):
                journal.swap(cells.CHECK, None, Cell(one.sealed))
            elif isinstance(one, WrappedKey):
                keys.append(one)
            elif isinstance(one, Draft):
                journal.swap(drafts.cell_name(one.key), None, drafts.cell(one))
            else:
                filling.take(one)
    filling.finish()
    if keys:
        journal.swap(cells.KEYS, None, cells.keys_cell(tuple(keys)))


class _Filling:
    """The log on its way: one record is held back, because the tokens come last and belong to the last one."""

    def __init__(self, journal: Growing, epoch: str) -> None:
        self._journal = journal
        self._epoch = epoch
        self._changes: list[Change] = []
        self._documents: dict[int, bytes] = {}
        self._tokens: list[StoredToken] = []
        self._revision = 0

    def take(self, one: LogEntry | Version | StoredSchema | StoredToken) -> None:
        if isinstance(one, LogEntry):
            if one.revision != self._revision + 1:
                raise InvalidRequestError(
                    f"log entry {one.revision} comes after {self._revision}; records must be in order"
                )
            if len(self._changes) >= _CHANGES or sum(map(len, self._documents.values())) >= _BYTES:
                self._append()
            self._revision = one.revision
            self._changes.append(Change(one))
        elif isinstance(one, StoredToken):
            self._tokens.append(one)
        else:
            if not self._changes or self._changes[-1].entry.revision != one.revision:
                raise InvalidRequestError(f"what revision {one.revision} made does not come right behind its log entry")
            self._changes[-1] = Change(self._changes[-1].entry, one.info)
            document = one.document if isinstance(one, Version) else one.schema
            if document is not None:
                self._documents[one.revision] = document

    def finish(self) -> None:
        if self._changes:
            self._append()
        elif self._tokens:
            raise InvalidRequestError("there are tokens, and no log entry tells of them")

    def _append(self) -> None:
        self._journal.append(Record(self._epoch, tuple(self._changes), self._documents, tuple(self._tokens)))
        self._changes, self._documents, self._tokens = [], {}, []
