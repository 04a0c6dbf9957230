"""An upper bound in seconds on everything that a thread does on the network meanwhile.

httpx has a timeout per read, so a peer that drips bytes can go on for ever; the network below it asks here how much
time is left in all. Knows threads and the clock; knows nothing of sockets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Bound(threading.local):
    at: float | None = None


_bound = _Bound()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let whatever the calling thread waits for on the network take ``seconds`` in all; an earlier bound stays."""
    outer = _bound.at
    at = time.monotonic() + seconds
    _bound.at = at if outer is None else min(outer, at)
    try:
        yield
    finally:
        _bound.at = outer


def remaining(timeout: float | None) -> float | None:
    """Return the seconds that the next wait may take: ``timeout`` (None: any time), or less if a bound is near."""
    if _bound.at is None:
        return timeout
    left = max(0.0, _bound.at - time.monotonic())
    return left if timeout is None else min(timeout, left)
