"""What one thread waits for and any other rings. Knows locks only."""

from __future__ import annotations

import threading
from contextlib import suppress


class Bell:
    """Rung by ``set``; a wait takes the ring. Rings before a wait, however many, end it at once.

    Not a ``threading.Event``: that holds a lock of its own while a thread begins or ends to wait, and the handler of a
    signal, which may close the client, runs on that very thread.
    """

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def set(self) -> None:
        """End the wait under way, or the next one."""
        # Rung already, it needs no ringing.
        with suppress(RuntimeError):
            self._gate.release()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until rung, ``seconds`` at most; None: for ever."""
        self._gate.acquire(timeout=-1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))
