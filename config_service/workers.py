"""Several processes on one listening socket: a parent that starts them, starts them again, and ends them.

Knows processes, pipes and signals. Knows nothing of what the processes do: a worker goes on where it was made, as if it
were alone. Workers share nothing but the socket, so each is a replica of its own.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
"""Seconds before a worker that ended is started again; twice as long each time, until one has lived for the longest."""
_END_WITHIN: Final = 10.0
"""Seconds that workers may take to end before they are killed."""
_logger = logging.getLogger("config_service")


@dataclass(frozen=True, slots=True)
class Worker:
    """This process is a worker."""

    number: int
    _ready: int
    _parent: int

    def ready(self) -> None:
        """Tell the parent that this worker serves."""
        os.write(self._ready, bytes([self.number]))

    def when_orphaned(self, act: Callable[[], None]) -> None:
        """Call ``act``, on another thread, should the parent end without ending this worker first."""

        def wait() -> None:
            os.read(self._parent, 1)  # nobody ever writes: the pipe ends with the parent
            act()

        threading.Thread(target=wait, name="config-parent", daemon=True).start()


def split(number: int, announce: Callable[[], None], pass_on: Collection[signal.Signals] = ()) -> Worker | int:
    """Return a Worker in each of ``number`` new processes, and in the parent the exit status once all have ended.

    The first one is waited for before the others begin: a store that does not open is told of once. ``announce`` is
    called in the parent when all serve. From then on a worker that ends is replaced. SIGTERM and SIGINT end them all;
    those of ``pass_on`` are sent on to each.
    """
    parent = _Parent(number, announce, pass_on)
    worker = parent.run()
    return parent.status if worker is None else worker


class _Parent:
    def __init__(self, number: int, announce: Callable[[], None], pass_on: Collection[signal.Signals]) -> None:
        self._number = number
        self._pass_on = pass_on
        self._announce = announce
        self._pids: dict[int, int] = {}
        """Worker by process."""
        self._began: dict[int, float] = {}
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}
        """When a worker is to be started again."""
        self._serving: set[int] = set()
        self._announced = False
        self._signals = 0
        self._ending: float | None = None
        self._ready = os.pipe()
        self._life = os.pipe()
        self._wake = os.pipe()
        self.status = 0

    def run(self) -> Worker | None:
        """Return a Worker in every child, None in the parent at the end."""
        os.set_blocking(self._wake[1], False)
        before = {kind: signal.signal(kind, self._note) for kind in (signal.SIGTERM, signal.SIGINT)}
        before |= {kind: signal.signal(kind, self._send_on) for kind in self._pass_on}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake[1])
        self._due[0] = 0.0
        while self._pids or self._due:
            worker = self._start_due()
            if worker is not None:
                signal.set_wakeup_fd(-1)
                for kind in before:
                    # Until the worker knows what to do with those that are sent on, they are nothing to die of.
                    signal.signal(kind, signal.SIG_IGN if kind in self._pass_on else signal.SIG_DFL)
                return worker
            self._wait()
            self._bury()
            self._end_if_asked()
        signal.set_wakeup_fd(-1)
        for kind, handler in before.items():
            signal.signal(kind, handler)
        return None

    def _note(self, *_: object) -> None:
        self._signals += 1

    def _send_on(self, kind: int, _frame: object) -> None:
        self._send(signal.Signals(kind))

    def _start_due(self) -> Worker | None:
        now = time.monotonic()
        for number in [number for number, due in self._due.items() if due <= now]:
            del self._due[number]
            pid = os.fork()
            if pid == 0:
                # Ctrl-C reaches the parent alone, which then ends its workers once.
                os.setpgid(0, 0)
                for end in (self._ready[0], self._life[1], *self._wake):
                    os.close(end)
                return Worker(number, self._ready[1], self._life[0])
            self._pids[pid] = number
            self._began[number] = now
        return None

    def _wait(self) -> None:
        times = [*self._due.values(), *([] if self._ending is None else [self._ending])]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        for end in select.select([self._ready[0], self._wake[0]], [], [], timeout)[0]:
            told = os.read(end, 64)
            if end == self._ready[0]:
                self._note_serving(set(told))

    def _note_serving(self, numbers: set[int]) -> None:
        self._serving |= numbers
        if self._announced:
            return
        if len(self._serving) == self._number:
            self._announced = True
            self._announce()
        elif numbers == {0} and self._ending is None:
            self._due |= dict.fromkeys(range(1, self._number), 0.0)

    def _bury(self) -> None:
        while self._pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._pids.pop(pid, None)
            if number is None or self._ending is not None:
                continue
            code = os.waitstatus_to_exitcode(status)
            if not self._announced:
                # It has said why; a service that never began does not go on with less.
                self.status = code if code > 0 else 1
                self._end()
                return
            lived = time.monotonic() - self._began[number]
            pause = _FIRST_PAUSE if lived > _LONGEST_PAUSE else self._pauses.get(number, _FIRST_PAUSE)
            self._pauses[number] = min(2 * pause, _LONGEST_PAUSE)
            self._due[number] = time.monotonic() + pause
            _logger.error("worker %d ended with status %d; another one starts in %g s", number, code, pause)

    def _end_if_asked(self) -> None:
        if self._signals:
            self._signals = 0
            self._end()
        elif self._ending is not None and time.monotonic() > self._ending:
            self._send(signal.SIGKILL)
            self._ending += _END_WITHIN

    def _end(self) -> None:
        self._due.clear()
        if self._ending is None:
            self._ending = time.monotonic() + _END_WITHIN
        self._send(signal.SIGTERM)

    def _send(self, kind: signal.Signals) -> None:
        for pid in tuple(self._pids):
            os.kill(pid, kind)
