"""The clients under test, one per proxy, and all that their snapshots ever held.

Knows the public surface of the SDK; of its inside only where threads and tasks can be found that must have ended.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config_client import (
    AsyncConfigClient,
    Change,
    ConfigClient,
    ConfigClientError,
    Options,
    Snapshot,
    State,
    Status,
    Subscription,
    UnauthorizedError,
)

from .proxy import PATIENCE, LoopThread, Proxy

CLOSE_SECONDS: Final = 2.0
"""Seconds that ``close`` may take here, where the machine may be busy with everything else. What it takes at most on
an idle one is measured in ``end_to_end/test_closing.py``."""


@dataclass(frozen=True)
class Document:
    """What every config holds. ``number`` is different in each that was ever published."""

    number: int
    refused: bool = False
    padding: str = ""


class News:
    """Wakes whoever waits for something to happen to a snapshot or a status; also the metrics of every client."""

    def __init__(self) -> None:
        self._condition = threading.Condition()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``predicate`` holds; tell whether it came to."""
        deadline = time.monotonic() + timeout
        with self._condition:
            while not predicate():
                if time.monotonic() > deadline:
                    return False
                # Not everything that may change is told of.
                self._condition.wait(0.05)
        return True

    def tell(self, *_: object) -> None:
        """Wake."""
        with self._condition:
            self._condition.notify_all()

    def applied(self, config_name: str, version: int | None, delay: float | None) -> None:
        """Wake at a new value."""
        self.tell()

    def failed(self, config_name: str, error: ConfigClientError) -> None:
        """Wake at a failure."""
        self.tell()

    def status(self, config_name: str, status: Status) -> None:
        """Wake at a new status."""
        self.tell()

    def connected(self, up: bool) -> None:
        """Wake at a new state of the connection."""
        self.tell()


@dataclass
class Watcher:
    """One snapshot that is kept current. ``held``: version and number of everything it ever held, in order."""

    name: str
    config: int
    proves: bool
    """Whether its ``pre_apply`` refuses what says so."""
    snapshot: Snapshot[Document] = field(default_factory=Snapshot)
    held: list[tuple[int | None, int | None]] = field(default_factory=list)
    descents: int = 0
    """How many times a lower version may follow a higher one: once for every backup that was restored."""
    subscription: Subscription[Document] | None = None

    def listen(self, news: News) -> None:
        """Write down every value from now on."""

        def note(change: Change[Document]) -> None:
            value: Document | None = change.new
            self.held.append((change.version, None if value is None else value.number))
            news.tell()

        self.snapshot.on_change(note)

    @property
    def number(self) -> int | None:
        """The number of the document that is held now."""
        value = self.snapshot.load()
        return None if value is None else value.number

    @property
    def status(self) -> Status | None:
        """How the subscription stands; None for one that blocks a thread."""
        return None if self.subscription is None else self.subscription.status

    def __str__(self) -> str:
        return f"{self.name}/{self.config} holds {self.snapshot!r} number {self.number}, {self.status}"


class Client(ABC):
    """A client of one kind behind its proxy, made anew as often as a plan wants."""

    proves = True

    def __init__(self, name: str, proxy: Proxy, options: dict[str, Any], configs: tuple[str, ...], news: News) -> None:
        self.name: Final = name
        self.proxy: Final = proxy
        self.watchers: list[Watcher] = []
        self._configs = configs
        self._news = news
        self._options = Options(**{"host": proxy.url, "metrics": news, **options})

    def open(self, descents: int) -> None:
        """Watch all configs; their first values may come later."""
        self.watchers = [Watcher(self.name, at, self.proves, descents=descents) for at in range(len(self._configs))]
        for watcher in self.watchers:
            watcher.listen(self._news)
        self._open()

    @abstractmethod
    def close(self) -> list[str]:
        """Close the client; return what is still there of it afterwards."""

    @abstractmethod
    def _open(self) -> None:
        """Make the client and let every watcher's snapshot be kept."""


def prove(value: Document) -> bool:
    """Refuse what says so."""
    return not value.refused


class Subscribing(Client):
    """``ConfigClient.subscribe``."""

    _client: ConfigClient

    def _open(self) -> None:
        self._client = ConfigClient(self._options)
        for watcher in self.watchers:
            watcher.subscription = self._client.subscribe(
                self._configs[watcher.config],
                Document,
                timeout=0,
                required=False,
                pre_apply=prove,
                snapshot=watcher.snapshot,
            )

    def close(self) -> list[str]:
        session = self._client._session
        assert session is not None
        threads = [session._thread, *(delegate.thread for delegate in session._delegates.values())]
        self._client.close()
        return _alive(threads)


class Blocking(Client):
    """``ConfigClient.watch_and_decode``, one thread of the application's for each config."""

    proves = False
    _client: ConfigClient
    _threads: list[threading.Thread]

    def _open(self) -> None:
        self._client = ConfigClient(self._options)
        self._threads = [
            threading.Thread(
                target=self._client.watch_and_decode,
                args=(self._configs[watcher.config], Document, watcher.snapshot),
                name=f"chaos {self.name}",
                daemon=True,
            )
            for watcher in self.watchers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> list[str]:
        session = self._client._session
        threads = [*self._threads, session._thread if session else None]
        self._client.close()
        return _alive(threads)


class Awaiting(Client):
    """``AsyncConfigClient.subscribe``, on the event loop of ``carrier``."""

    _client: AsyncConfigClient

    def __init__(
        self,
        name: str,
        proxy: Proxy,
        options: dict[str, Any],
        configs: tuple[str, ...],
        news: News,
        carrier: LoopThread,
    ) -> None:
        super().__init__(name, proxy, options, configs, news)
        self._carrier = carrier

    def _open(self) -> None:
        self._carrier.run(self._subscribe())

    async def _subscribe(self) -> None:
        self._client = AsyncConfigClient(self._options)
        for watcher in self.watchers:
            watcher.subscription = await self._client.subscribe(
                self._configs[watcher.config],
                Document,
                timeout=0,
                required=False,
                pre_apply=prove,
                snapshot=watcher.snapshot,
            )

    def close(self) -> list[str]:
        tasks = list(self._client._session._tasks)
        self._carrier.run(self._close(tasks), PATIENCE)
        return [f"task {task.get_name()!r}" for task in tasks if not task.done()]

    async def _close(self, tasks: list[asyncio.Task[None]]) -> None:
        await self._client.close()
        # What is being written to the disk may take a little longer than closing waits for it.
        if pending := [task for task in tasks if not task.done()]:
            await asyncio.wait(pending, timeout=CLOSE_SECONDS)


def quick(token: str, key: str, cache: Path | None = None) -> dict[str, Any]:
    """Return the options of clients that lose no time."""
    return {
        "service_token": token,
        "encryption_key": key,
        "request_timeout": 1.0,
        "retry_delay": 0.05,
        "max_retry_delay": 0.1,
        "poll_interval": 0.2,
        # A config may be deleted when it is looked at for the first time.
        "final_errors": (UnauthorizedError,),
        "cache": cache is not None,
        "cache_directory": cache,
    }


def is_stopped(watcher: Watcher) -> bool:
    """Tell whether the watcher has given up."""
    return watcher.status is not None and watcher.status.state is State.STOPPED


def _alive(threads: list[threading.Thread | None]) -> list[str]:
    deadline = time.monotonic() + CLOSE_SECONDS
    known = [thread for thread in threads if thread is not None]
    for thread in known:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [f"thread {thread.name!r}" for thread in known if thread.is_alive()]
