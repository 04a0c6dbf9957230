"""Ending every wait of a client at once: pauses, connects, reads.

Knows threads and sockets; knows nothing of HTTP. Closing a socket does not wake a thread that is blocked reading it;
shutting it down does. So whoever may block registers its socket here first.
"""

from __future__ import annotations

import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Interrupt:
    """A flag that is set once and then ends, or prevents, everything that waits under it."""

    def __init__(self) -> None:
        # Held until it is set; not an Event, whose own lock is no place for the handler of a signal to arrive in.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._is_set = False
        self._changed = threading.Condition()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._active: dict[int, int] = {}

    def is_set(self) -> bool:
        """Tell whether the interrupt was set."""
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Pause for ``seconds`` at most; return True at once when the interrupt is or becomes set."""
        if not self._is_set and self._gate.acquire(timeout=max(0.0, seconds)):
            self._gate.release()
        return self._is_set

    def guard(self, sock: socket.socket) -> None:
        """Let ``set`` shut ``sock`` down; when it is set already, do so now."""
        with self._changed:
            self._sockets.add(sock)
        if self.is_set():
            _shut_down(sock)

    def release(self, sock: socket.socket) -> None:
        """Let ``sock`` be: from here on it serves somebody else."""
        with self._changed:
            self._sockets.discard(sock)

    def set(self) -> None:
        """End every wait. Idempotent; callable from any thread."""
        with self._changed:
            if not self._is_set:
                self._is_set = True
                self._gate.release()
            sockets = list(self._sockets)
        for sock in sockets:
            _shut_down(sock)

    @contextmanager
    def activity(self) -> Iterator[None]:
        """Count the calling thread as busy, so that ``settle`` waits for it."""
        thread = threading.get_ident()
        with self._changed:
            self._active[thread] = self._active.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._active[thread] -= 1
                if not self._active[thread]:
                    del self._active[thread]
                    self._changed.notify_all()

    def is_busy_here(self) -> bool:
        """Tell whether the calling thread is busy: this is a callback of its, or the handler of a signal."""
        return threading.get_ident() in self._active

    def settle(self, seconds: float) -> bool:
        """Wait, ``seconds`` at most, until no thread but the calling one is busy; tell whether that came true."""
        own = threading.get_ident()
        deadline = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not (self._active.keys() - {own}), deadline - time.monotonic())


def _shut_down(sock: socket.socket) -> None:
    # The base class's method: SSLSocket.shutdown would pull the TLS state from under the thread that reads.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
