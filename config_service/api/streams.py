"""A subscription as an event stream over ASGI: send what comes, notice who has gone, and cut who does not read.

Knows ASGI and subscriptions. Knows nothing of configs or tokens.

A writer that waits in ``send`` for a reader that has stopped reading cannot be told to end; only its connection can
be. The server may therefore put the connection's transport into the scope, and a stream that must end aborts it. With
a server that does not, the waiting writer is cancelled, and closing the connection is left to the server.
"""

from __future__ import annotations

import asyncio
from typing import Final

from ..delivery.frames import HEARTBEAT
from ..delivery.subscription import End, Subscription
from .answers import Headers, Receive, Scope, Send

TRANSPORT_EXTENSION: Final = "config_service.transport"
"""The key in ``scope["extensions"]`` under which a server hands over the ``asyncio.Transport`` of the connection."""
_GRACE: Final = 0.5
"""Seconds that a writer has to end in good order before its connection is aborted."""


class EventStream:
    """One stream, from its headers to its end. Use once: ``await EventStream(…).run(headers)``."""

    def __init__(self, subscription: Subscription, scope: Scope, receive: Receive, send: Send) -> None:
        self._subscription = subscription
        self._receive = receive
        self._send = send
        self._transport: asyncio.Transport | None = (scope.get("extensions") or {}).get(TRANSPORT_EXTENSION)
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
            if self._cut and self._transport is not None:
                # The server calls an unfinished answer an error unless it knows of the aborted connection first.
                await asyncio.wait({watcher}, timeout=_GRACE)
            watcher.cancel()

    async def _write(self, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        # Some clients and proxies report a stream as open with its first byte of body.
        await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        while (frames := await self._subscription.next()) is not None:
            await self._send({"type": "http.response.body", "body": frames, "more_body": True})
        if self._subscription.ended not in {End.READER_GONE, End.OVERFLOW}:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch_reader(self) -> None:
        """End the subscription when the reader disconnects."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._subscription.end(End.READER_GONE)

    def _limit(self, why: End) -> None:
        """See to it that the writer ends soon: at once when the reader is too slow."""
        if why is End.OVERFLOW:
            self._abort()
        else:
            self._deadline = asyncio.get_running_loop().call_later(_GRACE, self._abort)

    def _abort(self) -> None:
        self._cut = True
        if self._transport is not None:
            self._transport.abort()
        elif self._writer is not None:
            self._writer.cancel()
