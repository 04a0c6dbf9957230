"""Performs the commands of a watch on the calling thread.

Knows the transport, the keyring and the application's callbacks; the rules are in ``watching``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx
from httpx_sse import ServerSentEvent

from ._payload import open_payload
from ._sse import SSEDecoder, check_event_stream
from ._steps import (
    Apply,
    Command,
    Ended,
    Fetch,
    Fetched,
    Halted,
    HangUp,
    Heard,
    Notify,
    NotModified,
    Open,
    Opened,
    Outcome,
    Pause,
    Read,
    Report,
    Steps,
)
from .crypto import Keyring
from .errors import ClosedError, ConfigClientError, DecryptionError, InvalidResponseError
from .protocol import (
    HEARTBEAT_HEADER,
    MIN_REVISION_HEADER,
    REPLAY_HEADER,
    Metadata,
    config_path,
    parse_metadata,
    watch_path,
)
from .transport import Transport, raise_for_status
from .types import ConfigChangeEvent

A = TypeVar("A")

MISSED_HEARTBEATS: Final = 3
"""A stream that is silent for this many heartbeats is dead."""
MAX_HEARTBEAT: Final = 300.0
"""Seconds; a service that announces rarer heartbeats is not believed."""

logger: Final = logging.getLogger("config_client")


@dataclass(frozen=True)
class Target:
    """What is watched, and who is told. ``apply`` raises an UnmarshalError to keep the old value."""

    config_name: str
    query: dict[str, str]
    apply: Callable[[bytes, Metadata], None]
    notify: Callable[[ConfigChangeEvent], object]
    on_error: Callable[[Exception], object] | None
    on_change: Callable[[str], object] | None


class ThreadDriver:
    """Runs one watch until it fails for good or the transport is closed."""

    def __init__(self, transport: Transport, keyring: Keyring, target: Target, heartbeat_interval: float) -> None:
        self._transport = transport
        self._keyring = keyring
        self._target = target
        self._heartbeat = heartbeat_interval
        self._stream = ExitStack()
        self._decoder = SSEDecoder()
        self._chunks: Iterator[bytes] = iter(())
        self._events: Iterator[ServerSentEvent] = iter(())

    def run(self, steps: Steps) -> None:
        """Perform ``steps``; return once the transport is closed. Raises the error that the watch ends on."""
        outcome: Outcome = None
        with self._transport.activity():
            try:
                while not self._transport.closed:
                    outcome = self._perform(steps.send(outcome))
            except ClosedError:
                return
            finally:
                self._stream.close()
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
                return self._read()
            case Fetch():
                return self._fetch(command)
            case Open():
                return self._open(command)
            case HangUp():
                self._stream.close()
            case Pause():
                self._transport.interrupt.wait(command.seconds)
            case Apply():
                self._target.apply(command.document, command.metadata)
            case Notify():
                call("watch", self._target.notify, command.event)
            case Heard():
                call("on_change", self._target.on_change, self._target.config_name)
            case Report():
                logger.warning("watch of config %r: %s", self._target.config_name, command.error)
                call("on_error", self._target.on_error, command.error)
        return None

    def _fetch(self, command: Fetch) -> Outcome:
        headers = {}
        if command.etag:
            headers["If-None-Match"] = command.etag
        if command.at_least:
            headers[MIN_REVISION_HEADER] = str(command.at_least)
        name = self._target.config_name
        response = self._transport.fetch(config_path(name), self._target.query, headers, retry=False)
        if response.status_code == 304:
            return NotModified()
        metadata = parse_metadata(response.headers)
        try:
            return Fetched(metadata, open_payload(self._keyring, name, response.content))
        except DecryptionError as error:
            return Fetched(metadata, fault=error)

    def _open(self, command: Open) -> Outcome:
        path = watch_path(self._target.config_name)
        headers = {"Last-Event-ID": command.last_event_id} if command.last_event_id else None
        with ExitStack() as opening:
            response = opening.enter_context(self._transport.stream(path, self._target.query, headers))
            if response.status_code >= 400:
                raise_for_status(response, path)
            try:
                check_event_stream(response.status_code, response.headers.get("Content-Type", ""))
            except InvalidResponseError as error:
                if response.status_code == 204:
                    return Halted(error)
                raise
            self._stream = opening.pop_all()
        self._decoder = SSEDecoder()
        self._events = iter(())
        silence = MISSED_HEARTBEATS * self._announced_heartbeat(response)
        self._chunks = self._transport.chunks(response, read_timeout=silence)
        return Opened(parse_metadata(response.headers).position, response.headers.get(REPLAY_HEADER) == "exact")

    def _announced_heartbeat(self, response: httpx.Response) -> float:
        try:
            seconds = float(response.headers.get(HEARTBEAT_HEADER, ""))
        except ValueError:
            return self._heartbeat
        return seconds if 0 < seconds <= MAX_HEARTBEAT else self._heartbeat

    def _read(self) -> Outcome:
        # The decoder works while it is iterated, so an event in front of one that is too large is not lost with it.
        while (event := next(self._events, None)) is None:
            chunk = next(self._chunks, None)
            if chunk is None:
                return Ended()
            self._events = self._decoder.feed(chunk)
        return event


def call(name: str, callback: Callable[[A], object] | None, argument: A) -> None:
    """Call an application's callback; what it raises is logged by type, since its text may hold a secret."""
    if callback is None:
        return
    try:
        callback(argument)
    except Exception as error:
        logger.error("%s callback raised %s; the watch goes on", name, type(error).__name__)
