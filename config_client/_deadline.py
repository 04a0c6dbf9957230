"""An upper bound in seconds on everything that a thread does on the network meanwhile.

httpx has a timeout per read, so a peer that drips bytes can go on for ever; the network below it asks here how much
time is left in all. Knows threads and the clock; knows nothing of sockets.
"""

from __future__ import annotations

import threading
import time


class _Bound(threading.local):
    at: float | None = None


_bound = _Bound()


class within:  # noqa: N801 - reads as the context that it is; a class, since every request enters one
    """Let whatever the calling thread waits for on the network take ``seconds`` in all; an earlier bound stays."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._outer: float | None = None

    def __enter__(self) -> None:
        self._outer = _bound.at
        at = time.monotonic() + self._seconds
        _bound.at = at if self._outer is None else min(self._outer, at)

    def __exit__(self, *_: object) -> None:
        _bound.at = self._outer


def remaining(timeout: float | None) -> float | None:
    """Return the seconds that the next wait may take: ``timeout`` (None: any time), or less if a bound is near."""
    if _bound.at is None:
        return timeout
    left = max(0.0, _bound.at - time.monotonic())
    return left if timeout is None else min(timeout, left)
