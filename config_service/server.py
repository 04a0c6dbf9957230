"""The service on a socket: uvicorn, taught to end streams with the signal. ``connection`` is what it speaks with.

Knows uvicorn, sockets and signals. Knows nothing of configs.

An open stream never ends by itself, so uvicorn's graceful shutdown would wait for it. Here SIGTERM and SIGINT end all
streams at once, connections that still hang after two seconds are aborted, and the process ends by returning: both
signals ask for a clean stop, and a clean stop is exit status 0.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from types import FrameType
from typing import Any, Final

import uvicorn

from .app import Application, create_app, is_shared
from .connection import Connection, ConnectionConfig, ConnectionLimits
from .domain.errors import ServiceError
from .logs import configure_logging, log_loop_failure
from .operations import Operations
from .settings import Settings, SettingsError, variable
from .tls import Tls
from .workers import split

_ABORT_AFTER: Final = 1.5
"""Seconds after the signal at which connections that still hang are aborted."""
_GIVE_UP_AFTER: Final = 2
"""Seconds after which uvicorn cancels what is still at work."""
_BACKLOG: Final = 2048
_TICKS_BETWEEN_LOOKS: Final = 100
_HEAD_ALLOWANCE: Final = 16 * 1024
"""Bytes over the limits of path and headers at which an unfinished head is refused; a finished one is held to both."""
_SPARE_FILES: Final = 128
"""Open files that are not connections: the store's, the listener, and what a look-up or a log needs."""


class ListenError(ServiceError):
    """The address cannot be listened on."""

    code = "cannot_listen"


class Server(uvicorn.Server):
    """uvicorn with the application's own start and end instead of the lifespan protocol, so that errors stay typed."""

    def __init__(
        self,
        application: Application,
        config: ConnectionConfig,
        *,
        tls: Tls | None = None,
        prepare: Callable[[Operations], Awaitable[None]] | None = None,
        announce: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self._application = application
        self._config = config
        self._tls = tls
        self._prepare = prepare
        self._announce = announce
        self._event_loop: asyncio.AbstractEventLoop | None = None
        application.when_replaced = self.stop

    @property
    def failure(self) -> ServiceError | None:
        """Why it ended, when it was not told to."""
        return self._application.replaced

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen. Raises ServiceError before anything is served."""
        self._event_loop = asyncio.get_running_loop()
        self._event_loop.set_exception_handler(log_loop_failure)
        await self._application.start()
        try:
            if self._prepare is not None:
                await self._prepare(self._application.operations)
            # Before the first request, which would wait for it.
            _ = self._application.web
            await self._listen(sockets or [])
        except BaseException:
            await self._application.stop()
            raise
        if self._announce is not None:
            self._announce()

    async def _listen(self, sockets: list[socket.socket]) -> None:
        """Accept connections; over TLS with a handshake that has the time of a request's head."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {}
        if self._tls is not None:
            seconds = self._config.limits.head_seconds
            options = {"ssl": self._tls.context, "ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": _ABORT_AFTER}
            if threading.current_thread() is threading.main_thread():
                loop.add_signal_handler(signal.SIGHUP, self._tls.reload)
        self.servers = [
            await loop.create_server(self._connect, sock=one, backlog=_BACKLOG, **options) for one in sockets
        ]
        self.started = True

    def _connect(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self._config.http_protocol_class(  # type: ignore[call-arg]
            config=self._config, server_state=self.server_state, app_state={}
        )
        return made

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and look at the certificate's files every ten seconds."""
        if self._tls is not None and counter % _TICKS_BETWEEN_LOOKS == _TICKS_BETWEEN_LOOKS - 1:
            self._tls.reload_if_changed()
        return await super().on_tick(counter)

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
    """Return a server of ``application``; it listens on the sockets given to its ``run`` or ``serve``.

    Raises SettingsError or TlsError.
    """
    limits = ConnectionLimits(
        head_bytes=settings.max_target_bytes + settings.max_header_bytes + _HEAD_ALLOWANCE,
        head_seconds=settings.head_timeout,
        body_seconds=settings.body_timeout,
        connections=settings.max_connections or _connections_possible(),
        streams=application.count_streams,
    )
    config = ConnectionConfig(
        application,
        limits,
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
    files = settings.tls_files()
    tls = None if files is None else Tls(files)
    return Server(application, config, tls=tls, prepare=prepare, announce=announce)


def run(
    settings: Settings,
    *,
    prepare: Callable[[Operations], Awaitable[None]] | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return: what is under way is finished, within 5 seconds.

    ``prepare`` runs when the store is open and nothing is served yet. ``announce`` is given the URL, with the real
    port, once connections are accepted.

    With ``settings.workers`` that many processes serve, and this one looks after them.

    Raises ListenError, TlsError, or what ``Application.start`` raises: a StoreError, such as WrongMasterKeyError;
    HistoryReplacedError when the store was replaced while it was served; SettingsError when several processes are to
    serve a store that is for one. In the parent of workers, SystemExit with the status of the one that did not start.
    """
    configure_logging(settings.log_level, settings.log_format)
    listener = listen(settings.host, settings.port)
    with listener:
        tls = settings.tls_files() is not None
        if not (tls or settings.allow_plain_http or _is_loopback(listener)):
            raise ListenError(
                f"refusing to serve {settings.host} without TLS: tokens, and documents that operators publish and "
                "export, would cross the network readable; set CONFIG_SERVER_TLS_CERT and CONFIG_SERVER_TLS_KEY, or, "
                "where a proxy or a private network protects them, CONFIG_SERVER_ALLOW_PLAIN_HTTP=true"
            )
        url = _url(listener, tls=tls)
        tell = _do_nothing if announce is None else partial(announce, url)
        worker = None
        if settings.workers > 1:
            _require_shared(settings)
            became = split(settings.workers, tell, (signal.SIGHUP,) if tls else ())
            if isinstance(became, int):
                if became:
                    raise SystemExit(became)
                return
            worker = became
            tell = worker.ready
        application = create_app(settings)
        server = build_server(settings, application, prepare=prepare, announce=tell)
        if worker is not None:
            application.metrics.worker = worker.number
            worker.when_orphaned(server.stop)
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


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


def _require_shared(settings: Settings) -> None:
    if not is_shared(settings):
        raise SettingsError(
            f"{variable('workers')} is {settings.workers}, but this kind of store serves one process: use PostgreSQL "
            f"for several ({variable('store_url')}=postgresql://user:password@host:5432/database), or 1"
        )


def _do_nothing() -> None:
    """Nobody is to be told."""


def _connections_possible() -> int:
    """Return how many connections the limit of open files of this process leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(files - _SPARE_FILES, files // 2)


def _is_loopback(listener: socket.socket) -> bool:
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _url(listener: socket.socket, *, tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
