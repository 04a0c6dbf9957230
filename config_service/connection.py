"""One connection of the service's own server: what uvicorn's does, and what it leaves open.

Knows uvicorn's protocol, transports and time. Knows nothing of configs.

- A stream needs nothing of what uvicorn keeps for a connection: parser, request, task, events. So a stream may take the
  transport over, and all of that goes; what is left of a connection is the transport and the stream's own object.
- A head or a body that does not end, or comes too slowly, is refused, and so are connections over the limit: with an
  answer where there is a request to be answered, else without a word.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final
from weakref import ref

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from config_client.protocol import CONFIGS_PATH

from .api.answers import Answer, App, Headers, Receive, Scope, Send, encoded, send_answer
from .api.errors import error_answer
from .api.exchange import REQUEST_ID_HEADER, new_request_id
from .api.security_headers import secured
from .api.streams import TAKE_OVER_EXTENSION
from .app import Application
from .domain.errors import (
    HeadersTooLargeError,
    InvalidRequestError,
    RequestTimeoutError,
    ServiceError,
    TooManyConnectionsError,
)

_AT_ONCE_PREFIX: Final = f"{CONFIGS_PATH}/".encode()
_BODY_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_SPARE: Final = 64
"""Connections over the limit that may wait for their refusal; those beyond are dropped."""
_HURRY: Final = 1.0
"""Seconds that a connection over the limit has for its request."""


class TakenOverError(Exception):
    """Tells uvicorn's protocol that its connection is lost to it, though not to us."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds: bytes of an unfinished head, seconds for a head and for a body, and how many connections there may be.

    ``streams`` tells how many connections have been taken over, which count as well.
    """

    head_bytes: int
    head_seconds: float
    body_seconds: float
    connections: int
    streams: Callable[[], int]


class ConnectionConfig(uvicorn.Config):
    """uvicorn's configuration and the limits."""

    def __init__(self, app: App, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, **options)
        self.limits = limits


class _Phase(Enum):
    IDLE = "between two requests"
    HEAD = "in the head of a request"
    BODY = "in the body of a request"


class Connection(HttpToolsProtocol):
    """One connection: gives its transport away when a stream wants it, and bounds what does not end."""

    _phase = _Phase.IDLE
    _deadline: asyncio.TimerHandle | None = None
    _look: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_began = False
    _data = b""
    _surplus = False
    _answered = False
    _limits: ConnectionLimits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; the first request has to come in time. One connection too many is told so when it has asked."""
        super().connection_made(transport)
        assert isinstance(self.config, ConnectionConfig)  # noqa: S101 - the server's own
        self._limits = self.config.limits
        over = len(self.connections) + self._limits.streams() - self._limits.connections
        if over > _SPARE:
            transport.abort()
            return
        if over > 0:
            self._surplus = True
            self.app = partial(_refuse_surplus, self.config.app)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        self._forget_reader()
        super().connection_lost(exc)

    # What the parser tells

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._disarm()
        self._head_bytes = 0
        self._head_began = True
        self._phase = _Phase.HEAD

    def on_headers_complete(self) -> None:
        """End the head of a request; its scope offers the connection."""
        if self._offers_upgrade():
            return  # comes again without the offer
        self._disarm()
        if not self._answers_at_once():
            super().on_headers_complete()
        # Not before: where there is no path to be made of the target, this is where it is refused.
        self._phase = _Phase.BODY
        if self._answered:
            return
        # A pipelined request gets a cycle before this one is answered, so each scope names its own. Weakly, since the
        # cycle has the scope, and the two would wait for the garbage collector after every request.
        extensions: dict[str, Any] = {TAKE_OVER_EXTENSION: partial(_take_over, ref(self), ref(self.cycle))}
        self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        """End a request, unless it comes again, or was answered when its head was there."""
        if self._answered:
            self._answered = False
            self._phase = _Phase.IDLE
            self.on_response_complete()
        elif not self._offers_upgrade():
            self._disarm()
            self._phase = _Phase.IDLE
            super().on_message_complete()

    def _answers_at_once(self) -> bool:
        """Answer the request whose head is complete, if it has no body, is the next in turn, and its answer is there.

        Reads of configs are: without a task, messages and events they take half the time.
        """
        application = self.config.app
        if (
            not isinstance(application, Application)
            or self._surplus
            or self.parser.get_method() != b"GET"
            or not self.url.startswith(_AT_ONCE_PREFIX)
            or (self.cycle is not None and not self.cycle.response_complete)
            or self.flow.write_paused
            or not self.parser.should_keep_alive()
            or self.parser.get_http_version() != "1.1"
            or not _BODY_HEADERS.isdisjoint([name for name, _ in self.headers])
        ):
            return False
        path, _, query = self.url.partition(b"?")
        scope: Scope = {**self.scope, "method": "GET", "raw_path": path, "path": path.decode(), "query_string": query}
        answer = application.answer_at_once(scope)
        if answer is None:
            return False
        head = STATUS_LINE[answer.status] + encoded(self.server_state.default_headers) + answer.lines
        self.transport.write(head + b"\r\n" + answer.body)
        self._answered = True
        return True

    def _offers_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore an offer to upgrade, which Java's client makes with every request (RFC 9110, 7.8).

        The parser takes no body behind one, so it is given the same request again, without the offer.
        """
        offer = sys.exc_info()[1]
        if not self._offers_upgrade() or not isinstance(offer, httptools.HttpParserUpgrade):
            return
        lines = [(name, value) for name, value in self.headers if name not in {b"upgrade", b"http2-settings"}]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
        first = self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()
        rest = self._data[offer.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(first + b"\r\n" + head + b"\r\n" + rest)

    # Streams

    def take_over(self, cycle: RequestResponseCycle, headers: Headers) -> tuple[asyncio.Transport, bytes] | None:
        """Give the transport away, with the head of the answer of ``cycle``; see ``streams.TakeOver``."""
        lost = cycle.disconnected or self.transport.is_closing()
        # The cycle will send nothing, and is not to complain that the application did not either.
        cycle.disconnected = True
        if lost:
            return None
        self.server_state.total_requests += 1
        head = self._encoded_head(200, headers)
        # With a reason given, uvicorn forgets the connection and leaves the transport open.
        self.connection_lost(TakenOverError())
        # Armed, it would close the stream a few seconds from now.
        self._unset_keepalive_if_required()
        # Parser, cycle and connection refer to one another; apart, they go at once and not with the garbage.
        transport = self.transport
        self.pipeline.clear()
        self.cycle = self.flow = self.transport = self.scope = self.headers = None  # type: ignore[assignment]
        return transport, head

    # Limits

    def data_received(self, data: bytes) -> None:
        """Parse ``data``; refuse a head that goes on for too long, which the parser would keep in memory."""
        self._head_began = False
        self._data = data
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return  # lost, taken over or refused
        # What came with the beginning of this head may be the end of the request before it.
        if self._phase is _Phase.HEAD and not self._head_began:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(HeadersTooLargeError("the path and headers are too long"))
                return
        if self._deadline is None and (self._phase is not _Phase.IDLE or self._is_idle()):
            self._arm()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the shape of every other error, and close."""
        self._refuse(InvalidRequestError(msg))

    def on_response_complete(self) -> None:
        """Go on to the next request; a reader that does not take this answer is given a bounded time."""
        super().on_response_complete()
        self._watch_reader()

    def pause_writing(self) -> None:
        """Wait for a reader that is behind in the middle of a long answer, for a bounded time."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """Go on: the reader has taken what it was sent."""
        super().resume_writing()
        self._forget_reader()

    def _watch_reader(self) -> None:
        """Look again in a while, from now on, whether the reader takes what waits for it."""
        self._forget_reader()
        left = self.transport.get_write_buffer_size()
        if left:
            self._look = self.loop.call_later(self._limits.body_seconds, self._cut_or_wait, left)

    def _cut_or_wait(self, before: int) -> None:
        """Cut a reader that has taken nothing since it was last looked at."""
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_reader()

    def _forget_reader(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _is_idle(self) -> bool:
        """Tell whether nothing is asked. uvicorn waits without end for what comes in, line ends for example."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _arm(self) -> None:
        """Give the client its time from now on; only what does not come in one piece gets as far as this."""
        seconds = self._limits.body_seconds if self._phase is _Phase.BODY else self._limits.head_seconds
        self._deadline = self.loop.call_later(min(seconds, _HURRY) if self._surplus else seconds, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self._phase is _Phase.IDLE:
            # Asked nothing: an answer might be taken for that of a request that is on its way.
            self.transport.close()
        elif self.pipeline:
            # The request waits for others before it, and nothing of it is read meanwhile.
            self._arm()
        else:
            part = "head" if self._phase is _Phase.HEAD else "body"
            self._refuse(RequestTimeoutError(f"the {part} of the request did not come in time"))

    def _refuse(self, error: ServiceError) -> None:
        """Answer what is being received, where that is what comes next on this connection, and close it."""
        cycle, in_body = self.cycle, self._phase is _Phase.BODY
        if (self.pipeline or cycle.response_started) if in_body else not self._is_idle():
            self.transport.close()
            return
        if in_body:
            # The application is told that the client has gone, so nobody answers twice.
            cycle.disconnected = True
            cycle.message_event.set()
        answer = error_answer(error)
        headers = [*answer.encoded_headers(), _noted(self.config.app, error, answer, self.client)]
        self.transport.write(self._encoded_head(answer.status, headers) + answer.body)
        self.transport.close()

    def _encoded_head(self, status: int, headers: Headers) -> bytes:
        """Return the head of the last answer of this connection."""
        told = secured([*headers, (b"connection", b"close")], self.scheme or "http")
        lines = [*self.server_state.default_headers, *told]
        return b"".join((STATUS_LINE[status], *(name + b": " + value + b"\r\n" for name, value in lines), b"\r\n"))


def _take_over(
    connection: ref[Connection], cycle: ref[RequestResponseCycle], headers: Headers
) -> tuple[asyncio.Transport, bytes] | None:
    here, asked = connection(), cycle()
    return None if here is None or asked is None else here.take_over(asked, headers)


async def _refuse_surplus(application: object, scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer the request of a connection over the limit."""
    error = TooManyConnectionsError("the service has as many connections as it takes; come back later")
    answer = error_answer(error)
    told = [_noted(application, error, answer, scope.get("client")), (b"connection", b"close")]
    headers = secured([*answer.headers, *told], scope["scheme"])
    await send_answer(Answer(answer.status, headers, answer.body), send)


def _noted(
    application: object, error: ServiceError, answer: Answer, client: tuple[str, int] | None
) -> tuple[bytes, bytes]:
    """Let the application take note of a refusal that it is not asked for; return the header with the request's id."""
    if isinstance(application, Application):
        return application.note_refusal(error, answer, client)
    return (REQUEST_ID_HEADER, new_request_id().encode())
