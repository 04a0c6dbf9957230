"""The service on a socket: uvicorn, taught to give connections away to streams and to end those with the signal.

Knows uvicorn, sockets and signals. Knows nothing of configs.

A stream needs nothing of what uvicorn keeps for a connection: parser, request, task, events. So a stream may take the
transport over, and all of that goes; what is left of a connection is the transport and the stream's own object.

An open stream never ends by itself, so uvicorn's graceful shutdown would wait for it. Here SIGTERM and SIGINT end all
streams at once, connections that still hang after two seconds are aborted, and the process ends by returning: both
signals ask for a clean stop, and a clean stop is exit status 0.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any, Final
from weakref import ref

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from config_client.protocol import CONFIGS_PATH

from .api.answers import Headers, Scope
from .api.errors import plain_error
from .api.exchange import REQUEST_ID_HEADER, new_request_id
from .api.guard import MAX_HEADER_BYTES, MAX_TARGET_BYTES
from .api.streams import TAKE_OVER_EXTENSION
from .app import Application, create_app
from .domain.errors import ServiceError
from .operations import Operations
from .settings import Settings

_ABORT_AFTER: Final = 1.5
"""Seconds after the signal at which connections that still hang are aborted."""
_GIVE_UP_AFTER: Final = 2
"""Seconds after which uvicorn cancels what is still at work."""
_BACKLOG: Final = 2048
_MAX_HEAD_BYTES: Final = MAX_TARGET_BYTES + MAX_HEADER_BYTES + 16 * 1024
"""Bytes of an unfinished request head at which reading stops. The guard's exact limits apply to finished ones."""
_AT_ONCE_PREFIX: Final = f"{CONFIGS_PATH}/".encode()
_BODY_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class ListenError(ServiceError):
    """The address cannot be listened on."""

    code = "cannot_listen"


class TakenOverError(Exception):
    """Tells uvicorn's protocol that its connection is lost to it, though not to us."""


class Connection(HttpToolsProtocol):
    """One connection: gives its transport away when a stream wants it, and bounds a head that does not end."""

    _in_head = False
    _head_bytes = 0
    _head_began = False
    _data = b""
    _answered = False

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_bytes = 0
        self._in_head = self._head_began = True

    def on_headers_complete(self) -> None:
        """End the head of a request; its scope offers the connection."""
        self._in_head = False
        if self._offers_upgrade():
            return  # comes again without the offer
        if self._answers_at_once():
            return
        super().on_headers_complete()
        # A pipelined request gets a cycle before this one is answered, so each scope names its own. Weakly, since the
        # cycle has the scope, and the two would wait for the garbage collector after every request.
        extensions: dict[str, Any] = {TAKE_OVER_EXTENSION: partial(_take_over, ref(self), ref(self.cycle))}
        self.scope["extensions"] = extensions

    def on_message_complete(self) -> None:
        """End a request, unless it comes again, or was answered when its head was there."""
        if self._answered:
            self._answered = False
            self.on_response_complete()
        elif not self._offers_upgrade():
            super().on_message_complete()

    def _answers_at_once(self) -> bool:
        """Answer the request whose head is complete, if it has no body, is the next in turn, and its answer is there.

        Reads of configs are: without a task, messages and events they take half the time.
        """
        application = self.config.app
        if (
            not isinstance(application, Application)
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
        lines = [*self.server_state.default_headers, *answer.headers]
        head = b"".join([name + b": " + value + b"\r\n" for name, value in lines])
        self.transport.write(STATUS_LINE[answer.status] + head + b"\r\n" + answer.body)
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

    def take_over(self, cycle: RequestResponseCycle, headers: Headers) -> tuple[asyncio.Transport, bytes] | None:
        """Give the transport away, with the head of the answer of ``cycle``; see ``streams.TakeOver``."""
        lost = cycle.disconnected or self.transport.is_closing()
        # The cycle will send nothing, and is not to complain that the application did not either.
        cycle.disconnected = True
        if lost:
            return None
        self.server_state.total_requests += 1
        lines = [*self.server_state.default_headers, *headers, (b"connection", b"close")]
        head = b"".join((b"HTTP/1.1 200 OK\r\n", *(name + b": " + value + b"\r\n" for name, value in lines), b"\r\n"))
        # With a reason given, uvicorn forgets the connection and leaves the transport open.
        self.connection_lost(TakenOverError())
        if self.timeout_keep_alive_task is not None:
            # Armed, it would close the stream a few seconds from now.
            self.timeout_keep_alive_task.cancel()
        # Parser, cycle and connection refer to one another; apart, they go at once and not with the garbage.
        transport = self.transport
        self.pipeline.clear()
        self.cycle = self.flow = self.transport = self.scope = self.headers = None  # type: ignore[assignment]
        return transport, head

    def data_received(self, data: bytes) -> None:
        """Parse ``data``; refuse a head that goes on for too long, which the parser would keep in memory."""
        self._head_began = False
        self._data = data
        super().data_received(data)
        # What came with the beginning of this head may be the end of the request before it.
        if self._in_head and not self._head_began:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("the path and headers are too long")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the shape of every other error, and close."""
        answer = plain_error(400, "invalid_request", msg)
        told = [(REQUEST_ID_HEADER, new_request_id().encode()), (b"connection", b"close")]
        headers = [*self.server_state.default_headers, *answer.encoded_headers(), *told]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + answer.body)
        self.transport.close()


def _take_over(
    connection: ref[Connection], cycle: ref[RequestResponseCycle], headers: Headers
) -> tuple[asyncio.Transport, bytes] | None:
    here, asked = connection(), cycle()
    return None if here is None or asked is None else here.take_over(asked, headers)


class Server(uvicorn.Server):
    """uvicorn with the application's own start and end instead of the lifespan protocol, so that errors stay typed."""

    def __init__(
        self,
        application: Application,
        config: uvicorn.Config,
        *,
        prepare: Callable[[Operations], Awaitable[None]] | None = None,
        announce: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._application = application
        self._prepare = prepare
        self._announce = announce
        self._event_loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. Raises ServiceError before anything is served."""
        self._event_loop = asyncio.get_running_loop()
        await self._application.start()
        try:
            if self._prepare is not None:
                await self._prepare(self._application.operations)
            await super().startup(sockets)
        except BaseException:
            await self._application.stop()
            raise
        if self._announce is not None:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; on a second signal, without waiting for anyone.

        The signal is not raised again after the shutdown, as uvicorn would: the stop it asked for was clean.
        """
        self.force_exit = self.should_exit
        self.stop()

    def stop(self) -> None:
        """Begin to stop. May be called from any thread, and from a signal handler."""
        self.should_exit = True
        if self._event_loop is not None and not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self._application.end_streams)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all streams and requests, then the application."""
        self._application.end_streams()
        abort = asyncio.get_running_loop().call_later(_ABORT_AFTER, self._abort_connections)
        try:
            await super().shutdown(sockets)
        finally:
            abort.cancel()
            self._abort_connections()
            await self._application.stop()

    def _abort_connections(self) -> None:
        for connection in tuple(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()


def build_server(
    settings: Settings,
    application: Application,
    *,
    prepare: Callable[[Operations], Awaitable[None]] | None = None,
    announce: Callable[[], None] | None = None,
) -> Server:
    """Return a server of ``application``; it listens on the sockets given to its ``run`` or ``serve``."""
    config = uvicorn.Config(
        application,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GIVE_UP_AFTER,
    )
    return Server(application, config, prepare=prepare, announce=announce)


def run(
    settings: Settings,
    *,
    prepare: Callable[[Operations], Awaitable[None]] | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return: what is under way is finished, within 5 seconds.

    ``prepare`` runs when the store is open and nothing is served yet. ``announce`` is given the URL, with the real
    port, once connections are accepted.

    Raises ListenError, or what ``Application.start`` raises: a StoreError, such as WrongMasterKeyError.
    """
    configure_logging(settings.log_level)
    listener = listen(settings.host, settings.port)
    with listener:
        url = _url(listener)
        server = build_server(
            settings,
            create_app(settings),
            prepare=prepare,
            announce=None if announce is None else lambda: announce(url),
        )
        server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to ``host`` and ``port`` (0: a free one). Raises ListenError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        return listener
    raise ListenError(
        f"cannot listen on {host} port {port}: {reason}; "
        "set CONFIG_SERVER_HOST and CONFIG_SERVER_PORT to a free address"
    )


def configure_logging(level: str) -> None:
    """Log to standard error from ``level`` on. Requests are logged as info, without queries and headers."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=level.upper())
    # What these say of every start and stop is news to their developers only.
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
