"""Waking one watching thread without closing its client: a new subscription changes what its stream must tell.

Knows threads and sockets; knows nothing of HTTP or watches.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from ._interrupt import Interrupt, shut_down


class Waker:
    """Ends the waits of one thread, which is the only one to call ``wait``, ``guard``, ``release`` and ``woken``.

    ``wake`` may come from any thread and from the handler of a signal. A wake stays until ``woken`` takes it: one that
    comes between two waits ends the next. What ``interrupt`` ends, ends here too.
    """

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._start_over()
        interrupt.enlist(self)

    def _start_over(self) -> None:
        self._woken = False
        self._patient = False
        self._socket: socket.socket | None = None
        # Reentrant: the handler of a signal may arrive while its own thread holds it.
        self._lock = threading.RLock()
        # Released by every wake, and drained by whoever has seen it.
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self, *, at_once: bool = False) -> None:
        """End the wait or the read under way, or the next one; a patient read only if it is to be ``at_once``."""
        self._woken = True
        self.interrupted()
        with self._lock:
            if self._socket is not None and (at_once or not self._patient):
                shut_down(self._socket)

    def wait(self, seconds: float) -> bool:
        """Pause for ``seconds`` at most; return True at once when woken or interrupted, before or meanwhile."""
        deadline = time.monotonic() + seconds
        while not self.is_over():
            # The gate may still be open from a wake that was taken already, so the flags decide.
            if not self._gate.acquire(timeout=max(0.0, deadline - time.monotonic())):
                break
        return self.is_over()

    def be_patient(self, patient: bool) -> None:
        """Say whether a wake may wait until this is called with False."""
        with self._lock:
            self._patient = patient

    def guard(self, sock: socket.socket | None) -> None:
        """Let ``wake`` shut ``sock`` down, whose end the thread is about to wait for. None: there is nothing to do."""
        with self._lock:
            self._socket = sock
            if sock is not None and self._woken and not self._patient:
                shut_down(sock)

    def release(self) -> None:
        """Let the socket be: from here on it serves somebody else."""
        with self._lock:
            self._socket = None

    def is_over(self) -> bool:
        """Tell, without taking it, whether there is a wake to take, or the interrupt is set."""
        return self._woken or self._interrupt.is_set()

    def woken(self) -> bool:
        """Take the wake: tell whether there was one since this was last asked."""
        woken, self._woken = self._woken, False
        self._gate.acquire(blocking=False)
        return woken

    def interrupted(self) -> None:
        """End the wait under way; guarded sockets are the interrupt's own business."""
        # Open already, it needs no opening.
        with suppress(RuntimeError):
            self._gate.release()

    def abandon(self) -> None:
        """Start over in a forked child, where the thread that was to be woken does not run."""
        self._start_over()
