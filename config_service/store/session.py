"""The database of an SQL store while it is open: its connections and the threads on which they are used.

Knows transactions and what they cost. Knows nothing of what is written in them.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy import Connection, insert, select

from ..domain.errors import ServiceError, StoreError, StoreMissingError
from . import migrations
from .batches import Batches
from .database import Database
from .protocol import StoreConflictError
from .schema import history

T = TypeVar("T")
Item = TypeVar("Item")

_READERS: Final = 4
_OLDER: Final = (
    "the store is of an older version of the service, and was left as it is; use that version, or let `config-service "
    "serve` of this one migrate the store first"
)


class Session:
    """What a store holds between ``open`` and ``close``: the database, its connections and the threads they run on."""

    def __init__(self, database: Database, *, create: bool = True) -> None:
        """Use ``database``; without ``create`` it has to hold a store already, of the newest schema."""
        self._database = database
        self._create = create
        self._writes = database.writing_engine()
        self._reads = database.reading_engine(_READERS)
        self._writer = ThreadPoolExecutor(1, "config-store-writer")
        self._readers = ThreadPoolExecutor(_READERS, "config-store-reader")

    async def start(self) -> None:
        """Take the right to use the database, see that it is ours and whole, and bring its schema up to date."""
        await self._run(self._writer, self._prepare)

    async def end(self) -> None:
        """Finish what is under way, close every connection, give the lock back. Goes on when it is cancelled."""
        released = self._writer.submit(self._guarded, self._release)
        self._writer.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(released))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` reads. It sees every commit made before."""
        return await self._run(self._readers, lambda: self._database.query(self._reads, work))

    async def write(self, work: Callable[[Connection], T], *, again: bool = True) -> T:
        """Return what ``work`` returns once its transaction is durable; when it raises, nothing has happened.

        Unless ``again`` is False, ``work`` may run more than once, the last time with effect. Raises
        OutcomeUnknownError when the connection was lost at the very commit, and nobody can tell how that went.
        """
        return await self._run(self._writer, lambda: self._database.transact(self._writes, work, again=again))

    async def write_all(self, items: AsyncIterator[Item], work: Callable[[Connection, Iterator[list[Item]]], T]) -> T:
        """Return what ``work`` makes of all ``items``, which it is given in batches; as ``write``, in one transaction.

        The items are asked for on the event loop while the transaction waits, so that one batch is in memory at a time.
        When ``items`` raises, or this call is cancelled, nothing has happened.
        """
        source = Batches(items, asyncio.get_running_loop())
        try:
            return await self.write(lambda connection: work(connection, source), again=False)
        except StoreError:
            if source.failure is None:
                raise
            failure = source.failure
        finally:
            source.end()
        raise failure

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Run ``work``, turning what a library raises into a StoreError.

        Raises it outside the handler: the errors of SQLAlchemy and of drivers hold statements and parameters.
        """
        try:
            return work()
        except (ServiceError, StoreConflictError):
            raise
        except Exception as error:
            failure = self._database.failure(error)
        raise failure

    def _prepare(self) -> None:
        self._database.acquire(create=self._create)
        with self._reads.connect() as connection:
            there = self._database.admit(connection)
            current = there and migrations.is_current(connection)
            if not self._create and not there:
                raise StoreMissingError(f"{self._database.name}: there is no store; nothing was made")
            if not self._create and not current:
                raise StoreError(f"{self._database.name}: {_OLDER}")
            self._database.prepare(connection)
        if not current:
            # Another process may be quicker; then there is nothing left to do.
            with self._database.migrating() as connection:
                migrations.upgrade(connection)
                if connection.execute(select(history.c.id)).first() is None:
                    connection.execute(insert(history).values(id=1, epoch=new_epoch(), revision=0, last_token_id=0))

    def _release(self) -> None:
        try:
            self._readers.shutdown()
            self._reads.dispose()
            self._writes.dispose()
        finally:
            self._database.release()


def new_epoch() -> str:
    """Return an epoch that begins now: 48 bits of milliseconds since 1970 and 48 random bits, as 24 hex characters."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"
