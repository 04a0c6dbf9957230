"""HTTP to the service on the calling thread, with this package's errors.

Knows httpx and performs what ``_exchanges`` has decided: which host, which redirect, which pause. Knows nothing of
keys, documents or watches. ``_aio_transport`` does the same with tasks.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

import httpx

from ._answers import FAILURES, fault_of, raise_for_status, refusal_of
from ._bodies import detached, put_away, read_whole
from ._clients import OwnClients
from ._deadline import within
from ._exchanges import MAX_REDIRECTS, REDIRECTS, Call, Exchanges, Outcome, Send, Steps
from ._hosts import Hosts
from ._interrupt import Interrupt
from ._retrying import Pause, RetryTransport
from .backoff import RetryPolicy, backoff_delay
from .errors import ClosedError, ConfigClientError
from .protocol import is_token

__all__ = ["MAX_REDIRECTS", "RetryTransport", "Transport", "backoff_delay", "raise_for_status", "socket_of"]

CLOSE_SECONDS: Final = 0.08
"""Seconds that ``close`` waits for interrupted calls to leave; they are awake already."""

_R = TypeVar("_R")


class Transport:
    """Requests to one service as one token, with this package's errors.

    ``host``: the URL of the service, or several, comma-separated or as a sequence, which are tried in order: an attempt
    has failed when all of them have. ``request_timeout``: seconds per request to a host; ``retry_count``: further
    attempts; ``retry_delay``: base seconds of the backoff.
    With a caller's ``http_client`` every request goes through it (so that its mocks, proxies and hooks work) and it is
    never closed here; what then cannot be interrupted by ``close`` is connecting and waiting for the first byte.

    Raises ConfigClientError when ``host`` is no URL or the token is none that a header can carry, and when the proxy or
    the certificates that the environment names cannot be used.
    """

    def __init__(
        self,
        host: str | Sequence[str],
        service_token: str,
        request_timeout: float = 10.0,
        retry_count: int = 3,
        retry_delay: float = 1.0,
        http_client: httpx.Client | None = None,
    ) -> None:
        self._hosts = Hosts(host)
        if not is_token(service_token):
            raise ConfigClientError("service_token is empty or holds a character that no HTTP header can carry")
        self._token = service_token
        # What is returned refers to this one: the real request's headers hold the token.
        self._bare_request = httpx.Request("GET", self._hosts.urls[0])
        self._timeout = request_timeout
        self.patience: Final = request_timeout / 2
        """Seconds that a stream may tell nothing before it has told how things stand."""
        self._exchanges = Exchanges(self._hosts, service_token, RetryPolicy(retries=retry_count, base=retry_delay))
        self.interrupt: Final = Interrupt()
        self._callers = http_client
        self._own = OwnClients(self._hosts.urls, self.interrupt, request_timeout) if http_client is None else None
        self._close_on_leaving = False
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"Transport({str(self._hosts)!r})"

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hosts(self) -> tuple[str, ...]:
        """The URLs of the service, in the order in which they are tried."""
        return self._hosts.texts

    @property
    def order(self) -> tuple[int, ...]:
        """The indexes into ``hosts``, in the order in which to try them now: the one that answered last comes first."""
        return self._hosts.order()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self.interrupt.is_set()

    def close(self) -> None:
        """End every call under way, within 100 ms, and close the client if it is ours. Idempotent."""
        self.interrupt.set()
        if self.interrupt.is_busy_here():
            # From the handler of a signal: a call below this frame may hold a lock of the pool, and closes on leaving.
            self._close_on_leaving = True
            return
        self.interrupt.settle(CLOSE_SECONDS)
        self._close_clients()

    def abandon(self) -> None:
        """Start over in a child that was forked: fresh locks and connections, and nothing of the parent's is touched.

        Waits for no lock and does no I/O. The child's copies of the parent's connections are closed, not shut down,
        which the parent does not notice. A transport that was closed stays closed. With a caller's client, which may
        hold connections and locks of the parent's, every later call raises ConfigClientError.
        """
        inherited = self.interrupt.abandon()
        if self._own is not None:
            self._process = os.getpid()
            self._own.abandon()
            for sock in inherited:
                sock.close()

    @contextmanager
    def activity(self) -> Iterator[None]:
        """Count the calling thread as busy with this transport."""
        try:
            with self.interrupt.activity():
                yield
        finally:
            if self._close_on_leaving and not self.interrupt.is_busy_here():
                self._close_clients()

    def _close_clients(self) -> None:
        if self._own is not None:
            self._own.close()

    def get(self, path: str, **params: str | int) -> httpx.Response:
        """Return the 200 answer to ``GET path``: status, headers and body, detached from the request.

        Raises UnauthorizedError, ForbiddenError, NotFoundError, InvalidResponseError, ConnectionError, ClosedError.
        """
        return self.fetch(path, {name: str(value) for name, value in params.items()})

    def fetch(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        retry: bool = True,
        host: int | None = None,
    ) -> httpx.Response:
        """Return the answer to ``GET path``, its body read: 200, or 304 if ``headers`` make the request conditional.

        ``retry`` False makes one attempt, for callers with a backoff of their own. ``host``, an index into ``hosts``,
        makes one attempt at that host alone. Raises as ``get`` does.
        """
        call = Call(path, params, headers)
        with self.activity():
            response = self._guarded(
                lambda: self._perform(
                    self._exchanges.patient(call) if retry and host is None else self._exchanges.single(call, host),
                    self._whole,
                )
            )
        response.request = self._bare_request
        if response.status_code == 304 and headers and "If-None-Match" in headers:
            return response
        refusal = refusal_of(response, path, self._token)
        if refusal is not None:
            raise refusal
        return response

    @contextmanager
    def stream(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        host: int | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Iterator[httpx.Response]:
        """Open the event stream ``path`` and yield its response, whatever its status, the body unread. One attempt.

        ``host``: the index into ``hosts`` of the one to ask; None: the one that answered last. ``body``: JSON that goes
        along, with ``method`` POST. A network failure while opening raises ConnectionError or ClosedError.
        """
        wanted = {**(headers or {}), "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        call = Call(path, params, {**wanted, "Cache-Control": "no-store"}, method, body)
        with self.activity(), ExitStack() as stack:

            def opened(send: Send) -> httpx.Response:
                response = self._head(send)
                stack.callback(put_away, response)
                return response

            only = self._hosts.preferred if host is None else host
            response = self._guarded(lambda: self._perform(self._exchanges.single(call, only), opened))
            stack.enter_context(self._lent(response))
            yield response

    def chunks(self, response: httpx.Response, *, read_timeout: float) -> Iterator[bytes]:
        """Yield the body of a streamed response as it arrives; ``read_timeout`` seconds of silence end it.

        Raises ConnectionError or ClosedError.
        """
        # httpcore looks at this when the body is first read, so it may still be changed after the headers are in.
        response.request.extensions["timeout"] = {**httpx.Timeout(self._timeout).as_dict(), "read": read_timeout}
        chunks, url = response.iter_bytes(), response.url

        def read() -> bytes | None:
            try:
                return next(chunks, None)
            except FAILURES as error:
                fault = fault_of(error, url, self._token)
            raise fault

        while (chunk := self._guarded(read)) is not None:
            yield chunk

    def _perform(self, steps: Steps, send: Callable[[Send], httpx.Response]) -> httpx.Response:
        """Perform the steps of an exchange; return its answer. Raises errors of this package, and RuntimeError."""
        outcome: Outcome | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as end:
                answer: httpx.Response = end.value
                return answer
            outcome = None
            if isinstance(step, Pause):
                if self.interrupt.wait(step.seconds):
                    raise ClosedError("the client is closed")
                continue
            try:
                with within(self._timeout):
                    outcome = send(step)
            except FAILURES as error:
                # Without its traceback: that leads to this frame, which would keep the connection alive.
                outcome = error.with_traceback(None)

    def _head(self, send: Send) -> httpx.Response:
        """Send a request and return the answer, the body unread; that of a redirect never is."""
        client = self._callers if self._own is None else self._own.client(send.host)
        assert client is not None  # noqa: S101 - either the caller's or our own
        if self._own is not None and send.method == "GET" and send.body is None:
            request = self._own.request(send.host, send.url, send.headers)
        else:
            request = client.build_request(
                send.method, send.url, headers=send.headers, content=send.body, timeout=self._timeout
            )
        try:
            response = client.send(request, stream=True, follow_redirects=False)
        except httpx.HTTPStatusError as error:
            # A hook of a caller's client raises for the status; that is our business.
            response = detached(error.response, b"")
        if response.status_code in REDIRECTS:
            response.close()
        return response

    def _whole(self, send: Send) -> httpx.Response:
        response = self._head(send)
        if response.status_code in REDIRECTS:
            return response
        if self._own is not None:
            return read_whole(response, self._timeout)
        with self._lent(response):
            return read_whole(response, self._timeout)

    def _guarded(self, call: Callable[[], _R]) -> _R:
        """Run ``call``; whatever it raises is told without request and token, or as ClosedError."""
        if self._own is None and self._process != os.getpid():
            raise ConfigClientError("http_client was made before the fork: create it and the client after it")
        fault: ConfigClientError | None = None
        if not self.interrupt.is_set():
            try:
                result = call()
                # A body without a length that was cut by the interrupt looks complete.
                if not self.interrupt.is_set():
                    return result
            except ConfigClientError as error:
                # The frames below have the headers among their variables, and error trackers record those.
                fault = error.with_traceback(None)
            except RuntimeError:
                # httpx's answer to using a client that was closed meanwhile; anything else is not ours to explain.
                if not self.interrupt.is_set():
                    raise
        # Raised outside the handlers: a context would lead to the request, and its headers hold the token.
        if fault is None or self.interrupt.is_set():
            raise ClosedError("the client is closed")
        raise fault

    @contextmanager
    def _lent(self, response: httpx.Response) -> Iterator[None]:
        """Let ``close`` end the reading of a body that arrives on a connection of a caller's client."""
        # Our own are guarded for life.
        sock = socket_of(response) if self._own is None else None
        if sock is None:
            yield
            return
        self.interrupt.guard(sock)
        try:
            yield
        finally:
            self.interrupt.release(sock)


def socket_of(response: httpx.Response) -> socket.socket | None:
    """Return the socket that the body of ``response`` arrives on, if this response has one to itself.

    None for mocks, and on HTTP/2, where the connection carries other requests too.
    """
    stream = response.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream else None
    return sock if isinstance(sock, socket.socket) and response.http_version != "HTTP/2" else None
