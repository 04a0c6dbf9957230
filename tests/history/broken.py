"""Stores that break one promise each, now and then, and replicas on them: what the judge must not overlook.

The replicas are whole services on sockets, in this process, because a store cannot be broken from outside.
"""

from __future__ import annotations

import itertools
import random
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from config_service.app import create_app
from config_service.domain.records import NewVersion, Version
from config_service.process import Operator
from config_service.server import build_server, listen
from config_service.settings import Settings
from config_service.store.protocol import Link, StoreConflictError
from config_service.store.rows import committed_version
from config_service.store.sql import SqlStore

from .world import REPLICAS

EVERY: Final = 50
"""One commit of so many is spoiled, of all replicas together."""


class BrokenStore(SqlStore):
    """A store that spoils a commit whenever ``counter`` comes to a multiple of ``EVERY``."""

    def __init__(self, url: str, counter: itertools.count[int]) -> None:
        super().__init__(url)
        self._counter = counter

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        """Commit, or spoil it."""
        (version,) = await self.commit_versions([change], link)
        return version

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        """Commit, or spoil it."""
        if next(self._counter) % EVERY:
            return await self._commit(changes, link)
        here = await self.position()
        await self._spoil(changes, link)
        return [committed_version(change, here.revision + at) for at, change in enumerate(changes, 1)]

    async def _commit(self, changes: Sequence[NewVersion], link: Link | None) -> list[Version]:
        return await super().commit_versions(changes, link)

    async def _spoil(self, changes: Sequence[NewVersion], link: Link | None) -> None:
        raise NotImplementedError


class DropsCommits(BrokenStore):
    """Acknowledges a commit that it does not make."""

    async def _spoil(self, changes: Sequence[NewVersion], link: Link | None) -> None:
        """Do nothing."""


class ReordersCommits(BrokenStore):
    """Acknowledges a commit and makes it after the next one."""

    def __init__(self, url: str, counter: itertools.count[int]) -> None:
        super().__init__(url, counter)
        self._held: list[tuple[Sequence[NewVersion], Link | None]] = []

    async def _spoil(self, changes: Sequence[NewVersion], link: Link | None) -> None:
        self._held.append((changes, link))

    async def _commit(self, changes: Sequence[NewVersion], link: Link | None) -> list[Version]:
        made = await super()._commit(changes, link)
        while self._held:
            try:
                await super()._commit(*self._held.pop())
            except StoreConflictError:
                # The next one was of the same config and has taken its place.
                continue
        return made


class BrokenReplicas:
    """Replicas on broken stores. Nothing disturbs them: they are trouble enough."""

    def __init__(self, database: str, broken: Callable[[str, itertools.count[int]], BrokenStore]) -> None:
        counter = itertools.count(1)
        self._settings = Settings.load(
            store_url=database,
            master_key=secrets.token_hex(32),
            rate_limit=0,
            heartbeat_interval=0.3,
            watch_heartbeat_interval=0.3,
        )
        self._stores = [broken(database, counter) for _ in range(REPLICAS)]
        self._admin = ""
        self._stack = ExitStack()
        self.urls: Sequence[str] = ()

    def __enter__(self) -> BrokenReplicas:
        with ExitStack() as stack:
            self.urls = [self._start(stack, store) for store in self._stores]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def operator(self) -> Operator:
        """Return a client of the management API with every right."""
        operator = Operator(self.urls[0], self._admin)
        self._stack.callback(operator.close)
        return operator

    def disturb(self, chance: random.Random) -> None:
        """Leave them alone."""

    def heal(self) -> None:
        """They all serve."""

    def _start(self, stack: ExitStack, store: BrokenStore) -> str:
        listener = stack.enter_context(listen("127.0.0.1", 0))
        accepting = threading.Event()

        async def prepare(operations: object) -> None:
            if not self._admin:
                self._admin = (await application.operations.tokens.bootstrap("admin")).secret

        application = create_app(self._settings, store)
        server = build_server(self._settings, application, prepare=prepare, announce=accepting.set)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(server.stop)
        assert accepting.wait(60)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
