"""The current value of a config, for any number of threads to read while one keeps it up to date.

Knows values and their versions. Knows nothing of where they come from, and does no I/O.

Everything that a reader may see is one frozen state, published by one assignment: ``load`` takes no lock and never
sees half a change. Writers take turns on a lock, which is held for the swap and never while foreign code runs.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Generic, TypeVar

from ._bell import Bell

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from ._paths import ChangedPaths

__all__ = ["Change", "Snapshot"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One swap of a snapshot. ``old`` is None for the first; versions are None when the service tells none.

    Its repr shows versions only, never the values.
    """

    old: T | None = field(repr=False)
    new: T = field(repr=False)
    version: int | None = None
    old_version: int | None = None
    _differences: object = field(default=None, init=False, repr=False, compare=False)

    @property
    def paths(self) -> frozenset[str]:
        """The deepest places that differ, such as ``db.host`` or ``servers.0.port``; of a first value, all it has.

        Dicts, dataclasses, pydantic models, lists and tuples are looked into, fields by their names in Python (those
        with ``compare=False`` left out); anything else is one place. A whole value that is one place has the empty
        path. In a key, ``~`` is written ``~0``, a dot ``~1``, and an empty key ``~2``. Worked out when first asked
        for, in time linear in the size of the values, and then kept.
        """
        return self._compared().paths

    def changed(self, path: str) -> bool:
        """Tell whether something at or below ``path`` changed, or what it is part of was replaced or removed.

        Of a first value, everything changed. The empty path stands for the whole value. Raises ConfigClientError for
        what is no path.
        """
        return self._compared().include(path)

    def _compared(self) -> ChangedPaths:
        from ._paths import ChangedPaths, changed_paths  # noqa: PLC0415 - imported by those who ask

        found = self._differences
        if not isinstance(found, ChangedPaths):
            # Two threads may both compare; they find the same, and one of the two stays.
            found = changed_paths(self.old, self.new)
            object.__setattr__(self, "_differences", found)
        return found


@dataclass(frozen=True, slots=True)
class _State(Generic[T]):
    """What readers see. ``updated_at`` is None exactly as long as nothing was stored."""

    value: T | None = field(default=None, repr=False)
    version: int | None = None
    updated_at: datetime | None = None


class _Listener(Generic[T]):
    """One registration of a callback; the same callback registered twice is two listeners."""

    __slots__ = ("active", "callback")

    def __init__(self, callback: Callable[[Change[T]], object]) -> None:
        self.callback = callback
        self.active = True


class _Waiter:
    """One thread in ``wait_for``, or one task in ``until``. ``wake`` is called from any thread, and more than once."""

    __slots__ = ("satisfied", "version", "wake")

    def __init__(self, version: int | None, wake: Callable[[], object]) -> None:
        self.version = version
        self.wake = wake
        self.satisfied = False


class Snapshot(Generic[T]):
    """A value that is swapped as a whole: ``load`` it once at the top of a unit of work.

    Safe to share between threads. Its repr shows version and time, never the value.
    """

    __slots__ = ("__weakref__", "_listeners", "_lock", "_pending", "_state", "_teller", "_waiters")

    def __init__(self) -> None:
        self._state: _State[T] = _State()
        self._lock = Lock()
        self._listeners: tuple[_Listener[T], ...] = ()
        self._waiters: list[_Waiter] = []
        # None while there is nothing to tell, which is nearly always: an empty deque takes more than all else here.
        self._pending: deque[tuple[_Listener[T], Change[T]]] | None = None
        self._teller: int | None = None  # the thread that is calling back

    def __repr__(self) -> str:
        state = self._state
        if state.updated_at is None:
            return "<Snapshot empty>"
        return f"<Snapshot version={state.version} updated_at={state.updated_at.isoformat()}>"

    def load(self) -> T | None:
        """Return the current value, or None before the first store. Takes no lock."""
        return self._state.value

    @property
    def version(self) -> int | None:
        """The version of the current value; None before the first store, or when the service tells none."""
        return self._state.version

    @property
    def updated_at(self) -> datetime | None:
        """The time of the last store, aware and in UTC; None before the first."""
        return self._state.updated_at

    def store(self, value: T, *, version: int | None = None, updated_at: datetime | None = None) -> None:
        """Swap the value in, wake who waits for it, and tell the callbacks.

        ``updated_at`` is now unless given; a time without an offset counts as UTC.

        The callbacks have run when this returns, unless another thread is telling them of an earlier change just now:
        that thread then goes on to this one, so that changes are told in order and no store ever waits for a callback.
        Likewise a store made by a callback is told after the change that the callback was called for.
        """
        moment = _utc(updated_at)
        with self._lock:
            old = self._state
            self._state = _State(value, version, moment)
            for waiter in self._waiters:
                if _satisfies(version, waiter.version):
                    waiter.satisfied = True
                    waiter.wake()
            if self._listeners:
                change = Change(old.value, value, version, old.version)
                self._pending = deque() if self._pending is None else self._pending
                self._pending.extend((listener, change) for listener in self._listeners)
            if self._teller is not None or not self._pending:
                return
            self._teller = get_ident()
        self._deliver()

    def wait_for(self, version: int | None = None, timeout: float | None = None) -> bool:
        """Block until a value of at least ``version`` (None: any value) is stored; tell whether it was.

        Returns at once when the current value will do, and False after ``timeout`` seconds (None: never). A value
        that satisfies counts even if a lower version replaces it before this thread runs again. A value whose version
        is unknown satisfies only None. Callbacks may still be running when this returns.
        """
        return self._wait(version, timeout, _never)

    async def until(self, version: int | None = None, timeout: float | None = None) -> bool:
        """Return what ``wait_for`` does, without blocking the event loop of asyncio that this is awaited on."""
        return await self._until(version, timeout, _never)

    def _wait(self, version: int | None, timeout: float | None, is_over: Callable[[], bool]) -> bool:
        """Wait as ``wait_for`` does, and no longer when ``is_over``, which ``_wake`` makes known."""
        bell = Bell()
        waiter = self._enlisted(version, bell.set)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while not waiter.satisfied and not is_over() and (remaining := deadline - time.monotonic()) > 0:
                bell.wait(remaining)
        finally:
            self._dismiss(waiter)
        return waiter.satisfied

    async def _until(self, version: int | None, timeout: float | None, is_over: Callable[[], bool]) -> bool:
        import asyncio  # noqa: PLC0415 - imported by those who use it, who have it

        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        waiter = self._enlisted(version, lambda: _call_soon(loop, woken.set))
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not waiter.satisfied and not is_over():
                await asyncio.wait_for(woken.wait(), None if deadline is None else deadline - time.monotonic())
                woken.clear()
        except asyncio.TimeoutError:
            pass
        finally:
            self._dismiss(waiter)
        return waiter.satisfied

    def _enlisted(self, version: int | None, wake: Callable[[], object]) -> _Waiter:
        waiter = _Waiter(version, wake)
        with self._lock:
            state = self._state
            waiter.satisfied = state.updated_at is not None and _satisfies(state.version, version)
            if not waiter.satisfied:
                self._waiters.append(waiter)
        return waiter

    def _dismiss(self, waiter: _Waiter) -> None:
        with self._lock:
            # Not there in a child that a handler of a signal forked during the wait.
            self._waiters = [each for each in self._waiters if each is not waiter]

    def _wake(self) -> None:
        """Let everybody who waits look whether it is over. Takes no lock: a handler of a signal may come by here."""
        for waiter in tuple(self._waiters):
            waiter.wake()

    def on_change(self, callback: Callable[[Change[T]], object]) -> Callable[[], None]:
        """Call ``callback`` with a Change for every later store; return the function that ends this.

        Callbacks run one at a time, in the order of the stores and, for each, of registration, on the storing thread
        (see ``store``), after the swap. One that raises is logged by type, and the others still run. After it is
        ended no new call begins; one that is under way on another thread finishes.
        """
        listener = _Listener(callback)
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def unsubscribe() -> None:
            listener.active = False
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return unsubscribe

    def on_path(self, path: str, callback: Callable[[Change[T]], object]) -> Callable[[], None]:
        """Call ``callback`` as ``on_change`` does, but only when ``change.changed(path)``; return what ends this.

        Raises ConfigClientError for what is no path.
        """
        from ._paths import check_path  # noqa: PLC0415 - imported by those who ask

        check_path(path)

        def filtered(change: Change[T]) -> None:
            if change.changed(path):
                callback(change)

        return self.on_change(filtered)

    def _renew_locks(self) -> None:
        """Go on in a forked child: value and callbacks stay, and nothing waits for a thread that is not there.

        Called in the child before anything else, by the one thread that lives on. A lock of the parent may be held
        for ever here. What another thread had still to tell is told at the next store.
        """
        self._lock = Lock()
        self._waiters = []
        if self._teller != get_ident():
            self._teller = None

    def _deliver(self) -> None:
        """Make the pending calls, oldest first, also those that are added meanwhile."""
        try:
            while True:
                with self._lock:
                    if not self._pending:
                        self._pending = self._teller = None
                        return
                    listener, change = self._pending.popleft()
                if listener.active:
                    _call(listener.callback, change)
        except BaseException:
            # KeyboardInterrupt or SystemExit on its way up: what is pending is told at the next store.
            with self._lock:
                self._teller = None
            raise


def _call(callback: Callable[[Change[T]], object], change: Change[T]) -> None:
    try:
        callback(change)
    except Exception as error:
        # By type only: its text and its traceback may hold the configuration.
        _log.error("a change callback raised %s; the new value is in place", type(error).__name__)


def _never() -> bool:
    return False


def _call_soon(loop: AbstractEventLoop, act: Callable[[], object]) -> None:
    # A loop that is closed has nobody left who waits.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(act)


def _satisfies(stored: int | None, wanted: int | None) -> bool:
    return wanted is None or (stored is not None and stored >= wanted)


def _utc(moment: datetime | None) -> datetime:
    if moment is None:
        return datetime.now(timezone.utc)
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
