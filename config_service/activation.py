"""Making versions run when their moment has come.

Knows what waits, the time and how to commit. Of several processes that see a moment come, the store lets one commit the
activation; the others hear of it by the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from .commits import Commits
from .delivery.feed import Feed
from .delivery.schedules import Schedules
from .domain.documents import Document
from .store.protocol import ScheduleConflictError

_LOOK: Final = 10.0
"""Seconds after which the clock is looked at again however far the next moment is: it may have been set."""
_RETRY: Final = 1.0
"""Seconds until an activation that failed is tried again."""
_logger = logging.getLogger("config_service")


class Activator:
    """Activates what comes due. ``activate_due`` once at the start, then ``run_forever``."""

    def __init__(self, *, schedules: Schedules, commits: Commits, feed: Feed, clock: Callable[[], datetime]) -> None:
        self._schedules = schedules
        self._commits = commits
        self._feed = feed
        self._clock = clock
        self._changed = asyncio.Event()
        schedules.listener = self._changed.set

    async def activate_due(self) -> bool:
        """Activate every version whose moment has come, the earliest first; what failed is logged.

        Returns whether none is left.
        """
        now = self._clock()
        for document in self._schedules:
            if document.moment > now:
                break
            try:
                await self._activate(document)
            except Exception as error:
                # By its type alone: what a store or a document says may be secret.
                _logger.error("%s: version %d cannot be activated: %s", document.key, document.version, _name(error))
                return False
        return True

    async def run_forever(self) -> None:
        """Activate what comes due, until cancelled."""
        while True:
            self._changed.clear()
            done = await self.activate_due()
            try:
                async with asyncio.timeout(self._pause() if done else _RETRY):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _activate(self, document: Document) -> None:
        try:
            await self._commits.activation(document, self._clock())
        except ScheduleConflictError:
            # Somebody else was faster, and what it did is in the log.
            await self._feed.catch_up()

    def _pause(self) -> float | None:
        """Return for how many seconds nothing comes due; None when nothing waits."""
        first = next(iter(self._schedules), None)
        if first is None:
            return None
        return min(_LOOK, max(0.0, (first.moment - self._clock()).total_seconds()))


def _name(error: Exception) -> str:
    return type(error).__qualname__
