"""A store of record that is watched: how long its calls take, and how they fail.

Knows the protocol of stores and clocks. Whatever a store has beside the protocol's calls is handed on as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from time import monotonic, perf_counter
from typing import Final, cast

from ..domain.errors import ServiceError, StoreError
from ..store.protocol import ConfigStore, StoreConflictError
from .spans import Spans
from .tallies import Distributions

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds: a durable commit takes about one millisecond on a local disk, and some over a network."""


_COMMITS: Final = ("activate_", "cancel_", "commit_", "replace_", "reseal", "rotate_", "revoke_")
"""How the names of calls begin that change something."""


@dataclass(frozen=True, slots=True)
class FailedCommit:
    """How a commit failed, and when by the clock of the tally."""

    error: StoreError
    at: float


class StoreTally:
    """What is known of the calls of a store."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.seconds: Final = Distributions[str](BOUNDS)
        """Seconds that calls took which succeeded, by the name of the call."""
        self.failures: Final[Counter[tuple[str, str]]] = Counter()
        """How many failed, by the name of the call and the code of the error."""
        self.failed_commit: FailedCommit | None = None
        """The latest change that the store could not make durable; None once one has succeeded again."""

    def note(self, call: str, seconds: float, error: Exception | None) -> None:
        """Take note of a call that has ended. A condition that did not hold is an answer, and no failure."""
        commits = call.startswith(_COMMITS)
        if error is None or isinstance(error, StoreConflictError):
            self.seconds.add(call, seconds)
            if commits:
                self.failed_commit = None
            return
        self.failures[call, error.code if isinstance(error, ServiceError) else "unexpected"] += 1
        if commits and isinstance(error, StoreError):
            self.failed_commit = FailedCommit(error, self._clock())


def measured(store: ConfigStore, tally: StoreTally, spans: Spans | None = None) -> ConfigStore:
    """Return ``store`` with every call noted in ``tally``, and told to ``spans``."""
    return cast("ConfigStore", _Measured(store, tally, spans))


class _Measured:
    """Looks like the store that it stands for: further methods of the protocol need nothing here."""

    def __init__(self, store: ConfigStore, tally: StoreTally, spans: Spans | None) -> None:
        self._store = store
        self._tally = tally
        self._spans = spans

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._store, name)
        if name.startswith("_") or not iscoroutinefunction(found):
            return found
        return self._noted(name, found)

    def _noted(self, name: str, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def noted(*arguments: object, **named: object) -> object:
            began, failure = perf_counter(), None
            end = None if self._spans is None else self._spans.begin(f"store {name}", {"db.operation.name": name})
            try:
                return await call(*arguments, **named)
            except Exception as error:
                failure = error
                raise
            finally:
                self._tally.note(name, perf_counter() - began, failure)
                if end is not None:
                    end("" if failure is None else type(failure).__qualname__)

        return noted
