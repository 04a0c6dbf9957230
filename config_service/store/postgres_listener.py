"""Hearing at once that another process may have committed something: LISTEN on a connection of its own.

Knows one channel and when to connect again. What is heard is a hint: what happened stands in the log, and whoever
follows it looks there anyway from time to time. So a notification that is lost costs a moment and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import psycopg

from ..domain.errors import StoreError

_PAUSE: Final = 1.0
"""Seconds before a lost connection is opened again."""


class PostgresListener:
    """Listens from the first ``wait`` until ``close``, on the event loop of both."""

    def __init__(self, connect: Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]) -> None:
        self._connect = connect
        self._heard = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None

    async def wait(self, timeout: float) -> None:
        """Return when something was heard since the last call, or after ``timeout`` seconds."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._heard.wait()
        self._heard.clear()

    async def close(self) -> None:
        """Listen no more. Closing twice is allowed."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait({listening})

    async def _listen(self) -> None:
        while True:
            with suppress(psycopg.Error, StoreError):
                async with await self._connect() as connection:
                    # One channel for a database: stores in several of its schemas wake each other, which does no harm.
                    await connection.execute("LISTEN config_service")
                    # Something may have happened just before.
                    self._heard.set()
                    async for _ in connection.notifies():
                        self._heard.set()
            await asyncio.sleep(_PAUSE)
