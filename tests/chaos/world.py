"""A real service, clients behind proxies, and rounds of misfortune, after each of which the laws must hold.

Knows what was published, so it knows what every watcher has to hold in the end.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from stopwatch import stopwatch

from config_client import State
from config_service.process import Operator, ServiceProcess
from config_service.store.session import new_epoch

from .plans import Act, Deed, Disaster, Plan, plan_of
from .proxy import WELL, Kind, LoopThread, Proxy
from .watchers import CLOSE_SECONDS, Awaiting, Blocking, Client, News, Subscribing, Watcher, is_stopped, quick

CONFIGS: Final = ("orders", "billing", "search")
HEARTBEAT: Final = 0.15
"""Seconds between heartbeats, so that a half-open connection is known for dead after thrice this."""
CONVERGENCE_SECONDS: Final = 40.0
"""Seconds after healing in which every watcher must be current: some hundred times what it takes on an idle machine."""


class LawBrokenError(AssertionError):
    """A law of ``docs/ARCHITECTURE.md`` does not hold. ``law`` is its number."""

    def __init__(self, law: int, what: str) -> None:
        super().__init__(f"law {law} is broken: {what}")
        self.law = law


@dataclass(frozen=True)
class Running:
    """What a config is. ``deed``: how it came to be acceptable or not; a rollback has that of what it went back to."""

    version: int
    deed: Deed
    number: int


_REASONS: Final = {
    Deed.DELETE: "deleted",
    Deed.MISFIT: "does not decode",
    Deed.REFUSED: "refused by pre_apply",
}


class World:
    """Use as a context manager: ``World(directory, store).run(seed, rounds)``."""

    def __init__(
        self,
        directory: Path,
        new_store: ServiceProcess,
        *,
        heartbeat: float = HEARTBEAT,
        patience: float = CONVERGENCE_SECONDS,
        kinds: tuple[str, ...] = ("subscribing", "awaiting", "blocking", "base"),
    ) -> None:
        self.bites: Final[Counter[Kind]] = Counter()
        self.disasters: Final[Counter[Disaster]] = Counter()
        self.rounds = 0
        self._directory = directory
        self._patience = patience
        self._kinds = kinds
        settings = {"HEARTBEAT_INTERVAL": str(heartbeat), "WATCH_HEARTBEAT_INTERVAL": str(heartbeat)}
        self._service = ServiceProcess(directory, settings, copy_of=new_store)
        self._news = News()
        self._clients: list[Client] = []
        self._number = 0
        self._running: dict[int, Running] = {}
        self._versions: dict[int, list[Running]] = {at: [] for at in range(len(CONFIGS))}
        self._ever: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """The numbers that were ever published as this version of a config; more than one after a restoration."""
        self._restorations = 0
        self._backup: tuple[dict[int, Running], dict[int, list[Running]]] = ({}, {})
        self._stack = ExitStack()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            stack.enter_context(self._service)
            self._operator: Operator = self._service.operator()
            for at in range(len(CONFIGS)):
                self._do(Act(Deed.PUBLISH, at, 0, 0.0, 0.0))
            access = self._operator.mint("chaos")
            carrier = stack.enter_context(LoopThread("chaos proxies"))
            own = stack.enter_context(LoopThread("chaos application"))
            for kind in self._kinds:
                proxy = Proxy(carrier, self._service.url, base_only=kind == "base")
                stack.callback(proxy.close)
                cache = self._directory / "cache" if kind == "subscribing" else None
                options = quick(access.token, access.key, cache)
                if kind == "awaiting":
                    self._clients.append(Awaiting(kind, proxy, options, CONFIGS, self._news, own))
                elif kind == "blocking":
                    self._clients.append(Blocking(kind, proxy, options, CONFIGS, self._news))
                else:
                    self._clients.append(Subscribing(kind, proxy, options, CONFIGS, self._news))
            for client in self._clients:
                client.open(0)
                stack.callback(client.close)
            self._back_up()
            self._settle(lambda client: True, polling=False)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def run(self, seed: int, rounds: int, first: int = 0, *, over: Callable[[], bool] = lambda: False) -> None:
        """Play rounds ``first`` and following, until it is ``over``.

        Raises LawBrokenError, and tells how to play the same round again.
        """
        for number in range(first, first + rounds):
            if over():
                return
            plan = plan_of(seed, number, proxies=len(self._clients), configs=len(CONFIGS))
            try:
                self.play(plan)
            except Exception as error:
                alone = f"make chaos SEED={seed} FIRST={number} ROUNDS=1"
                after_all = f"make chaos SEED={seed} FIRST={first} ROUNDS={number - first + 1} WORLDS=1"
                again = f"\n  the round alone:     {alone}\n  with all before it:  {after_all}"
                error.args = (f"{error}\n  in round {number} of seed {seed}: {plan}{again}",)
                raise

    def play(self, plan: Plan) -> None:
        """Play one round. Raises LawBrokenError."""
        for act in plan.before:
            self._do(act)
        for client, fault in zip(self._clients, plan.faults, strict=True):
            if fault != WELL:
                client.proxy.apply(fault)
        for act in plan.during:
            self._do(act)
        self._strike(plan.disaster)
        if plan.lasting:
            time.sleep(plan.lasting)
        self._settle(lambda client: client.proxy.fault.kind is Kind.BLOCKED, polling=True)
        reopened = None if plan.reopened is None else self._clients[plan.reopened]
        if reopened is not None:
            self._close(reopened)
        for client in self._clients:
            if client.proxy.fault != WELL:
                client.proxy.heal()
            self.bites.update(client.proxy.bites)
            client.proxy.bites.clear()
        if reopened is not None:
            if not reopened.proxy.wait_until_open(0, CLOSE_SECONDS):
                raise LawBrokenError(6, f"{reopened.proxy.open} connections of {reopened.name} are open after close()")
            reopened.open(self._restorations)
        self._settle(lambda client: True, polling=False)
        self.rounds += 1

    # The operator

    def _do(self, act: Act) -> None:
        """Publish, delete or roll back; what cannot be done just now becomes a publication."""
        if act.pause:
            time.sleep(act.pause)
        name, config = CONFIGS[act.config], act.config
        running, deed, number = self._running.get(config), act.deed, self._number + 1
        if deed is Deed.ROLL_BACK:
            others = [each for each in self._versions[config] if running is not None and each.number != running.number]
            if others:
                target = others[int(act.fraction * len(others))]
                version = self._operator.roll_back(name, target.version)
                self._note(config, Running(version, target.deed, target.number))
                return
        if deed is Deed.DELETE and running is not None and running.deed is not Deed.DELETE:
            self._running[config] = Running(self._operator.delete(name), Deed.DELETE, 0)
            return
        self._number = number
        document: dict[str, object] = {"number": number, "padding": "x" * act.size}
        if deed is Deed.MISFIT:
            document["number"] = "none"
        elif deed is Deed.REFUSED:
            document["refused"] = True
        else:
            deed = Deed.PUBLISH
        # A misfit's number is only ours; it makes its bytes different from those of every other.
        document["padding"] = f"{number} {document['padding']}"
        self._note(config, Running(self._operator.publish(name, document), deed, number))

    def _note(self, config: int, running: Running) -> None:
        self._running[config] = running
        self._versions[config].append(running)
        self._ever[config, running.version].add(running.number)

    # The service

    def _strike(self, disaster: Disaster) -> None:
        self.disasters[disaster] += 1
        if disaster is Disaster.NONE:
            return
        if disaster is Disaster.KILL:
            self._back_up()
        self._service.kill()
        if disaster is Disaster.RESTORE:
            self._restore()
        self._service.start()

    def _back_up(self) -> None:
        """Copy the store of the running service, and remember what is in it."""
        (self._directory / "backup.db").unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(self._directory / "config.db")) as store,
            closing(sqlite3.connect(self._directory / "backup.db")) as copy,
        ):
            store.backup(copy)
        self._backup = (dict(self._running), {config: list(rows) for config, rows in self._versions.items()})

    def _restore(self) -> None:
        for file in self._directory.glob("config.db*"):
            file.unlink()
        shutil.copy(self._directory / "backup.db", self._directory / "config.db")
        with closing(sqlite3.connect(self._directory / "config.db")) as connection, connection:
            connection.execute("UPDATE history SET epoch = ?", (new_epoch(),))
        running, versions = self._backup
        self._running, self._versions = dict(running), {config: list(rows) for config, rows in versions.items()}
        self._restorations += 1
        for client in self._clients:
            # What was recorded is of the earlier history, which a client that is made anew cannot know.
            client.proxy.recordings.clear()
            for watcher in client.watchers:
                watcher.descents += 1

    # The laws

    def _settle(self, concerned: Callable[[Client], bool], *, polling: bool) -> None:
        """Wait until the watchers of the concerned clients are where they must be, and look at where they were."""
        watchers = [watcher for client in self._clients if concerned(client) for watcher in client.watchers]
        self._news.wait_for(lambda: all(self._is_current(each, polling=polling) for each in watchers), self._patience)
        for watcher in watchers:
            self._check_value(watcher)
            self._check_order(watcher)
        waiting = [watcher for watcher in watchers if not self._is_current(watcher, polling=polling)]
        for watcher in waiting:
            running = self._running[watcher.config]
            raise LawBrokenError(
                1 if self._accepts(watcher, running) else 3,
                f"{self._patience:g} s after everything healed, {watcher}; running is {running}",
            )

    def _accepts(self, watcher: Watcher, running: Running) -> bool:
        return running.deed is Deed.PUBLISH or (running.deed is Deed.REFUSED and not watcher.proves)

    def _is_current(self, watcher: Watcher, *, polling: bool) -> bool:
        """Tell whether a watcher holds what runs, or says why it does not."""
        running, status = self._running[watcher.config], watcher.status
        if self._accepts(watcher, running):
            held = (watcher.snapshot.version, watcher.number) == (running.version, running.number)
            wanted = {State.LIVE, State.POLLING} if polling else {State.LIVE}
            return held and (status is None or status.state in wanted)
        if status is None or not watcher.held:
            return not is_stopped(watcher)
        return status.state is State.STALE and status.reason == _REASONS[running.deed]

    def _check_order(self, watcher: Watcher) -> None:
        versions = [version or 0 for version, _ in watcher.held]
        descents = [at for at in range(1, len(versions)) if versions[at] <= versions[at - 1]]
        if len(descents) > watcher.descents:
            at = descents[-1]
            raise LawBrokenError(
                2,
                f"{watcher.name}/{watcher.config} went from version {versions[at - 1]} to {versions[at]}"
                f" (the restored backups explain {watcher.descents} such steps)",
            )

    def _check_value(self, watcher: Watcher) -> None:
        if is_stopped(watcher):
            raise LawBrokenError(1, f"a watcher has given up: {watcher}")
        for version, number in watcher.held:
            if number is None or version is None:
                raise LawBrokenError(3, f"{watcher.name}/{watcher.config} lost its value")
            if number not in self._ever[watcher.config, version]:
                raise LawBrokenError(
                    3, f"{watcher.name}/{watcher.config} held number {number} as version {version}, which never was"
                )
        if watcher.held and watcher.number is None:
            raise LawBrokenError(3, f"{watcher.name}/{watcher.config} lost its value")

    def _close(self, client: Client) -> None:
        with stopwatch() as took:
            left = client.close()
        if left:
            raise LawBrokenError(6, f"close() of {client.name} left {', '.join(left)}")
        if took.seconds > CLOSE_SECONDS:
            raise LawBrokenError(6, f"close() of {client.name} took {took.seconds:.2f} s")
