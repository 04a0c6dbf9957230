"""What may be done with versions that wait for their moment: they are listed, and cancelled.

Knows rights and what waits. Knows nothing of HTTP or SQL, nor of when a moment has come: that is ``activation``'s.
Whoever may only read a config is told nothing of what is to come.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from .changes import ROUNDS, Changes
from .commits import Commits
from .delivery.feed import Feed
from .delivery.running import Running
from .domain.documents import Document
from .domain.errors import ConflictError, NotFoundError
from .domain.keys import ConfigKey
from .domain.scopes import Right
from .security.tokens import Token, TokenRegistry
from .store.protocol import ScheduleConflictError


class ScheduleOperations:
    """Everything that holders of a token may do with schedules; each needs the right to write."""

    def __init__(
        self,
        *,
        running: Running,
        registry: TokenRegistry,
        commits: Commits,
        changes: Changes,
        feed: Feed,
        clock: Callable[[], datetime],
    ) -> None:
        self._running = running
        self._registry = registry
        self._commits = commits
        self._changes = changes
        self._feed = feed
        self._clock = clock

    def list(self, token: Token) -> list[Document]:
        """Return every version that waits, of the configs that ``token`` may write, as they come due."""
        return [one for one in self._running.schedules if token.may(Right.WRITE, one.key.name, one.key.environment)]

    def read(self, token: Token, key: ConfigKey) -> Document:
        """Return the version of ``key`` that waits. Raises AccessDeniedError, or NotFoundError when none does."""
        token.require(Right.WRITE, key.name, key.environment)
        return self._awaited(key)

    async def cancel(self, token: Token, key: ConfigKey) -> Document:
        """End the schedule of ``key`` and return the version that is not to run any more; it can be rolled back to.

        Raises what ``read`` raises; ConflictError when other writers were faster every time; UnauthenticatedError when
        the token ended meanwhile; StoreError.
        """
        token.require(Right.WRITE, key.name, key.environment)
        async with self._changes.lock(key):
            for _ in range(ROUNDS):
                document = self._awaited(key)
                self._registry.confirm(token.id, self._clock())
                try:
                    await self._commits.cancellation(key, document.version, token.id, self._clock())
                except ScheduleConflictError:
                    await self._feed.catch_up()
                    continue
                return document
        raise ConflictError(f"{key}: other writers changed it {ROUNDS} times meanwhile; try again")

    def _awaited(self, key: ConfigKey) -> Document:
        document = self._running.schedules.get(key)
        if document is None:
            raise NotFoundError(f"{key}: no version is scheduled")
        return document
