"""Subscribing from threads: the shared session put together, and the wait for a first value."""

from __future__ import annotations

from typing import TypeVar

from ._bell import Bell
from ._first_value import Terms, first_value
from ._horizon import Horizon
from ._keeper import Keeper
from ._opening import Opener
from ._session import cache_of
from ._threads import ThreadSession
from .crypto import Keyring
from .errors import ClosedError, ConfigClientError
from .options import Options
from .status import State
from .subscription import Subscription
from .transport import Transport

T = TypeVar("T")


def thread_session(
    options: Options, transport: Transport, opener: Opener, keyring: Keyring, horizon: Horizon
) -> ThreadSession:
    """Return the session of a client's subscriptions; nothing is started yet."""
    return ThreadSession(options, transport, opener, cache_of(options, keyring), horizon)


def subscribe(
    session: ThreadSession,
    keeper: Keeper[T],
    *,
    timeout: float,
    required: bool,
    allow_stale: bool,
    default: T | None,
) -> Subscription[T]:
    """Begin to keep, wait for the first value, and return the subscription; see ``ConfigClient.subscribe``."""
    if timeout > 0 and session.is_own_thread():
        raise ConfigClientError(
            "subscribe() from a callback would wait for the thread that it is called on: call it from another thread, "
            "or with timeout=0 and required=False"
        )
    news = Bell()
    keeper.news = news
    session.add(keeper)
    terms = Terms(timeout, required and default is None, allow_stale, default)
    try:
        for wait in first_value(session, keeper, terms):
            if isinstance(wait, float | int):
                news.wait(wait)
        if session.closed:
            raise ClosedError("the client is closed")
    except BaseException:
        session.remove(keeper)
        raise
    return Subscription(session, keeper)


def follow(session: ThreadSession, keeper: Keeper[T]) -> None:
    """Keep until the client is closed; raise the error that is final."""
    if session.is_own_thread():
        raise ConfigClientError("watch_and_decode() blocks: call it from a thread of its own, not from a callback")
    news = Bell()
    keeper.news = news
    try:
        session.add(keeper)
    except ClosedError:
        return
    try:
        while not keeper.stopped:
            news.wait()
    finally:
        session.remove(keeper)
    status = keeper.status
    if status.state is State.STOPPED and status.error is not None and not isinstance(status.error, ClosedError):
        raise status.error.with_traceback(None)
