"""A reader whose connection is written to directly: what every stream is on the service's own server.

Knows transports and frames. Knows nothing of HTTP. Thousands of these wait at the same time, so each is one small
object without a task, a queue or a dictionary of its own, and a frame is the same bytes object for all of them. Only a
reader that does not keep up gets a queue, and one that falls too far behind has its connection aborted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from .frames import HEARTBEAT
from .subscription import Audience, End, Replay, Subscription, Waiting

_TURN_BYTES: Final = 512 * 1024
"""Bytes written to one reader without a pause: others must not wait while a fast one takes a long backlog."""
_logger = logging.getLogger("config_service")


class DirectReader(Subscription, asyncio.Protocol):
    """A stream on a transport: the protocol of its connection from ``attach`` on."""

    __slots__ = ("_limit", "_paused", "_transport", "_waiting")

    def __init__(self, audience: Audience, replay: Replay, backlog: Iterator[bytes] | None, limit: int) -> None:
        super().__init__(audience, replay)
        self._limit = limit
        self._transport: asyncio.Transport | None = None
        self._paused = True
        self._waiting: Waiting | None = Waiting(backlog, limit)

    def attach(self, transport: asyncio.Transport, head: bytes) -> None:
        """Take ``transport`` over: write ``head``, then the frames. Its protocol so far hears of nothing any more.

        A subscription that has ended already closes it behind ``head``.
        """
        transport.set_protocol(self)
        self._transport = transport
        # Whatever the kernel does not take at once counts as a reader that does not keep up. Over TLS the limit is
        # reached by as much as it, and not only passed: with 0 an empty buffer would be a full one.
        transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1, low=0)
        # Had the transport paused its former protocol, it would not say so again.
        self._paused = transport.get_write_buffer_size() > 0
        transport.resume_reading()
        transport.write(head)
        if self._ended is not None:
            self._finish(self._ended)
        elif not self._paused:
            self._feed()

    def _waits(self) -> Waiting | None:
        return self._waiting

    # What the hub calls

    def offer(self, frame: bytes) -> None:
        """Write ``frame``, or queue it behind what waits; when the queue is full, cut the connection."""
        if self._ended is not None:
            return
        if self._waiting is None and self._transport is not None:
            self._transport.write(frame)
        elif self._waiting is not None and not self._waiting.add(frame):
            self.end(End.OVERFLOW)

    def beat(self) -> None:
        """Write a heartbeat, unless frames are waiting."""
        if not self._waiting:
            self.offer(HEARTBEAT)

    def _finish(self, why: End) -> None:
        self._waiting = None
        transport, self._transport = self._transport, None
        if transport is None:
            # Not attached yet, or not any more.
            return
        if why in {End.READER_GONE, End.OVERFLOW, End.FAILED} or transport.get_write_buffer_size():
            # Closing in good order would wait for a reader that may never take what is left.
            transport.abort()
        else:
            transport.close()

    # What the transport calls

    def pause_writing(self) -> None:
        """Queue from now on: the reader does not keep up."""
        self._paused = True
        if self._waiting is None and self._ended is None:
            self._waiting = Waiting(None, self._limit)

    def resume_writing(self) -> None:
        """Go on with what waits: everything written so far was taken."""
        self._paused = False
        self._feed()

    def data_received(self, data: bytes) -> None:
        """Ignore what comes after the request: a stream is the last answer on its connection."""

    def eof_received(self) -> None:
        """End: the reader is gone. The transport closes itself."""
        self.end(End.READER_GONE)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the reader is gone."""
        self.end(End.READER_GONE)

    def _feed(self) -> None:
        """Write what waits, until the transport has enough of it or nothing is left."""
        written = 0
        while not self._paused and self._waiting is not None and self._transport is not None:
            try:
                frames = self._waiting.take()
            except Exception as error:
                # The reader comes back and is told anew.
                _logger.error("a stream cannot be told what it asked for: %s", type(error).__qualname__)
                self.end(End.FAILED)
                return
            if frames:
                self._transport.write(frames)
                written += len(frames)
            elif not self._waiting:
                self._waiting = None
            if written >= _TURN_BYTES:
                asyncio.get_running_loop().call_soon(self._feed)
                return
