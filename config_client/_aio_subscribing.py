"""Subscribing from tasks: the wait for a first value, and for the end."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from ._first_value import Terms, first_value
from ._keeper import Keeper
from ._tasks import TaskSession
from .errors import ClosedError, ConfigClientError
from .status import State
from .subscription import Subscription

T = TypeVar("T")


async def subscribe(session: TaskSession, keeper: Keeper[T], terms: Terms[T]) -> Subscription[T]:
    """Begin to keep, wait for the first value, and return; see ``AsyncConfigClient.subscribe``."""
    if terms.timeout > 0 and session.is_own_task():
        raise ConfigClientError(
            "subscribe() from a callback would wait for the task that it is called on: call it from another task, or "
            "with timeout=0 and required=False"
        )
    news = asyncio.Event()
    keeper.news = news
    session.add(keeper)
    try:
        for wait in first_value(session, keeper, terms):
            if isinstance(wait, float | int):
                await _news_within(news, wait)
            else:
                await session.unless_closed(wait)
        if session.closed:
            raise ClosedError("the client is closed")
    except BaseException:
        session.remove(keeper)
        raise
    return Subscription(session, keeper)


async def follow(session: TaskSession, keeper: Keeper[T]) -> None:
    """Keep until the client is closed; raise the error that is final."""
    news = asyncio.Event()
    keeper.news = news
    try:
        session.add(keeper)
    except ClosedError:
        return
    try:
        while not keeper.stopped:
            await news.wait()
            news.clear()
    finally:
        session.remove(keeper)
    status = keeper.status
    if status.state is State.STOPPED and status.error is not None and not isinstance(status.error, ClosedError):
        raise status.error.with_traceback(None)


async def _news_within(news: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(news.wait(), seconds)
    except asyncio.TimeoutError:
        return
    # What happened between the look and the clearing is seen by the next look.
    news.clear()
