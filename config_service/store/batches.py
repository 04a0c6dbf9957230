"""The items of an asynchronous iterator, handed to a thread. Knows nothing of what they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

BATCH: Final = 64
"""Items that are handed over at a time."""
_LOOK: Final = 0.5
"""Seconds after which a thread that waits for items looks whether anybody still waits for it."""


class Batches(Iterator[list[Item]]):
    """The items of an asynchronous iterator for a thread, which waits for them."""

    def __init__(self, items: AsyncIterator[Item], loop: asyncio.AbstractEventLoop) -> None:
        self._items = items
        self._loop = loop
        self._ended = threading.Event()
        self.failure: Exception | None = None

    def end(self) -> None:
        """Give no more: a thread that still asks fails, and with it its transaction."""
        self._ended.set()

    def __next__(self) -> list[Item]:
        pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        while not self._ended.is_set():
            try:
                batch = pending.result(_LOOK)
            except TimeoutError:
                continue  # the loop may have ended for good, with the question in its queue
            if batch:
                return batch
            raise StopIteration
        pending.cancel()
        raise RuntimeError("nobody waits for the outcome any more")

    async def _next(self) -> list[Item]:
        batch: list[Item] = []
        try:
            async for item in self._items:
                batch.append(item)
                if len(batch) == BATCH:
                    break
        except Exception as error:
            self.failure = error
            raise
        return batch
