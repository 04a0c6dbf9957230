"""The ways into a journal that is open: what every part of the store on it needs. Knows no change in particular."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from config_client.protocol import Position

from ...domain.errors import StoreError
from ...domain.keys import ConfigKey
from ...domain.records import (
    Head,
    Link,
    LogEntry,
    WrappedKey,
)
from . import cells, drafts
from .deciding import Deciding
from .protocol import Cell, Journal
from .record import Record
from .session import Session
from .state import State

T = TypeVar("T")


class Access:
    """A journal with its session, and how decisions and reads get at both."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._session: Session | None = None
        self._first_keys: tuple[WrappedKey, ...] = ()
        self._swept: set[ConfigKey] = set()

    @property
    def shared(self) -> bool:
        """Whether other processes may change the same store while this one is open."""
        return self._journal.shared

    async def changed(self, timeout: float) -> None:
        """Return after ``timeout`` seconds: a journal tells nobody that it has grown."""
        await asyncio.sleep(timeout)

    async def open(self) -> None:
        """Open the journal, creating it as needed, and read all of it. Opening twice is allowed.

        Raises StoreLockedError, StoreCorruptError or StoreError.
        """
        if self._session is None:
            session = Session(self._journal)
            # It may be another history than the last time.
            self._first_keys, self._swept = (), set()
            try:
                await session.start()
            except BaseException:
                await session.end()
                raise
            self._session = session

    async def close(self) -> None:
        """Finish what is under way and release everything. Closing twice is allowed."""
        session, self._session = self._session, None
        if session is not None:
            await session.end()

    async def position(self) -> Position:
        """Return the epoch and the newest revision."""
        return await self._read(lambda state: Position(state.epoch, state.revision))

    async def head(self) -> Head:
        """Return epoch, newest revision and newest link, as of one moment."""
        return await self._read(lambda state: Head(state.epoch, state.revision, state.link))

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        """Return at most ``limit`` entries with a revision above ``after``, in order."""
        return await self._opened().log(max(0, after), limit)

    # --- the ways in ---

    def _opened(self) -> Session:
        if self._session is None:
            raise StoreError("the store is not open; open it before use, and use it no more once it is closed")
        return self._session

    async def _read(self, work: Callable[[State], T]) -> T:
        return await self._opened().read(work)

    async def _commit(self, decide: Callable[[State], tuple[Record | None, T]]) -> T:
        session = self._opened()
        return await session.write(lambda: session.commit(decide))

    def _keys(self, state: State) -> tuple[WrappedKey, ...]:
        """Return the keys of the store. The first ones are a cell that is written once, and read until it is."""
        if state.keys is not None:
            return state.keys
        self._first_keys = self._first_keys or cells.first_keys(self._journal.cell(cells.KEYS))
        return self._first_keys

    def _deciding(self, state: State, link: Link | None) -> Deciding:
        return Deciding(state, self._keys(state), link)

    def _standing(self, state: State, key: ConfigKey) -> Cell | None:
        return drafts.standing(state, key, self._journal.cell(drafts.cell_name(key)))

    def _every_draft(self, session: Session) -> list[Cell]:
        """Return the drafts that there are."""
        found = list(self._journal.cells(drafts.PREFIX))
        return session.look(
            lambda state: [cell for cell in found if drafts.standing(state, drafts.read(cell).key, cell)]
        )


def value_of(cell: Cell | None) -> bytes | None:
    """Return the sealed bytes of a cell, if there is one."""
    return None if cell is None else cell.value
