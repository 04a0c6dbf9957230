"""What a session asks of an SQL database: engines, the right to use it, how a transaction runs, what its errors mean.

Knows SQLAlchemy. Knows neither tables nor a database in particular; ``sqlite`` and ``postgres`` are the two there are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine

from ..domain.errors import StoreError

T = TypeVar("T")


class Listener(Protocol):
    """Hears that another process may have committed something."""

    async def wait(self, timeout: float) -> None:
        """Return when something was heard since the last call, or after ``timeout`` seconds."""

    async def close(self) -> None:
        """Listen no more. Closing twice is allowed."""


class Database(Protocol):
    """One database, and the right to use it. Used by the threads of one session."""

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it while this one uses it."""

    def listener(self) -> Listener | None:
        """Return what hears of the commits of other processes, or None where there are none to hear of."""

    @property
    def name(self) -> str:
        """What to call it in messages. No secret."""

    def acquire(self, *, create: bool = True) -> None:
        """Take the right to use the database.

        Raises StoreLockedError or another StoreError; without ``create`` StoreMissingError where there is none.
        """

    def release(self) -> None:
        """Give it back. Releasing twice, or before acquiring, does nothing."""

    def reading_engine(self, connections: int) -> Engine:
        """Return an engine on which every statement stands alone and sees the newest commit."""

    def writing_engine(self) -> Engine:
        """Return an engine of one connection, for ``transact``."""

    def query(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` reads on a connection of a reading engine. May run it again on another connection."""

    def transact(self, engine: Engine, work: Callable[[Connection], T], *, again: bool = True) -> T:
        """Return what ``work`` returns once its transaction on a writing engine is durable.

        The transaction is the only writer from its beginning, and each of its statements sees all that was committed
        before. When ``work`` raises, nothing has happened. Unless ``again`` is False, ``work`` may run again in another
        transaction when the first one has come to nothing.

        Raises OutcomeUnknownError when nobody can tell whether it was committed.
        """

    def migrating(self) -> AbstractContextManager[Connection]:
        """Give a connection whose transaction may change tables, alone among all processes; commit it at the end."""

    def admit(self, connection: Connection) -> bool:
        """Tell whether the database holds a store (False: it is empty). Changes nothing.

        Raises StoreCorruptError when it is damaged or holds something else, else StoreError when it cannot be used.
        """

    def prepare(self, connection: Connection) -> None:
        """Set what has to be set once. Raises StoreError when that cannot be done."""

    def failure(self, error: Exception) -> StoreError:
        """Return what ``error`` means to an operator, without its text: that may hold parts of a statement."""
