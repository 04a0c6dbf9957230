"""Performs the commands of a watch as a task of an event loop: the counterpart of ``_driver``.

Knows asyncio and the transport; the rules are in ``watching``, and what is the application's business goes to the desk.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

import httpx
from httpx_sse import ServerSentEvent

from ._aio_transport import AsyncTransport
from ._answers import raise_for_status
from ._desk import Desk
from ._opening import Opener
from ._sse import SSEDecoder
from ._steps import (
    Command,
    Delegate,
    Ended,
    Fetch,
    HangUp,
    NotModified,
    Open,
    OpenStates,
    Outcome,
    Pause,
    Read,
    Recall,
    Steps,
    Unsupported,
    Woken,
)
from ._streams import check_stream, opened, silence_limit, states_opened, states_unsupported
from .errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
)
from .protocol import MIN_REVISION_HEADER, WATCH_PATH, config_path, dump_watch_request, watch_path

R = TypeVar("R")

_END: Final = b""
"""What a stream brings last; a chunk is never empty."""


class TaskDriver:
    """Runs one watch until it ends, or until ``stop``, or until the transport is closed. Used on one event loop."""

    def __init__(self, transport: AsyncTransport, opener: Opener, desk: Desk, heartbeat_interval: float) -> None:
        self._transport = transport
        self._opener = opener
        self._desk = desk
        self._heartbeat = heartbeat_interval
        self._stopped = False
        self._woken = self._patient = False
        self._bell: asyncio.Future[None] | None = None
        self._stream = AsyncExitStack()
        self._decoder = SSEDecoder()
        self._chunks: AsyncIterator[bytes] | None = None
        self._events: Iterator[ServerSentEvent] = iter(())

    def wake(self, *, at_once: bool = False) -> None:
        """End the wait or the read under way, or the next one; a patient read only if it is to be ``at_once``."""
        self._woken = True
        if self._bell is not None and not self._bell.done() and (at_once or not self._patient):
            self._bell.set_result(None)

    def stop(self) -> None:
        """Let ``run`` return soon."""
        self._stopped = True
        self.wake(at_once=True)

    async def run(self, steps: Steps) -> None:
        """Perform ``steps``; return when they end. Raises the error that the watch ends on."""
        outcome: Outcome = None
        try:
            while not self._stopped and not self._transport.closed:
                self._desk.drain()
                outcome = await self._perform(steps.send(outcome))
        except (ClosedError, StopIteration):
            return
        finally:
            steps.close()
            await self._stream.aclose()

    async def _perform(self, command: Command) -> Outcome:
        try:
            return await self._execute(command)
        except ClosedError:
            raise
        except ConfigClientError as error:
            return error

    async def _execute(self, command: Command) -> Outcome:
        match command:
            case Read():
                return await self._read(patient=command.patient)
            case Fetch():
                return await self._fetch(command)
            case Open():
                return await self._open(command)
            case OpenStates():
                return await self._open_states(command)
            case HangUp():
                await self._stream.aclose()
            case Pause():
                return await self._pause(command.seconds)
            case Delegate():
                self._desk.delegate()
                return await self._pause(command.seconds)
            case Recall():
                self._desk.recall()
            case _:
                outcome = self._desk.perform(command)
                return await self._transport.unless_closed(outcome) if inspect.isawaitable(outcome) else outcome
        return None

    async def _pause(self, seconds: float) -> Outcome:
        closed = await self._unless_woken(self._transport.pause(seconds))
        return Woken() if closed is None else None

    async def _unless_woken(self, work: Coroutine[Any, Any, R]) -> R | None:
        """Return what ``work`` returns, or None when woken before or meanwhile."""
        if self._woken and not self._patient:
            self._woken = False
            work.close()
            return None
        loop = asyncio.get_running_loop()
        task: asyncio.Task[R] = loop.create_task(work)
        # Not by cancelling: that could not be told from being cancelled from outside at the same time.
        bell = self._bell = loop.create_future()
        try:
            patience = self._transport.patience if self._patient else None
            done, _ = await asyncio.wait({task, bell}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise ConnectionError("the stream is open and tells nothing; does something on the way hold it back?")
        finally:
            self._bell = None
            bell.cancel()
            if not task.done():
                task.cancel()
                # It lets go of the connection before anything else is done with that.
                await asyncio.wait({task})
        if task.cancelled():
            self._woken = False
            return None
        return task.result()

    async def _fetch(self, command: Fetch) -> Outcome:
        name, query = self._desk.subject(command.track)
        headers = self._opener.headers()
        if command.etag:
            headers["If-None-Match"] = command.etag
        if command.at_least:
            headers[MIN_REVISION_HEADER] = str(command.at_least)
        response = await self._transport.fetch(config_path(name), query, headers, retry=False)
        self._desk.contact()
        if response.status_code == 304:
            return NotModified()
        return self._opener.answer(name, query, response.headers, response.content)

    async def _open(self, command: Open) -> Outcome:
        *others, last = self._transport.order
        for host in others:
            try:
                return await self._open_at(host, command)
            except ConnectionError:
                # Whoever else there is may answer; what the last one says is told.
                continue
        return await self._open_at(last, command)

    async def _open_at(self, host: int, command: Open) -> Outcome:
        name, query = self._desk.subject(None)
        path = watch_path(name)
        headers = {"Last-Event-ID": command.last_event_id} if command.last_event_id else None
        async with AsyncExitStack() as opening:
            response = await opening.enter_async_context(self._transport.stream(path, query, headers, host=host))
            if response.status_code >= 400:
                raise_for_status(response, path)
            halted = check_stream(response.status_code, response.headers)
            if halted is not None:
                return halted
            self._keep(opening, response)
        return opened(response.headers)

    async def _open_states(self, command: OpenStates) -> Outcome:
        headers = self._opener.stream_headers()
        body = dump_watch_request(command.held)
        async with AsyncExitStack() as opening:
            stream = self._transport.stream(WATCH_PATH, None, headers, host=command.host, method="POST", body=body)
            try:
                response = await opening.enter_async_context(stream)
            except AssertionError:
                # How mocks refuse a request that nobody told them of; an application's know the base protocol.
                return Unsupported()
            if states_unsupported(response.status_code):
                return Unsupported()
            if response.status_code >= 400:
                raise_for_status(response, WATCH_PATH)
            halted = check_stream(response.status_code, response.headers)
            if halted is not None:
                return halted
            self._keep(opening, response)
        return states_opened(response.headers)

    def _keep(self, opening: AsyncExitStack, response: httpx.Response) -> None:
        """Go on with this stream once everything about its head was right."""
        self._stream = opening.pop_all()
        self._decoder = SSEDecoder()
        self._events = iter(())
        limit = silence_limit(response.headers, self._heartbeat)
        chunks = self._chunks = self._transport.chunks(response, read_timeout=limit)
        # Left to the garbage collector between two reads, it would end in a task of its own, and some time later.
        self._stream.push_async_callback(chunks.aclose)
        self._desk.contact()

    async def _read(self, *, patient: bool) -> Outcome:
        # The decoder works while it is iterated, so an event in front of one that is too large is not lost with it.
        event = next(self._events, None)
        if event is not None:
            return event
        self._patient = patient
        try:
            chunk = await self._unless_woken(self._next_chunk())
        finally:
            self._patient = False
        if chunk is None:
            return Woken()
        if chunk is _END:
            return Ended()
        self._desk.contact()
        self._events = self._decoder.feed(chunk)
        return next(self._events, None)

    async def _next_chunk(self) -> bytes:
        if self._chunks is None:
            return _END
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            return _END
