"""Holding a commit of an SQL store just before it becomes durable. Knows SQLAlchemy's events and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Connection, Engine, event


class Turnstile:
    """Stops the next commit of any engine while it is armed; the others pass."""

    def __init__(self) -> None:
        self._armed = threading.Semaphore(0)
        self._reached = threading.Event()
        self._opened = threading.Event()

    def pass_by(self, _connection: Connection) -> None:
        if self._armed.acquire(blocking=False):
            self._reached.set()
            assert self._opened.wait(30)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 30)

    @asynccontextmanager
    async def armed(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        self._reached.clear()
        self._opened.clear()
        self._armed.release()
        try:
            yield self.reached
        finally:
            self._opened.set()


@contextmanager
def before_every_commit(turnstile: Turnstile) -> Iterator[None]:
    """Put ``turnstile`` before the commits of all engines for a block."""
    event.listen(Engine, "commit", turnstile.pass_by)
    try:
        yield
    finally:
        event.remove(Engine, "commit", turnstile.pass_by)
