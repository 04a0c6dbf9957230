"""Long work in turns: others get the event loop in between. Knows the loop and nothing of what is done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Final

TURN: Final = 512
"""What one turn may cost, in writes to a connection."""


class Turns:
    """Does one job after the other, strictly in order, a turn at a time.

    A job is an iterator: each step does a little and yields what it cost. The first turn is taken at once.
    """

    def __init__(self) -> None:
        self._jobs: deque[Iterator[int]] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, job: Iterator[int]) -> None:
        """Do ``job`` when those before it are done."""
        self._jobs.append(job)
        if self._next is None:
            self._go_on()

    def clear(self) -> None:
        """Drop everything that is not done yet."""
        self._jobs.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _go_on(self) -> None:
        self._next = None
        spent = 0
        while self._jobs:
            if spent >= TURN:
                self._next = asyncio.get_running_loop().call_soon(self._go_on)
                return
            cost = next(self._jobs[0], None)
            if cost is None:
                self._jobs.popleft()
            else:
                spent += cost
