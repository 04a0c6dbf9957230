"""A subscription as an event stream: on a connection that the server hands over, or over ASGI.

Knows ASGI, transports and subscriptions. Knows nothing of configs or tokens.

The service's own server puts a function into the scope that gives the connection away for good: the stream is then its
last answer, its frames are written to the transport as they are, and nothing of the request is left in memory. With
any other server a task sends the frames. A task that waits in ``send`` for a reader that has stopped reading cannot be
told to end; it is cancelled, and closing the connection is left to the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ..delivery.direct import DirectReader
from ..delivery.frames import HEARTBEAT
from ..delivery.subscription import End, QueuedReader, Reader
from .answers import Headers, Receive, Scope, Send
from .exchange import EXCHANGE, Exchange

TAKE_OVER_EXTENSION: Final = "config_service.take_over"
"""The key in ``scope["extensions"]`` of a ``TakeOver``."""
TakeOver = Callable[[Headers], tuple[asyncio.Transport, bytes] | None]
"""Gives the transport of the connection away, with the encoded head of a 200 answer with these headers and a body that
ends with the connection. None when the connection is lost. Whoever takes it gives it a protocol at once."""
_GRACE: Final = 0.5
"""Seconds that a writer has to end in good order before it is cancelled."""


def reader_of(scope: Scope) -> Reader[DirectReader | QueuedReader]:
    """Return what makes the subscription of a request: one that is written to directly, where the server allows it."""
    return DirectReader if TAKE_OVER_EXTENSION in (scope.get("extensions") or {}) else QueuedReader


async def stream(
    subscription: DirectReader | QueuedReader, headers: Headers, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send ``headers`` and the frames of ``subscription``; return when a server's part of that is done."""
    if isinstance(subscription, QueuedReader):
        await EventStream(subscription, receive, send).run(headers)
        return
    take_over: TakeOver = scope["extensions"].pop(TAKE_OVER_EXTENSION)
    exchange: Exchange | None = scope.get(EXCHANGE)
    taken = take_over(headers if exchange is None else [*headers, exchange.header])
    if taken is None:
        subscription.end(End.READER_GONE)
        return
    if exchange is not None:
        exchange.status = 200
    transport, head = taken
    # Some clients and proxies report a stream as open with its first byte of body.
    subscription.attach(transport, head + HEARTBEAT)


class EventStream:
    """One stream over ASGI, from its headers to its end. Use once: ``await EventStream(…).run(headers)``."""

    def __init__(self, subscription: QueuedReader, receive: Receive, send: Send) -> None:
        self._subscription = subscription
        self._receive = receive
        self._send = send
        self._writer: asyncio.Task[object] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._cut = False

    async def run(self, headers: Headers) -> None:
        """Send ``headers`` and then frames until the subscription ends or the reader is gone."""
        self._writer = asyncio.current_task()
        watcher = asyncio.create_task(self._watch_reader())
        self._subscription.on_end(self._limit)
        try:
            await self._write(headers)
        except asyncio.CancelledError:
            if not self._cut:
                raise
            # The cancellation was this stream's own; it is spent.
            if self._writer is not None:
                self._writer.uncancel()
        except OSError:
            # Some servers say so when the reader has gone.
            pass
        finally:
            self._subscription.end(End.READER_GONE)
            if self._deadline is not None:
                self._deadline.cancel()
            watcher.cancel()

    async def _write(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        # Some clients and proxies report a stream as open with its first byte of body.
        await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        while (frames := await self._subscription.next()) is not None:
            await self._send({"type": "http.response.body", "body": frames, "more_body": True})
        if self._subscription.ended not in {End.READER_GONE, End.OVERFLOW, End.FAILED}:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch_reader(self) -> None:
        """End the subscription when the reader disconnects."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._subscription.end(End.READER_GONE)

    def _limit(self, why: End) -> None:
        """See to it that the writer ends soon: at once when the reader is too slow."""
        if why is End.OVERFLOW:
            self._cancel()
        else:
            self._deadline = asyncio.get_running_loop().call_later(_GRACE, self._cancel)

    def _cancel(self) -> None:
        self._cut = True
        if self._writer is not None:
            self._writer.cancel()
