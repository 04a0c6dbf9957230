"""A value that is asked for anew when it was found wanting: the keys of a token while they are rotated.

Knows a callback, a clock and a lock. Knows nothing of keys or payloads.

Whoever finds the value wanting waits while another thread asks, and then sees what came of it: to give up meanwhile
would lose a change that the new value opens. The callback is spared: it is asked at most once a second, and not again
for 30 s for the same need when the last answer did not help.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

R = TypeVar("R")

PAUSE: Final = 1.0
"""Seconds between two questions."""
PAUSE_IN_VAIN: Final = 30.0
"""Seconds before the same need is asked for again."""

logger: Final = logging.getLogger("config_client")


class Reloading(Generic[R]):
    """Holds ``current``, which readers take by one look, and replaces it by one assignment.

    ``load`` returns the value anew; None: it never changes. ``clock`` gives seconds that never run backwards.
    """

    __slots__ = ("_clock", "_load", "_turns", "current")

    def __init__(self, current: R, load: Callable[[], R] | None, clock: Callable[[], float]) -> None:
        self.current = current
        self._load = load
        self._clock = clock
        self._turns: dict[int, _Turn] = {}

    def renew(self, wanting: R, need: str) -> R:
        """Return the value to use instead of ``wanting``, which lacks ``need``; ``wanting`` itself if there is none.

        Blocks while ``load`` runs, here or on another thread. What ``load`` raises is logged by type only, since its
        text may hold a secret.
        """
        if self._load is None:
            return self.current
        # By process: a forked child must not wait for a lock that a thread of its parent held. setdefault is atomic.
        turn = self._turns.setdefault(os.getpid(), _Turn())
        with turn.lock:
            if self.current is wanting and turn.may_ask(need, self._clock()):
                self._ask(turn, need, self._load)
            return self.current

    def _ask(self, turn: _Turn, need: str, load: Callable[[], R]) -> None:
        turn.asking = True
        try:
            value = load()
        except Exception as error:
            logger.error("asking for the keys anew failed with %s; those held stay in use", type(error).__name__)
        else:
            if value != self.current:
                turn.in_vain.clear()
                self.current = value
        finally:
            turn.asking = False
            turn.asked(need, self._clock())


class _Turn:
    """Who may ask now: the state of one process, under its lock."""

    __slots__ = ("asking", "in_vain", "last", "lock")

    def __init__(self) -> None:
        # Reentrant: the callback may use the client, and so come here again.
        self.lock = threading.RLock()
        self.asking = False
        self.last: float | None = None
        self.in_vain: dict[str, float] = {}

    def may_ask(self, need: str, now: float) -> bool:
        if self.asking or (self.last is not None and now - self.last < PAUSE):
            return False
        return need not in self.in_vain or now - self.in_vain[need] >= PAUSE_IN_VAIN

    def asked(self, need: str, now: float) -> None:
        self.last = now
        # One question a second and no entry older than the pause: this stays small.
        self.in_vain = {each: since for each, since in self.in_vain.items() if now - since < PAUSE_IN_VAIN}
        self.in_vain[need] = now
