"""What a store is kept up with: its keys, its sealed values, and the records of another store. Decides on no config."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from config_client.protocol import Position

from ...domain.records import (
    BesideLog,
    Link,
    LogEntry,
    WrappedKey,
)
from ...domain.records import Record as Kept
from ...domain.sealing import NewKeys, Resealed, SealedKind, SealedPlace, SealedValue
from ..protocol import KeysConflictError, StoreNotEmptyError
from . import cells, drafts, sealed
from .access import Access, value_of
from .deciding import require_active
from .protocol import Cell
from .restoring import fill
from .session import Session


class Upkeep(Access):
    """The part of a ``ConfigStore`` that concerns no config in particular."""

    async def beside_log(self) -> BesideLog:
        """Return what is kept beside the log. Changes nothing."""
        session = self._opened()

        def read() -> BesideLog:
            last_token_id, named = session.look(
                lambda state: (len(state.tokens), frozenset(key for key, named in state.savepoints.items() if named))
            )
            return BesideLog(last_token_id, self._kept_check(session), named)

        return await session.run(read)

    async def seal_check(self, candidate: bytes) -> bytes:
        """Return the sealed check value of this store; a store that has none yet keeps ``candidate`` and returns it."""
        session = self._opened()

        def write() -> bytes:
            session.refresh()
            while True:
                kept = self._kept_check(session)
                if kept is not None:
                    return kept
                self._journal.swap(cells.CHECK, None, Cell(candidate))

        return await session.write(write)

    def _kept_check(self, session: Session) -> bytes | None:
        # The latest first: keys may have brought another one.
        later = session.look(lambda state: state.check) or value_of(self._journal.cell(cells.KEYS))
        return later or value_of(self._journal.cell(cells.CHECK))

    async def keys(self) -> tuple[WrappedKey, ...]:
        """Return every key of the store, by id; none before it was given its first ones."""
        return await self._read(self._keys)

    async def commit_keys(self, change: NewKeys, link: Link | None = None) -> LogEntry | None:
        """Put other keys in place; a revision and a log entry when ``change`` names its kind, else None.

        Raises KeysConflictError when ``change.base`` is not what the keys are.
        """
        kind = change.kind
        session = self._opened()

        def write() -> LogEntry | None:
            session.refresh()
            if kind is not None:
                session.renew_tokens()
                return session.commit(lambda state: self._deciding(state, link).keys(change, kind))
            if session.look(self._keys) != change.base or change.base:
                raise KeysConflictError
            if not self._journal.swap(cells.KEYS, None, cells.keys_cell(change.keys, change.check)):
                raise KeysConflictError
            return None

        return await session.write(write)

    async def sealed_values(self, after: SealedPlace | None, limit: int) -> list[SealedValue]:
        """Return about ``limit`` sealed values that come after ``after`` (None: from the first), in order."""
        session = self._opened()

        def read() -> list[sealed.Found]:
            standing = self._every_draft(session)
            found = session.look(lambda state: sealed.page(state, standing, after, limit))
            if any(place.kind is SealedKind.TOKEN_KEY for place, _ in found):
                session.renew_tokens()
                found = session.look(lambda state: sealed.page(state, standing, after, limit))
            return found

        found = await session.run(read)
        documents = await session.documents([value for _, value in found if isinstance(value, int)])
        # What has no document any more was archived meanwhile.
        return [
            SealedValue(place, documents[value] if isinstance(value, int) else value)
            for place, value in found
            if not isinstance(value, int) or value in documents
        ]

    async def sealed_counts(self) -> dict[int, int]:
        """Return how many sealed values there are under each data key; 0 stands for values of format 1."""
        session = self._opened()

        def read() -> dict[int, int]:
            session.refresh()
            session.renew_tokens()
            return session.use(lambda state: sealed.counts(state, self._journal, self._every_draft(session)))

        return await session.write(read)

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        """Replace each value that is still as it was by the same sealed anew; return how many. Takes no revision.

        Raises SealingKeyError when one is sealed under another key than the active one; then none is replaced.
        """
        session = self._opened()

        def write() -> int:
            session.refresh()
            session.renew_tokens()
            require_active(session.look(self._keys), (change.after for change in changes))
            return session.use(lambda state: sealed.reseal(state, self._journal, changes))

        return await session.write(write)

    async def restore(self, records: AsyncIterator[Kept], epoch: str) -> Position:
        """Become the store that ``records`` tell, in ``epoch``, and return the position: all of it or nothing.

        Raises StoreNotEmptyError when there was ever a change or a draft here; whatever ``records`` raises; StoreError.
        """
        session = self._opened()

        def write(batches: Iterator[list[Kept]]) -> Position:
            session.refresh()
            if session.look(lambda state: state.revision) or any(self._journal.cells(drafts.PREFIX)):
                raise StoreNotEmptyError
            if not self._journal.restore(epoch, lambda place: fill(place, epoch, batches)):
                raise StoreNotEmptyError
            self._first_keys = ()
            return session.begin_anew(epoch)

        return await session.write_all(records, write)
