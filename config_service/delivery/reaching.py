"""Waiting for a revision that a client has heard of and this process has not applied yet.

Knows the feed and time. With one process on a store that is a matter of a moment; a replica that follows the log of
another may be behind for longer. However many wait, the log is read by one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from config_client.protocol import Position

from ..domain.errors import UnavailableError
from .feed import Feed

PATIENCE: Final = 1.0
"""Seconds that a request waits."""
_PAUSE: Final = 0.02
"""Seconds between two looks at the log."""
_logger = logging.getLogger("config_service")


class Reaching:
    """Lets requests wait until the feed has come far enough."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._looking: asyncio.Task[None] | None = None

    async def reach(self, wanted: Position) -> None:
        """Return when what is served is not older than ``wanted``; an earlier epoch is older than all of this one.

        Raises UnavailableError when that takes over a second, or ``wanted`` lies in a later epoch.
        """
        here = self._feed.position
        if wanted <= here:
            return
        if wanted.epoch != here.epoch:
            raise UnavailableError("this service follows an earlier history than the one asked for; try another one")
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reached] = wanted.revision
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            async with asyncio.timeout(PATIENCE):
                await reached
        except TimeoutError:
            pass
        else:
            return
        finally:
            del self._waiting[reached]
        raise UnavailableError(f"this service has not come to revision {wanted.revision} yet; try again")

    def close(self) -> None:
        """Look no more: the store is about to be closed."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        failure = ""
        try:
            while self._waiting:
                try:
                    await self._feed.catch_up()
                except Exception as error:
                    if type(error).__qualname__ != failure:
                        failure = type(error).__qualname__
                        _logger.error("the log of the store cannot be read: %s", failure)
                here = self._feed.position.revision
                for reached, revision in self._waiting.items():
                    if revision <= here and not reached.done():
                        reached.set_result(None)
                await asyncio.sleep(_PAUSE)
        finally:
            self._looking = None
