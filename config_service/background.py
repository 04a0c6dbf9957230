"""Long computations beside the event loop, on threads that a stopping process does not wait for. Knows nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

T = TypeVar("T")

LARGE: Final = 64 * 1024
"""Bytes from which a document is parsed on a thread: streams and reads must not wait for it."""


async def beside(work: Callable[[], T]) -> T:
    """Return what ``work`` returns, or raise what it raises; when cancelled, it runs on and its outcome is dropped.

    ``asyncio.to_thread`` would hold up the end of the process until ``work`` has ended.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        settle: Callable[[], None]
        try:
            result = work()
        except Exception as error:
            failure = error
            settle = lambda: outcome.set_exception(failure)  # noqa: E731
        else:
            settle = lambda: outcome.set_result(result)  # noqa: E731
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if outcome.done() else settle())

    threading.Thread(target=run, name="config-service-work", daemon=True).start()
    return await outcome
