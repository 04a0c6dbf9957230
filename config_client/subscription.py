"""``Subscription``: what an application holds of a config that is kept current in the background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ._keeper import Keeper
from ._session import Session
from .errors import ConfigClientError
from .snapshot import Change, Snapshot
from .status import State, Status

T = TypeVar("T")


class Subscription(Generic[T]):
    """A config that is kept current until ``close``. Made by ``ConfigClient.subscribe`` and ``AsyncConfigClient``'s.

        with client.subscribe("orders", OrdersConfig) as orders:
            config = orders.snapshot.load()

    Safe to share between threads. In a forked child it goes on with the value it had, on a connection of its own.
    """

    __slots__ = ("__weakref__", "_keeper", "_session")

    def __init__(self, session: Session, keeper: Keeper[T]) -> None:
        self._session = session
        self._keeper = keeper

    def __repr__(self) -> str:
        return f"<Subscription {self.config_name!r} {self.status.state.value} version={self.snapshot.version}>"

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def config_name(self) -> str:
        """The name of the config."""
        return self._keeper.track.name

    @property
    def snapshot(self) -> Snapshot[T]:
        """The value, its version and its changes."""
        return self._keeper.snapshot

    @property
    def status(self) -> Status:
        """How current the value is, and why."""
        return self._keeper.status

    @property
    def error(self) -> ConfigClientError | None:
        """The last error of this config or of its connection; None when all went well since."""
        return self._keeper.failure

    @property
    def age(self) -> float | None:
        """Seconds since the value was known to be current; None without a value.

        While LIVE this is the time since the stream last brought anything, a heartbeat included.
        """
        return self._session.age(self._keeper)

    def load(self) -> T | None:
        """Return the current value, or None while there is none. Takes no lock."""
        return self._keeper.snapshot.load()

    def on_change(self, callback: Callable[[Change[T]], object]) -> Callable[[], None]:
        """Call ``callback`` with every later Change; return the function that ends this."""
        return self._keeper.snapshot.on_change(callback)

    def wait_for(self, version: int | None = None, timeout: float | None = None) -> bool:
        """Block until a value of at least ``version`` is in place; tell whether it came within ``timeout`` seconds.

        Returns False as soon as the subscription is closed or has ended: none will come then. Raises ConfigClientError
        where it would wait for itself: in a callback, and on the event loop of an AsyncConfigClient; see ``until``.
        """
        if timeout != 0 and self._session.would_wait_for_itself() and not self.snapshot.wait_for(version, 0):
            raise ConfigClientError(
                "wait_for() here would wait for the thread that it is called on: use until() on an event loop, and "
                "another thread for what a callback begins"
            )
        return self.snapshot._wait(version, timeout, lambda: self._keeper.stopped)

    async def until(self, version: int | None = None, timeout: float | None = None) -> bool:
        """Return what ``wait_for`` does, without blocking the event loop of asyncio that this is awaited on."""
        return await self.snapshot._until(version, timeout, lambda: self._keeper.stopped)

    def close(self) -> None:
        """End this subscription; the value stays as it is. Idempotent."""
        self._session.remove(self._keeper)

    @property
    def closed(self) -> bool:
        """Whether nothing will change any more: closed, or ended by an error."""
        return self.status.state is State.STOPPED
