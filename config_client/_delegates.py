"""One subscription on a base stream of its own, where a service knows no stream for all of them.

Knows sessions and the rules of base streams; ``_threads`` and ``_tasks`` drive it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

from ._desk import SingleDesk
from ._session import AnyKeeper, Session, defect, policy_of
from ._steps import LocalCommand, Outcome
from ._tracks import Track
from .errors import ClosedError, ConfigClientError
from .watching import ValueWatch


class DelegateDesk(SingleDesk):
    """The side of the base stream: what it brings goes to the session, for one keeper."""

    def __init__(self, session: Session, keeper: AnyKeeper) -> None:
        super().__init__(keeper.track.name, keeper.track.query)
        self.watch = ValueWatch(policy_of(session.options), keeper.track)
        self._session = session
        self._keeper = keeper

    def perform(self, command: LocalCommand) -> Outcome | Awaitable[Outcome]:
        """Perform a command that needs no network."""
        return self._session.serve(self._keeper, command)

    def contact(self) -> None:
        """Take note that the stream has just brought something."""
        self._session.contact()
        self._keeper.heard = time.monotonic()

    def hand_over(self, track: Track) -> None:
        """Let the shared stream go on from what was seen."""
        self._keeper.heard = None
        self.watch.hand_over(track)

    def ended(self, error: BaseException) -> None:
        """Take note of what the watch has ended on."""
        if isinstance(error, ClosedError):
            return
        self._session.end(self._keeper, error if isinstance(error, ConfigClientError) else defect(error))
