"""What ``subscribe`` does until it returns: wait for a first value, then for the disk, then for the default.

A generator without I/O of its own: it yields the seconds to wait for news at most, and is resumed when there is news or
the time is over. Both kinds of client drive it.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ._keeper import Keeper
from ._session import Session
from ._steps import Outcome
from .errors import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
)

T = TypeVar("T")

Wait = float | Awaitable[Outcome]
"""Seconds to wait for news, or something to await first."""


@dataclass(frozen=True)
class Terms(Generic[T]):
    """What the application accepts as a first value. ``timeout`` in seconds."""

    timeout: float
    required: bool
    allow_stale: bool
    default: T | None


def first_value(session: Session, keeper: Keeper[T], terms: Terms[T]) -> Generator[Wait, None, None]:
    """Yield how long to wait until ``keeper`` has a value; raise the error that says why there is none."""
    deadline = time.monotonic() + terms.timeout
    asked_disk = not terms.allow_stale
    while not keeper.filled and not keeper.stopped:
        remaining = deadline - time.monotonic()
        # Once the newest state is known not to do, waiting longer would mend nothing.
        over = remaining <= 0 or keeper.troubled
        if not asked_disk and (over or _is_outage(keeper.failure)):
            asked_disk = True
            yield from _from_disk(session, keeper)
            continue
        if over:
            break
        yield remaining
    if keeper.filled:
        return
    if terms.default is not None:
        keeper.fall_back(terms.default)
    elif terms.required:
        # What the watching thread was doing is of no use here, and its variables are not for error trackers.
        raise _why(keeper, terms).with_traceback(None)


def _from_disk(session: Session, keeper: Keeper[T]) -> Generator[Wait, None, None]:
    cached = session.cached(keeper.track)
    if cached is not None:
        outcome = session.restore(keeper, cached)
        if inspect.isawaitable(outcome):
            yield outcome


def _is_outage(failure: ConfigClientError | None) -> bool:
    return failure is not None and not isinstance(failure, UnauthorizedError | ForbiddenError | NotFoundError)


def _why(keeper: Keeper[T], terms: Terms[T]) -> ConfigClientError:
    failure = keeper.failure or keeper.status.error
    if failure is not None:
        return failure
    return ConnectionError(
        f"config {keeper.track.name!r}: no value within {terms.timeout:g} s; is the service up, and host right?"
    )
