"""Performs the commands of a watch on the calling thread.

Knows the transport; the rules are in ``watching``, and what is the application's business goes to the desk.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext

import httpx
from httpx_sse import ServerSentEvent

from ._deadline import within
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
from ._waker import Waker
from .errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    RefusedError,
)
from .protocol import MIN_REVISION_HEADER, WATCH_PATH, config_path, dump_watch_request, watch_path
from .transport import Transport, raise_for_status, socket_of


class ThreadDriver:
    """Runs one watch until it ends, or until ``stop``, or until the transport is closed."""

    def __init__(self, transport: Transport, opener: Opener, desk: Desk, heartbeat_interval: float) -> None:
        self._transport = transport
        self._opener = opener
        self._desk = desk
        self._heartbeat = heartbeat_interval
        self._waker = Waker(transport.interrupt)
        self._stopped = False
        self._stream = ExitStack()
        self._decoder = SSEDecoder()
        self._chunks: Iterator[bytes] = iter(())
        self._events: Iterator[ServerSentEvent] = iter(())

    def wake(self, *, at_once: bool = False) -> None:
        """End the wait or the read under way, or the next one. May be called from any thread."""
        self._waker.wake(at_once=at_once)

    def stop(self) -> None:
        """Let ``run`` return soon. May be called from any thread."""
        self._stopped = True
        self._waker.wake(at_once=True)

    def abandon(self) -> None:
        """Let ``run`` return without touching the stream: this is a forked child, and the stream is its parent's."""
        self._stopped = True

    def run(self, steps: Steps) -> None:
        """Perform ``steps``; return when they end. Raises the error that the watch ends on."""
        outcome: Outcome = None
        with self._transport.activity():
            try:
                while not self._stopped and not self._transport.closed:
                    self._desk.drain()
                    outcome = self._perform(steps.send(outcome))
            except (ClosedError, StopIteration):
                return
            finally:
                self._hang_up()
                steps.close()

    def _perform(self, command: Command) -> Outcome:
        try:
            return self._execute(command)
        except ClosedError:
            raise
        except ConfigClientError as error:
            return error

    def _execute(self, command: Command) -> Outcome:
        match command:
            case Read():
                return self._read(patient=command.patient)
            case Fetch():
                return self._fetch(command)
            case Open():
                return self._open(command)
            case OpenStates():
                return self._open_states(command)
            case HangUp():
                self._hang_up()
            case Pause():
                return self._pause(command.seconds)
            case Delegate():
                self._desk.delegate()
                return self._pause(command.seconds)
            case Recall():
                self._desk.recall()
            case _:
                outcome = self._desk.perform(command)
                if not inspect.isawaitable(outcome):
                    return outcome
                if inspect.iscoroutine(outcome):
                    outcome.close()
                return RefusedError("pre_apply is asynchronous: use AsyncConfigClient, or a plain function")
        return None

    def _pause(self, seconds: float) -> Outcome:
        self._waker.wait(seconds)
        return Woken() if self._waker.woken() else None

    def _fetch(self, command: Fetch) -> Outcome:
        name, query = self._desk.subject(command.track)
        headers = self._opener.headers()
        if command.etag:
            headers["If-None-Match"] = command.etag
        if command.at_least:
            headers[MIN_REVISION_HEADER] = str(command.at_least)
        response = self._transport.fetch(config_path(name), query, headers, retry=False)
        self._desk.contact()
        if response.status_code == 304:
            return NotModified()
        return self._opener.answer(name, query, response.headers, response.content)

    def _open(self, command: Open) -> Outcome:
        *others, last = self._transport.order
        for host in others:
            try:
                return self._open_at(host, command)
            except ConnectionError:
                # Whoever else there is may answer; what the last one says is told.
                continue
        return self._open_at(last, command)

    def _open_at(self, host: int, command: Open) -> Outcome:
        name, query = self._desk.subject(None)
        path = watch_path(name)
        headers = {"Last-Event-ID": command.last_event_id} if command.last_event_id else None
        with ExitStack() as opening:
            response = opening.enter_context(self._transport.stream(path, query, headers, host=host))
            if response.status_code >= 400:
                raise_for_status(response, path)
            halted = check_stream(response.status_code, response.headers)
            if halted is not None:
                return halted
            self._keep(opening, response)
        return opened(response.headers)

    def _open_states(self, command: OpenStates) -> Outcome:
        self._waker.be_patient(True)
        headers = self._opener.stream_headers()
        body = dump_watch_request(command.held)
        with ExitStack() as opening:
            stream = self._transport.stream(WATCH_PATH, None, headers, host=command.host, method="POST", body=body)
            try:
                response = opening.enter_context(stream)
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

    def _keep(self, opening: ExitStack, response: httpx.Response) -> None:
        """Go on with this stream once everything about its head was right."""
        sock = socket_of(response)
        if sock is not None:
            self._waker.guard(sock)
        self._stream = opening.pop_all()
        self._decoder = SSEDecoder()
        self._events = iter(())
        limit = silence_limit(response.headers, self._heartbeat)
        self._chunks = self._transport.chunks(response, read_timeout=limit)
        self._desk.contact()

    def _hang_up(self) -> None:
        self._waker.release()
        self._stream.close()

    def _read(self, *, patient: bool) -> Outcome:
        # The decoder works while it is iterated, so an event in front of one that is too large is not lost with it.
        event = next(self._events, None)
        if event is not None:
            return event
        self._waker.be_patient(patient)
        if not patient and self._waker.woken():
            return Woken()
        try:
            with within(self._transport.patience) if patient else nullcontext():
                chunk = next(self._chunks, None)
        except ConfigClientError:
            # A wake ends the read by shutting its socket down.
            if self._waker.woken() and not self._transport.closed:
                return Woken()
            raise
        if chunk is None:
            return Woken() if self._waker.woken() else Ended()
        self._desk.contact()
        self._events = self._decoder.feed(chunk)
        return next(self._events, None)
