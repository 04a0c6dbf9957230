"""The shared stream of an AsyncConfigClient, as one task that lives as long as there are subscriptions.

Knows asyncio. The rules are in ``_state_watch``, the application's side in ``_session``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from ._aio_driver import TaskDriver
from ._aio_transport import AsyncTransport
from ._delegates import DelegateDesk
from ._horizon import Horizon
from ._opening import Opener
from ._session import AnyKeeper, Session, defect
from ._steps import Finish
from ._tracks import Track
from .options import Options
from .status import State

if TYPE_CHECKING:
    from .cache import Cache


R = TypeVar("R")

DISK_SECONDS: Final = 0.05
"""How long closing waits for what is being written; it is written to its end even so, if the event loop lives on."""


class TaskSession(Session):
    """Runs the shared stream as a task, and, where a service knows no such stream, one task a config."""

    def __init__(
        self, options: Options, transport: AsyncTransport, opener: Opener, cache: Cache | None, horizon: Horizon
    ) -> None:
        super().__init__(options, opener, cache, horizon, len(transport.hosts))
        self._transport = transport
        self._driver: TaskDriver | None = None
        self._delegates: dict[Track, _Delegate] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: asyncio.Task[None] | None = None
        self._unwritten: dict[Track | None, Callable[[], None]] = {}
        """What waits for the disk; it grows with the configs, not with their changes."""

    async def settle(self) -> None:
        """Wait until every task has ended, but not for a disk that is slow; the transport is closed already."""
        aside = {asyncio.current_task(), self._writing}
        others = {task for task in self._tasks if task not in aside}
        if others:
            await asyncio.wait(others)
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=DISK_SECONDS)

    async def unless_closed(self, work: Awaitable[R]) -> R:
        """Return what ``work`` comes to; cancel it, and raise ClosedError, when the client is closed meanwhile."""
        return await self._transport.unless_closed(work)

    def spawn(self, work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task that is waited for when the client closes."""

        async def run() -> None:
            await work()

        task = asyncio.get_running_loop().create_task(run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def is_own_task(self) -> bool:
        """Tell whether the caller is a watching task: a callback, which would wait for itself."""
        return asyncio.current_task() in self._tasks

    def would_wait_for_itself(self) -> bool:
        """Tell whether the caller is on the event loop of the watching tasks."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        return any(task.get_loop() is loop for task in tuple(self._tasks))

    def _go_on(self) -> None:
        if self._driver is not None:
            self._driver.wake(at_once=not self._keepers)
        elif self._keepers:
            driver = TaskDriver(self._transport, self.opener, self, self.options.heartbeat_interval)
            self._driver = driver
            self.spawn(lambda: self._run(driver), "config-client")

    async def _run(self, driver: TaskDriver) -> None:
        try:
            while self._keepers and not self._transport.closed:
                self.drain()
                await driver.run(self._watch.run())
        except BaseException as error:
            if not self._transport.closed:
                self._fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            if self._driver is driver:
                self._driver = None
            if not self._keepers and self._status.state is not State.STOPPED:
                self._rest(State.INITIALIZING, "no subscriptions")
            self.recall()

    def _fail(self, error: BaseException) -> None:
        # A defect of ours; a snapshot that is silently frozen would be worse than one that says so.
        stopped = defect(error)
        for keeper in tuple(self._keepers.values()):
            self.serve(keeper, Finish(stopped, keeper.track))
        self._watch = self._new_watch()

    def _aside(self, work: Callable[[], None], track: Track | None = None) -> None:
        """Do what touches the disk on a thread, one thing after the other; of one config only the latest counts."""
        self._unwritten.pop(track, None)
        self._unwritten[track] = work
        if self._writing is None:
            self._writing = self.spawn(self._write, "config-client cache")

    async def _write(self) -> None:
        try:
            while self._unwritten:
                await asyncio.to_thread(self._unwritten.pop(next(iter(self._unwritten))))
        finally:
            self._writing = None

    # A service that speaks the base protocol only

    def _delegated(self) -> bool:
        return bool(self._delegates)

    def delegate(self) -> None:
        """Give every config a task with a base stream of its own."""
        for track, keeper in tuple(self._keepers.items()):
            if track not in self._delegates:
                delegate = self._delegates[track] = _Delegate(self, self._transport, keeper)
                self.spawn(delegate.run, f"config-client {track.name}")

    def recall(self) -> None:
        """End the tasks that were delegated, and go on from what they have seen."""
        for track, delegate in self._delegates.items():
            delegate.driver.stop()
            delegate.desk.hand_over(track)
        self._delegates.clear()

    def _dismiss(self, keeper: AnyKeeper) -> None:
        delegate = self._delegates.pop(keeper.track, None)
        if delegate is not None:
            delegate.driver.stop()

    def go_on_in_child(self) -> None:
        """Begin anew in a forked child, on its own event loop and connections."""
        self._driver = self._writing = None
        self._delegates, self._tasks, self._unwritten = {}, set(), {}
        self._inbox.clear()
        self._watch = self._new_watch()
        self._forked()
        for keeper in self._keepers.values():
            keeper.renew(asyncio.Event())
        self._go_on()


class _Delegate:
    """One config on a base stream of its own, as a task of its own."""

    def __init__(self, session: TaskSession, transport: AsyncTransport, keeper: AnyKeeper) -> None:
        self.desk = DelegateDesk(session, keeper)
        self.driver = TaskDriver(transport, session.opener, self.desk, session.options.heartbeat_interval)

    async def run(self) -> None:
        """Follow the base stream until called back."""
        try:
            await self.driver.run(self.desk.watch.run())
        except BaseException as error:
            self.desk.ended(error)
            if not isinstance(error, Exception):
                raise
