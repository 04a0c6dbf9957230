"""HTTP to the service: one retry policy, one mapping of failures to this package's errors.

Knows httpx, routes as text and status codes. Knows nothing of keys, documents or watches.

Retries are the business of ``_retrying``: inside ``RetryTransport`` on clients of our own, around ``send`` on a
caller's.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar
from urllib.parse import urlencode

import httpx
from httpx_sse import connect_sse

from ._bodies import detached, read_whole
from ._environment import base_url, network
from ._interrupt import Interrupt
from ._retrying import WHOLE_BODY, RetryTransport, retrying
from .backoff import RetryPolicy, backoff_delay
from .errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
)
from .protocol import TOKEN_HEADER, is_token

__all__ = ["RetryTransport", "Transport", "backoff_delay"]

MAX_REDIRECTS: Final = 5
CLOSE_SECONDS: Final = 0.08
"""Seconds that ``close`` waits for interrupted calls to leave; they are awake already."""

_R = TypeVar("_R")
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_POINTER: Final = re.compile(r"/[^\x00-\x1f]{0,200}\Z")


class Transport:
    """Requests to one service as one token, with this package's errors.

    ``request_timeout``: seconds; ``retry_count``: further attempts; ``retry_delay``: base seconds of the backoff.
    With a caller's ``http_client`` every request goes through it (so that its mocks, proxies and hooks work) and it is
    never closed here; what then cannot be interrupted by ``close`` is connecting and waiting for the first byte.

    Raises ConfigClientError when ``host`` is no URL or the token is none that a header can carry, and when the proxy or
    the certificates that the environment names cannot be used.
    """

    def __init__(
        self,
        host: str,
        service_token: str,
        request_timeout: float = 10.0,
        retry_count: int = 3,
        retry_delay: float = 1.0,
        http_client: httpx.Client | None = None,
    ) -> None:
        self._host = host.rstrip("/")
        self._base = base_url(self._host)
        if not is_token(service_token):
            raise ConfigClientError("service_token is empty or holds a character that no HTTP header can carry")
        self._token = service_token
        # What is returned refers to this one: the real request's headers hold the token.
        self._bare_request = httpx.Request("GET", self._base)
        self._timeout = request_timeout
        self._policy = RetryPolicy(retries=retry_count, base=retry_delay)
        self.interrupt: Final = Interrupt()
        self._owned = http_client is None
        self._close_on_leaving = False
        if http_client is None:
            direct = network(self._base, self.interrupt)
            retrying = RetryTransport(direct, retry_count, retry_delay, interrupt=self.interrupt)
            self._retrying = httpx.Client(transport=retrying, trust_env=False, timeout=request_timeout)
            self._single = httpx.Client(transport=direct, trust_env=False, timeout=request_timeout)
        else:
            self._retrying = self._single = http_client

    def __repr__(self) -> str:
        return f"Transport({str(self._base)!r})"

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
        if self._owned:
            self._retrying.close()
            self._single.close()

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
    ) -> httpx.Response:
        """Return the answer to ``GET path``, its body read: 200, or 304 if ``headers`` make the request conditional.

        ``retry`` False makes one attempt, for callers with a backoff of their own. Raises as ``get`` does.
        """
        with self.activity():
            response = self._exchange(path, params, headers, retry=retry)
        if response.status_code == 304 and headers and "If-None-Match" in headers:
            return response
        raise_for_status(response, path)
        return response

    @contextmanager
    def stream(
        self, path: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Open the event stream ``GET path`` and yield its response, whatever its status, the body unread. One attempt.

        A network failure while opening raises ConnectionError or ClosedError.
        """
        with self.activity(), ExitStack() as stack:

            def send(url: str, sent: dict[str, str]) -> httpx.Response:
                source = connect_sse(
                    self._single,
                    "GET",
                    url,
                    headers={**sent, "Accept-Encoding": "identity"},
                    timeout=self._timeout,
                    follow_redirects=False,
                )
                return stack.enter_context(source).response

            response = self._guarded(lambda: self._follow(send, path, params, headers))
            stack.enter_context(self._lent(response))
            yield response

    def chunks(self, response: httpx.Response, *, read_timeout: float) -> Iterator[bytes]:
        """Yield the body of a streamed response as it arrives; ``read_timeout`` seconds of silence end it.

        Raises ConnectionError or ClosedError.
        """
        # httpcore looks at this when the body is first read, so it may still be changed after the headers are in.
        response.request.extensions["timeout"] = {**httpx.Timeout(self._timeout).as_dict(), "read": read_timeout}
        chunks = response.iter_bytes()
        while True:
            chunk = self._guarded(lambda: next(chunks, None))
            if chunk is None:
                return
            yield chunk

    def _exchange(
        self, path: str, params: Mapping[str, str] | None, headers: Mapping[str, str] | None, *, retry: bool
    ) -> httpx.Response:
        client = self._retrying if retry else self._single

        def send(url: str, sent: dict[str, str]) -> httpx.Response:
            request = client.build_request(
                "GET", url, headers=sent, timeout=self._timeout, extensions={WHOLE_BODY: self._timeout}
            )
            return client.send(request, stream=True, follow_redirects=False)

        def attempt() -> httpx.Response:
            response = self._follow(send, path, params, headers)
            with self._lent(response):
                whole = read_whole(response, self._timeout)
            whole.request = self._bare_request
            return whole

        if self._owned or not retry:
            return self._guarded(attempt)
        return self._guarded(lambda: retrying(attempt, self._policy, self.interrupt))

    def _follow(
        self,
        send: Callable[[str, dict[str, str]], httpx.Response],
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        """Send, following redirects within the same origin: any other would carry the token away."""
        url = f"{self._host}{path}?{urlencode(params)}" if params else f"{self._host}{path}"
        sent = {**(headers or {}), TOKEN_HEADER: self._token}
        for _ in range(MAX_REDIRECTS + 1):
            response = _answer(send, url, dict(sent))
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            target = httpx.URL(url).join(response.headers.get("Location", ""))
            url = str(target)
            if _origin(target) != _origin(self._base):
                raise InvalidResponseError(
                    f"{path}: the service redirects to another origin, which must not see the token; "
                    "if the service has moved, set host to its new URL"
                )
        raise InvalidResponseError(f"{path}: more than {MAX_REDIRECTS} redirects")

    def _guarded(self, call: Callable[[], _R]) -> _R:
        """Run ``call``; whatever httpx raises becomes an error of this package, without request or token."""
        fault: ConfigClientError | None = None
        if not self.interrupt.is_set():
            try:
                result = call()
                # A body without a length that was cut by the interrupt looks complete.
                if not self.interrupt.is_set():
                    return result
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError) as error:
                # A UnicodeError is what becomes of a redirect to a host that IDNA forbids.
                fault = self._fault(error)
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

    def _fault(self, failure: Exception) -> ConfigClientError:
        if isinstance(failure, httpx.DecodingError):
            return InvalidResponseError("the body does not decompress as its Content-Encoding says")
        text = "" if isinstance(failure, httpx.ProtocolError) else str(failure).replace(self._token, "…")
        what = type(failure).__name__ + (f": {text}" if text else "")
        error = ConnectionError(f"{self._base.scheme}://{self._base.netloc.decode()}: {what}")
        error.__cause__ = OSError(what) if not isinstance(failure, httpx.TransportError) else _bare(failure, text)
        return error

    @contextmanager
    def _lent(self, response: httpx.Response) -> Iterator[None]:
        """Let ``close`` end the reading of a body that arrives on a connection of a caller's client."""
        stream = response.extensions.get("network_stream")
        sock = stream.get_extra_info("socket") if stream else None
        # Our own are guarded for life. On HTTP/2 the connection carries the caller's other requests too.
        if self._owned or response.http_version == "HTTP/2" or not isinstance(sock, socket.socket):
            yield
            return
        self.interrupt.guard(sock)
        try:
            yield
        finally:
            self.interrupt.release(sock)


def raise_for_status(response: httpx.Response, path: str) -> None:
    """Raise this package's error for any status but 200. No word of the body gets into it."""
    status = response.status_code
    if status == 200:
        return
    if status == 401:
        raise UnauthorizedError(f"{path}: 401, the service does not accept the token: unknown, expired or revoked")
    if status == 403:
        raise ForbiddenError(f"{path}: 403, the token's scopes do not cover this; ask for one that does")
    if status == 404:
        raise NotFoundError(f"{path}: 404, no such config or version in this environment and label, or it was deleted")
    if status >= 500:
        error = ConnectionError(f"{path}: the service answered {status}")
        error.__cause__ = OSError(f"HTTP {status}")
        raise error
    raise InvalidResponseError(f"{path}: the service answered {status}{_pointer(response)}; is host its URL?")


def _pointer(response: httpx.Response) -> str:
    """Return `` at PATH`` when a 422 points into the document: a path of keys, never a value."""
    if response.status_code != 422:
        return ""
    pointer: object = None
    try:
        pointer = response.json()["error"]["path"]
    except (ValueError, KeyError, TypeError, RecursionError, httpx.StreamError):
        return ""
    return f" at {pointer}" if isinstance(pointer, str) and _POINTER.match(pointer) else ""


def _answer(send: Callable[[str, dict[str, str]], httpx.Response], url: str, headers: dict[str, str]) -> httpx.Response:
    """Return the answer to a request, also when a hook of a caller's client raises for its status."""
    try:
        return send(url, headers)
    except httpx.HTTPStatusError as error:
        refused = error.response
    return detached(refused, b"")


def _bare(failure: httpx.TransportError, text: str) -> httpx.TransportError:
    """Return httpx's own class of ``failure`` with ``text`` alone; a class derived from it may want other arguments."""
    kinds = (kind for kind in type(failure).__mro__ if issubclass(kind, httpx.TransportError))
    return next(kind for kind in kinds if kind.__module__.partition(".")[0] == "httpx")(text)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    # httpx drops a default port, but not after a scheme in capitals.
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)
