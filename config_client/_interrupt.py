"""Ending every wait of a client at once: pauses, connects, reads.

Knows threads and sockets; knows nothing of HTTP. Closing a socket does not wake a thread that is blocked reading it;
shutting it down does. So whoever may block registers its socket here first.

After a fork the child holds copies of the parent's sockets: shutting one down would end the parent's connection,
closing it does not. And a lock that another thread held is never released there. ``abandon`` starts over.
"""

from __future__ import annotations

import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol


class Waiter(Protocol):
    """Somebody with waits of its own that the interrupt ends too."""

    def interrupted(self) -> None:
        """End the wait under way: the interrupt was set."""

    def abandon(self) -> None:
        """Start over in a forked child."""


class Interrupt:
    """A flag that is set once and then ends, or prevents, everything that waits under it."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: weakref.WeakSet[Waiter] = weakref.WeakSet()
        self._active: dict[int, int] = {}
        self._start_over()

    def _start_over(self) -> None:
        # Held until it is set; not an Event, whose own lock is no place for the handler of a signal to arrive in.
        self._gate = threading.Lock()
        if not self._is_set:
            self._gate.acquire()
        self._changed = threading.Condition()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

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
            shut_down(sock)

    def release(self, sock: socket.socket) -> None:
        """Let ``sock`` be: from here on it serves somebody else."""
        with self._changed:
            self._sockets.discard(sock)

    def enlist(self, waiter: Waiter) -> None:
        """Let ``set`` end the waits of ``waiter`` too; it is not kept alive by this."""
        with self._changed:
            self._waiters.add(waiter)

    def set(self) -> None:
        """End every wait. Idempotent; callable from any thread."""
        with self._changed:
            if not self._is_set:
                self._is_set = True
                self._gate.release()
            sockets, waiters = list(self._sockets), list(self._waiters)
        for waiter in waiters:
            waiter.interrupted()
        for sock in sockets:
            shut_down(sock)

    def abandon(self) -> list[socket.socket]:
        """Start over in a forked child: fresh locks, no sockets, and of the threads only this one; set stays set.

        Waits for no lock. Return the sockets that were guarded, which are copies of the parent's.
        """
        sockets, own = list(self._sockets), threading.get_ident()
        # The fork may have come from a callback: then this thread is still inside, and will leave.
        self._active = {own: self._active[own]} if own in self._active else {}
        self._start_over()
        for waiter in list(self._waiters):
            waiter.abandon()
        return sockets

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


def shut_down(sock: socket.socket) -> None:
    """End whatever waits for ``sock``, on every thread and in every process that holds it."""
    # The base class's method: SSLSocket.shutdown would pull the TLS state from under the thread that reads.
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
