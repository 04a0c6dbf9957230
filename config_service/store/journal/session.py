"""A journal while it is open: the state folded from it, and the threads on which both are used.

Knows in which order things happen, and nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Final, TypeVar

from config_client.protocol import Position

from ...domain.errors import ServiceError, StoreError
from ...domain.records import LogEntry
from ..batches import Batches
from ..protocol import StoreConflictError
from . import archive
from .protocol import Journal
from .record import Record, as_kept
from .state import State

T = TypeVar("T")
Item = TypeVar("Item")

_READERS: Final = 4
_WAIT: Final = 0.01
_WAITS: Final = 300
"""How often, and for how many seconds each time, to wait for a record of somebody else that not everybody reads yet."""


class Session:
    """What a store holds between ``open`` and ``close``.

    ``commit``, ``refresh``, ``use`` and ``begin_anew`` are for work on the writing thread; ``look`` is for any.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._state = State("")
        self._folding = threading.Lock()
        self._writer = ThreadPoolExecutor(1, "config-store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "config-store-reader")

    # --- on the event loop ---

    async def start(self) -> None:
        """Open the journal and fold all of it."""
        await self.write(self._begin)

    async def end(self) -> None:
        """Finish what is under way and close the journal. Goes on when it is cancelled."""
        released = self._writer.submit(self._guarded, self._release)
        self._writer.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(released))

    async def read(self, work: Callable[[State], T]) -> T:
        """Return what ``work`` reads from the state, which holds every commit made before and stands still."""

        return await self.run(lambda: self.look(work))

    async def peek(self, work: Callable[[State], T]) -> T:
        """Return what ``work`` reads from the state, which may not hold yet what others have just appended."""
        return await self._run(self._readers, lambda: self.look(work))

    async def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, on a thread that reads. It may ``look``, and take its time in between."""

        def run() -> T:
            self._keep_up()
            return work()

        return await self._run(self._readers, run)

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        """Return at most ``limit`` entries above ``after``, from memory where they are at hand."""

        def run() -> list[LogEntry]:
            self._keep_up()
            found, revision, begin = self.look(
                lambda state: (
                    state.recent(after, limit),
                    state.revision,
                    state.record_of(after + 1) if after < state.revision else 0,
                )
            )
            if found is not None:
                return found
            entries = (change.entry for record in self._journal.scan(begin - 1) for change in record.changes)
            # Not beyond the state: what this call tells, every other call knows of.
            wanted = (entry for entry in entries if entry.revision > after)
            return list(islice(wanted, min(limit, revision - after)))

        return await self._run(self._readers, run)

    async def documents(self, revisions: Sequence[int]) -> dict[int, bytes]:
        """Return the sealed document of each revision that has one."""
        if not revisions:
            return {}

        def run() -> dict[int, bytes]:
            numbers = self.look(lambda state: {revision: state.record_of(revision) for revision in revisions})
            distinct = list(dict.fromkeys(numbers.values()))
            found = dict(zip(distinct, self._journal.read(distinct), strict=True))
            held = ((revision, found[number].documents.get(revision)) for revision, number in numbers.items())
            return {revision: document for revision, document in held if document is not None}

        return await self._run(self._readers, run)

    async def write(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns, run on the one thread that writes."""
        return await self._run(self._writer, work)

    async def write_all(self, items: AsyncIterator[Item], work: Callable[[Iterator[list[Item]]], T]) -> T:
        """Return what ``work`` makes of all ``items``, on the thread that writes; see ``Batches``."""
        source = Batches(items, asyncio.get_running_loop())
        try:
            return await self.write(lambda: work(source))
        except StoreError:
            if source.failure is None:
                raise
            failure = source.failure
        finally:
            source.end()
        raise failure

    # --- on the writing thread ---

    def commit(self, decide: Callable[[State], tuple[Record | None, T]]) -> T:
        """Append the record that ``decide`` makes of the state, and return what it returns beside it.

        It is asked again whenever another writer was faster, and nothing is appended when it makes no record. What it
        raises counts only on a state that is up to date.
        """
        waits = iter(range(_WAITS))
        while True:
            before = self._state.revision
            try:
                record, outcome = self.look(decide)
            except StoreConflictError:
                if self.refresh() == before:
                    raise
                continue
            if record is None:
                if self.refresh() == before:
                    return outcome
            elif self._journal.append(record):
                self._fold([as_kept(record)])
                return outcome
            elif self.refresh() == before:
                if next(waits, None) is None:
                    raise StoreError(f"revision {record.number} is taken, and cannot be read yet; try again")
                time.sleep(_WAIT)

    def refresh(self) -> int:
        """Fold what others have appended, and return the newest revision. A journal of our own has nothing to fold."""
        self._keep_up()
        return self._state.revision

    def renew_tokens(self, token_id: int | None = None) -> None:
        """Fold once more what tells of one token, or of all: somebody else may have sealed their keys anew.

        A new seal takes no revision, so nobody hears of it; whoever goes by seals asks.
        """
        if self._journal.shared:
            ids = self.look(lambda state: [one.id for one in state.tokens if token_id in {None, one.id}])
            numbers = self.look(lambda state: list(dict.fromkeys(state.token_record(one) for one in ids)))
            for record in self._journal.read(numbers) if numbers else ():
                with self._folding:
                    self._state.renew_tokens(record)

    def look(self, work: Callable[[State], T]) -> T:
        """Return what ``work`` reads from the state as it is."""
        with self._folding:
            return work(self._state)

    def use(self, work: Callable[[State], T]) -> T:
        """Return what ``work`` makes of the state, which may grow meanwhile: nobody waits for work that takes long."""
        return work(self._state)

    def begin_anew(self, epoch: str) -> Position:
        """Fold the journal from its beginning, which is that of another epoch now; return the position."""
        state, held = State(epoch), set[int]()
        for record in self._journal.scan(0):
            state.apply(record)
            held |= record.documents.keys()
        # A disk that is full keeps nobody from opening the store.
        with suppress(Exception):
            archive.remove_documents(state, self._journal, archive.archived_among(state, held))
        with self._folding:
            self._state = state
        return Position(epoch, state.revision)

    # --- either way ---

    def _keep_up(self) -> None:
        if self._journal.shared:
            self._fold(self._journal.scan(self._state.revision))

    def _fold(self, records: Sequence[Record] | Iterator[Record]) -> None:
        # Asked for outside the lock: nobody waits for a record that comes over a network.
        for record in records:
            with self._folding:
                self._state.apply(record)

    def _begin(self) -> None:
        epoch = self._journal.open()
        self.begin_anew(epoch)

    def _release(self) -> None:
        try:
            self._readers.shutdown()
        finally:
            self._journal.close()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Run ``work``, turning what a library raises into a StoreError, outside the handler: it may hold a secret."""
        try:
            return work()
        except (ServiceError, StoreConflictError):
            raise
        except Exception as error:
            failure = self._journal.failure(error)
        raise failure
