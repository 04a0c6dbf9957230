"""HTTP to the service on the calling task, with this package's errors.

Does with tasks what ``transport`` does with threads, and shares all rules with it: ``_exchanges`` decides which host,
which redirect and which pause comes next. Knows httpx and anyio, whose cancel scopes end what is under way.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final, TypeVar

import anyio
import httpx

from ._aio_network import AbandonableTransport
from ._answers import FAILURES, fault_of, refusal_of
from ._bodies import aput_away, aread_whole, detached
from ._environment import equipped, way_to
from ._exchanges import REDIRECTS, Call, Exchanges, Outcome, Send, Steps
from ._hosts import Hosts
from ._retrying import Pause
from .backoff import RetryPolicy
from .errors import ClosedError, ConfigClientError
from .protocol import is_token

CLOSE_SECONDS: Final = 0.08
"""Seconds that ``aclose`` waits for cancelled calls to leave."""

_R = TypeVar("_R")

_inherited: Final[list[object]] = []
"""What a forked child must not let go: freeing it would close the parent's connections on the parent's event loop."""


class AsyncTransport:
    """Requests to one service as one token, with this package's errors; to be used on one event loop.

    ``host``: the URL of the service, or several, comma-separated or as a sequence, which are tried in order: an attempt
    has failed when all of them have. ``request_timeout``: seconds per request to a host; ``retry_count``: further
    attempts; ``retry_delay``: base seconds of the backoff.
    With a caller's ``http_client`` every request goes through it, and it is never closed here.

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
        http_client: httpx.AsyncClient | None = None,
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
        self._callers = http_client
        self._own: tuple[httpx.AsyncClient, ...] = () if http_client is not None else self._made()
        self._closed = False
        # The calls under way, each with the task that makes it.
        self._inside: dict[anyio.CancelScope, int] = {}
        self._all_left: anyio.Event | None = None
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"AsyncTransport({str(self._hosts)!r})"

    async def __aenter__(self) -> AsyncTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

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
        """Whether ``aclose`` was called."""
        return self._closed

    async def aclose(self) -> None:
        """End every call under way, within 100 ms, and close the client if it is ours. Idempotent."""
        self._closed = True
        # With a shield, since a task that closes is often one that was cancelled.
        with anyio.CancelScope(shield=True):
            own = anyio.get_current_task().id
            others = [scope for scope, task in self._inside.items() if task != own]
            for scope in others:
                scope.cancel()
            if others:
                self._all_left = self._all_left or anyio.Event()
                with anyio.move_on_after(CLOSE_SECONDS):
                    await self._all_left.wait()
            for client in dict.fromkeys(self._own):
                await client.aclose()

    def abandon(self) -> None:
        """Start over in a child that was forked, on an event loop of its own: nothing of the parent's is touched.

        Does no I/O. A transport that was closed stays closed. With a caller's client, which may hold connections of
        the parent's, every later call raises ConfigClientError.
        """
        _inherited.append((self._own, self._inside, self._all_left))
        self._inside, self._all_left = {}, None
        if self._callers is None:
            for client in dict.fromkeys(self._own):
                if isinstance(network := client._transport, AbandonableTransport):
                    network.abandon()
            self._own = ()
            self._process = os.getpid()

    async def pause(self, seconds: float) -> bool:
        """Do nothing for ``seconds`` at most; return True at once when the transport is or becomes closed."""
        if not self._closed:
            with anyio.CancelScope() as scope, self._entered(scope):
                await anyio.sleep(seconds)
        return self._closed

    async def unless_closed(self, work: Awaitable[_R]) -> _R:
        """Return what ``work`` comes to; cancel it, and raise ClosedError, when the transport is closed meanwhile."""
        with anyio.CancelScope() as scope, self._entered(scope):
            result = await work
            if not self._closed:
                return result
        raise ClosedError("the client is closed")

    async def get(self, path: str, **params: str | int) -> httpx.Response:
        """Return the 200 answer to ``GET path``: status, headers and body, detached from the request.

        Raises UnauthorizedError, ForbiddenError, NotFoundError, InvalidResponseError, ConnectionError, ClosedError.
        """
        return await self.fetch(path, {name: str(value) for name, value in params.items()})

    async def fetch(
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
        response = await self._guarded(
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

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        host: int | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Open the event stream ``path`` and yield its response, whatever its status, the body unread. One attempt.

        ``host``: the index into ``hosts`` of the one to ask; None: the one that answered last. ``body``: JSON that goes
        along, with ``method`` POST. A network failure while opening raises ConnectionError or ClosedError.
        """
        wanted = {**(headers or {}), "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        call = Call(path, params, {**wanted, "Cache-Control": "no-store"}, method, body)
        async with AsyncExitStack() as stack:

            async def opened(send: Send) -> httpx.Response:
                response = await self._head(send)
                stack.push_async_callback(aput_away, response)
                return response

            only = self._hosts.preferred if host is None else host
            yield await self._guarded(lambda: self._perform(self._exchanges.single(call, only), opened))

    async def chunks(self, response: httpx.Response, *, read_timeout: float) -> AsyncGenerator[bytes, None]:
        """Yield the body of a streamed response as it arrives; ``read_timeout`` seconds of silence end it.

        Raises ConnectionError or ClosedError.
        """
        # httpcore looks at this when the body is first read, so it may still be changed after the headers are in.
        response.request.extensions["timeout"] = {**httpx.Timeout(self._timeout).as_dict(), "read": read_timeout}
        chunks, url = response.aiter_bytes(), response.url

        async def read() -> bytes | None:
            try:
                return await chunks.__anext__()
            except StopAsyncIteration:
                return None
            except FAILURES as error:
                fault = fault_of(error, url, self._token)
            raise fault

        try:
            while (chunk := await self._guarded(read)) is not None:
                yield chunk
        finally:
            # Left to the garbage collector, it would end on an event loop that may be closed by then.
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def _perform(self, steps: Steps, send: Callable[[Send], Awaitable[httpx.Response]]) -> httpx.Response:
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
                await anyio.sleep(step.seconds)
                continue
            try:
                with anyio.move_on_after(self._timeout):
                    outcome = await send(step)
                if outcome is None:
                    # A timeout per read would let a peer that drips go on for ever.
                    outcome = httpx.ReadTimeout("the request took too long")
            except FAILURES as error:
                # Without its traceback: that leads to this frame, which would keep the connection alive.
                outcome = error.with_traceback(None)

    async def _head(self, send: Send) -> httpx.Response:
        """Send a request and return the answer, the body unread; that of a redirect never is."""
        if self._callers is None and not self._own:
            self._own = self._made()
        client = self._callers or self._own[send.host]
        request = client.build_request(
            send.method, send.url, headers=send.headers, content=send.body, timeout=self._timeout
        )
        try:
            response = await client.send(request, stream=True, follow_redirects=False)
        except httpx.HTTPStatusError as error:
            # A hook of a caller's client raises for the status; that is our business.
            response = detached(error.response, b"")
        if response.status_code in REDIRECTS:
            await response.aclose()
        return response

    async def _whole(self, send: Send) -> httpx.Response:
        response = await self._head(send)
        return response if response.status_code in REDIRECTS else await aread_whole(response, self._timeout)

    async def _guarded(self, call: Callable[[], Awaitable[_R]]) -> _R:
        """Run ``call``; whatever it raises is told without request and token, or as ClosedError."""
        if self._callers is not None and self._process != os.getpid():
            raise ConfigClientError("http_client was made before the fork: create it and the client after it")
        fault: ConfigClientError | None = None
        if not self._closed:
            try:
                with anyio.CancelScope() as scope, self._entered(scope):
                    result = await call()
                    if not self._closed:
                        return result
            except ConfigClientError as error:
                # The frames below have the headers among their variables, and error trackers record those.
                fault = error.with_traceback(None)
            except RuntimeError:
                # httpx's answer to using a client that was closed meanwhile; anything else is not ours to explain.
                if not self._closed:
                    raise
        # Raised outside the handlers: a context would lead to the request, and its headers hold the token.
        if fault is None or self._closed:
            raise ClosedError("the client is closed")
        raise fault

    @contextmanager
    def _entered(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Let ``aclose`` end what the calling task does within ``scope``."""
        inside = self._inside
        inside[scope] = anyio.get_current_task().id
        try:
            yield
        finally:
            del inside[scope]
            if not inside and self._all_left is not None:
                self._all_left.set()

    def _made(self) -> tuple[httpx.AsyncClient, ...]:
        made: dict[tuple[bool, str | None], httpx.AsyncClient] = {}
        ways = [way_to(url) for url in self._hosts.urls]
        for url, way in zip(self._hosts.urls, ways, strict=True):
            if way not in made:
                network = equipped(url, AbandonableTransport)
                made[way] = httpx.AsyncClient(transport=network, trust_env=False, timeout=self._timeout)
        return tuple(made[way] for way in ways)
