"""The shared stream of a ConfigClient, on one daemon thread that lives as long as there are subscriptions.

Knows threads. The rules are in ``_state_watch``, the application's side in ``_session``.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from ._bell import Bell
from ._delegates import DelegateDesk
from ._driver import ThreadDriver
from ._horizon import Horizon
from ._opening import Opener
from ._session import AnyKeeper, Session, defect
from ._steps import Finish
from ._tracks import Track
from .errors import ConfigClientError
from .options import Options
from .status import State
from .transport import Transport

if TYPE_CHECKING:
    from .cache import Cache

THREAD_NAME: Final = "config-client"
RECALL_SECONDS: Final = 1.0
"""Seconds to wait for a base stream that is called back; it is awake already."""


class ThreadSession(Session):
    """Runs the shared stream on a thread of its own, and, where a service knows no such stream, one thread a config."""

    def __init__(
        self, options: Options, transport: Transport, opener: Opener, cache: Cache | None, horizon: Horizon
    ) -> None:
        super().__init__(options, opener, cache, horizon, len(transport.hosts))
        self._transport = transport
        self._lock = threading.Lock()
        self._driver: ThreadDriver | None = None
        self._thread: threading.Thread | None = None
        self._delegates: dict[Track, _Delegate] = {}

    def is_own_thread(self) -> bool:
        """Tell whether the caller is the watching thread: a callback, which would wait for itself."""
        current = threading.current_thread()
        return current is self._thread or any(current is one.thread for one in tuple(self._delegates.values()))

    def would_wait_for_itself(self) -> bool:
        """Tell whether the caller is the watching thread."""
        return self.is_own_thread()

    def _go_on(self) -> None:
        with self._lock:
            if self._driver is not None:
                self._driver.wake(at_once=not self._keepers)
            elif self._keepers:
                driver = ThreadDriver(self._transport, self.opener, self, self.options.heartbeat_interval)
                self._driver = driver
                self._thread = threading.Thread(target=self._run, args=(driver,), name=THREAD_NAME, daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._driver = self._thread = None
                    raise ConfigClientError("no thread can be started for the watch: a limit of the system?") from None

    def _run(self, driver: ThreadDriver) -> None:
        try:
            while True:
                self.drain()
                driver.run(self._watch.run())
                with self._lock:
                    if self._driver is not driver:
                        return
                    if self._transport.closed or not self._keepers:
                        self._driver = self._thread = None
                        if self._status.state is not State.STOPPED:
                            self._rest(State.INITIALIZING, "no subscriptions")
                        break
        except BaseException as error:
            # SystemExit of a callback too: on this thread it ends nothing but the watch. A snapshot that is silently
            # frozen would be worse than one that says so.
            self._fail(driver, error)
        self.recall()

    def _fail(self, driver: ThreadDriver, error: BaseException) -> None:
        stopped = defect(error)
        with self._lock:
            if self._driver is driver:
                self._driver = self._thread = None
        for keeper in tuple(self._keepers.values()):
            self.serve(keeper, Finish(stopped, keeper.track))
        self._watch = self._new_watch()

    # A service that speaks the base protocol only

    def _delegated(self) -> bool:
        return bool(self._delegates)

    def delegate(self) -> None:
        """Give every config a thread with a base stream of its own."""
        for track, keeper in tuple(self._keepers.items()):
            if track not in self._delegates:
                self._delegates[track] = _Delegate(self, self._transport, keeper)
                self._delegates[track].thread.start()
                if track not in self._keepers:
                    self._dismiss(keeper)

    def recall(self) -> None:
        """End the threads that were delegated, and go on from what they have seen."""
        for delegate in tuple(self._delegates.values()):
            delegate.driver.stop()
        for track, delegate in tuple(self._delegates.items()):
            if delegate.thread.ident is not None:
                delegate.thread.join(RECALL_SECONDS)
            delegate.desk.hand_over(track)
        self._delegates.clear()

    def _dismiss(self, keeper: AnyKeeper) -> None:
        delegate = self._delegates.pop(keeper.track, None)
        if delegate is not None:
            delegate.driver.stop()

    # Forks

    def go_on_in_child(self) -> None:
        """Begin anew in a forked child, where neither the thread nor whatever held a lock lives on."""
        self._lock = threading.Lock()
        # The fork may have been made by a callback, and then the watching thread itself lives on.
        for driver in (self._driver, *(one.driver for one in self._delegates.values())):
            if driver is not None:
                driver.abandon()
        self._driver = self._thread = None
        self._delegates = {}
        self._inbox.clear()
        self._watch = self._new_watch()
        self._forked()
        for keeper in self._keepers.values():
            keeper.renew(Bell())
        self._go_on()


class _Delegate:
    """One config on a base stream of its own, on a thread of its own."""

    def __init__(self, session: ThreadSession, transport: Transport, keeper: AnyKeeper) -> None:
        self.desk = DelegateDesk(session, keeper)
        self.driver = ThreadDriver(transport, session.opener, self.desk, session.options.heartbeat_interval)
        self.thread = threading.Thread(target=self._run, name=f"{THREAD_NAME} {keeper.track.name}", daemon=True)

    def _run(self) -> None:
        try:
            self.driver.run(self.desk.watch.run())
        except BaseException as error:
            self.desk.ended(error)
