"""Following the log of a store to which other processes commit as well, so that this one serves what they publish.

Knows the feed, the store and time. The log is the truth; that the store may wake a follower early is a hint. Once the
history itself was replaced under a follower, nothing in memory can be trusted to be its continuation: then it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from ..domain.errors import HistoryReplacedError, ServiceError, StoreError
from ..domain.records import Head
from ..store.protocol import ConfigStore
from .feed import Feed

STALE_AFTER: Final = 5.0
"""Seconds without a look at the log after which a process may be too far behind to be asked."""
_RETRY: Final = 1.0
"""Seconds between two attempts while the store cannot be read, unless it is looked at more rarely anyway."""
_logger = logging.getLogger("config_service")


class Follower:
    """Keeps one process up to date. ``run`` is to be running all the time."""

    def __init__(
        self,
        store: ConfigStore,
        feed: Feed,
        *,
        interval: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._feed = feed
        self._interval = interval
        self._monotonic = monotonic
        self._looked = monotonic()
        self._failure = ""
        self._head: Head | None = None

    @property
    def behind(self) -> float:
        """Seconds since the store was last seen to hold nothing that is not served here."""
        return self._monotonic() - self._looked

    @property
    def problem(self) -> str | None:
        """Why this process should not be asked, in a sentence; None while it may be."""
        if self.behind < STALE_AFTER:
            return None
        return f"what other processes committed has not been read for {self.behind:.0f} s"

    async def run(self) -> None:
        """Apply what others commit, until cancelled. Raises HistoryReplacedError."""
        self._looked = self._monotonic()
        while True:
            try:
                await self.look()
            except HistoryReplacedError:
                raise
            except Exception as error:
                self._note(error)
                await self._store.changed(max(self._interval, _RETRY))
            else:
                self._note(None)
                await self._store.changed(self._interval)

    async def look(self) -> None:
        """Apply what was committed up to now. Raises HistoryReplacedError, or StoreError when it cannot be read."""
        started, before = self._monotonic(), self._feed.position
        head = await self._store.head()
        if head.epoch != before.epoch:
            raise HistoryReplacedError(
                f"the history of the store was replaced: it is in epoch {head.epoch}, this process served "
                f"{before.epoch}; start it again to serve what is there now"
            )
        if head.revision < before.revision or not await self._continues(head):
            raise HistoryReplacedError(
                f"the store has lost changes: it ends at revision {head.revision}, and what was served up to "
                f"{before.revision} is not all there. Was it restored by hand, or did a standby take over that was "
                "behind? Restore it with `config-service restore`, which begins a new epoch; until then clients keep "
                "what they have"
            )
        self._head = head
        if head.revision > self._feed.position.revision:
            await self._feed.catch_up()
        self._looked = started

    async def _continues(self, head: Head) -> bool:
        """Tell whether the log up to ``head`` goes on from where it ended at the look before.

        Every entry has a link of its own, so another entry of the same revision is known by it.
        """
        known = self._head
        if known is None or known.link is None or head == known:
            return True
        if head.revision <= known.revision:
            return False
        entries = await self._store.log(known.revision - 1, 1)
        return bool(entries) and entries[0].link in {None, known.link}

    def _note(self, error: Exception | None) -> None:
        """Log what changed: that the store cannot be read, and that it can be read again."""
        failure = "" if error is None else error.code if isinstance(error, ServiceError) else type(error).__qualname__
        if failure == self._failure:
            return
        self._failure = failure
        if error is None:
            _logger.warning("the log of the store is followed again")
        else:
            reason = str(error) if isinstance(error, StoreError) else failure
            _logger.error("the log of the store cannot be followed, what is served may be old: %s", reason)
