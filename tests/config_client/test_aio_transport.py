"""The asynchronous transport above the network: it keeps every rule that the one on threads keeps.

Most tests run twice: on a client of the transport's own, whose network is replaced, and on a caller's client.
"""

from __future__ import annotations

import contextlib
import gzip
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import anyio
import httpx
import pytest
import respx

from config_client import _aio_transport, _bodies
from config_client._aio_transport import AsyncTransport
from config_client.errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
)
from config_client.transport import MAX_REDIRECTS

pytestmark = pytest.mark.anyio

HOST = "http://config.test"
PATH = "/api/v1/service/configs/orders"
TOKEN = "t0k3n-canary-5e1f"
CONTENT = "d0cument-canary"
PATIENCE = 60.0
"""Seconds that nothing really takes."""

Step = Exception | Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


class Service:
    """Answers requests with the steps of a script, the last one for ever, and remembers the requests."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        step = self.steps[min(len(self.requests), len(self.steps) - 1)]
        self.requests.append(request)
        if isinstance(step, Exception):
            raise step
        return step(request)

    @property
    def count(self) -> int:
        return len(self.requests)


Answering = Callable[[httpx.Request], httpx.Response] | Callable[[httpx.Request], Awaitable[httpx.Response]]


class Make(Protocol):
    """Builds a transport to a scripted service."""

    def __call__(self, service: Answering, host: str | Sequence[str] = HOST, **options: float) -> AsyncTransport: ...


@pytest.fixture(params=["own", "caller"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A builder of transports that never pause, on a client of their own and on a caller's."""

    def build(service: Answering, host: str | Sequence[str] = HOST, **options: float) -> AsyncTransport:
        given = {"retry_count": 2, "retry_delay": 0, **options}
        mock = httpx.MockTransport(service)  # type: ignore[arg-type]
        client = httpx.AsyncClient(transport=mock) if request.param == "caller" else None
        monkeypatch.setattr(_aio_transport, "equipped", lambda *_: mock)
        return AsyncTransport(host, TOKEN, http_client=client, **given)  # type: ignore[arg-type]

    return build


def answer(
    status: int = 200, headers: dict[str, str] | None = None, content: bytes = b"{}"
) -> Callable[[httpx.Request], httpx.Response]:
    """Return a step that answers with a new response each time, as a network does."""
    return lambda _: httpx.Response(status, headers=headers, content=content)


class Body(httpx.AsyncByteStream):
    """A body that arrives in parts and may fail after the last; knows whether it was closed."""

    def __init__(self, parts: Sequence[bytes], failure: Exception | None = None) -> None:
        self.parts, self.failure, self.closed = parts, failure, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part
        if self.failure is not None:
            raise self.failure

    async def aclose(self) -> None:
        self.closed = True


class Stalled(httpx.AsyncByteStream):
    """A body whose second part never comes."""

    def __init__(self) -> None:
        self.reached, self.closed = anyio.Event(), False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        self.reached.set()
        await anyio.sleep_forever()

    async def aclose(self) -> None:
        self.closed = True


async def failure_of(call: Awaitable[object]) -> ConfigClientError:
    """Return the error that ``call`` raises: one of this package's, from which no secret can be reached."""
    with pytest.raises(ConfigClientError) as caught:
        await call
    waiting: list[BaseException | None] = [caught.value]
    while waiting:
        current = waiting.pop()
        if current is None:
            continue
        waiting += [current.__cause__, current.__context__]
        shown = [str(current), repr(current), repr(vars(current))]
        shown += traceback.format_exception(type(current), current, current.__traceback__)
        for attribute in ("request", "response"):
            with contextlib.suppress(AttributeError, RuntimeError):
                pytest.fail(f"{current!r}.{attribute} is {getattr(current, attribute)!r}")
        for frame, _ in traceback.walk_tb(current.__traceback__):
            if "config_client" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
                shown += map(repr, frame.f_locals.values())
        for text in shown:
            assert TOKEN not in text
            assert CONTENT not in text
    return caught.value


async def opened(transport: AsyncTransport, **options: str) -> int:
    """Open a stream and leave it; return its status."""
    async with transport.stream(PATH, **options) as response:  # type: ignore[arg-type]
        return response.status_code


# ------------------------------------------------------------------------------------------------------- requests


async def test_a_request_carries_the_token_and_the_parameters(make: Make) -> None:
    """``get(path, **params)`` asks the host for the path; what it returns leads to no token."""
    service = Service(answer(content=b'{"a":1}'))
    response = await make(service).get(PATH, environment="staging", label="feature/x", version=3)
    assert response.json() == {"a": 1}
    [request] = service.requests
    assert str(request.url) == f"{HOST}{PATH}?environment=staging&label=feature%2Fx&version=3"
    assert request.headers["X-Service-Token"] == TOKEN
    assert request.extensions["timeout"] == httpx.Timeout(10.0).as_dict()
    assert TOKEN not in repr(response.request.headers)
    assert "network_stream" not in response.extensions


async def test_a_conditional_request_may_be_answered_not_modified(make: Make) -> None:
    """304 is an answer only to those who asked for it."""
    transport = make(Service(answer(304, content=b"")))
    assert (await transport.fetch(PATH, headers={"If-None-Match": '"a"'})).status_code == 304
    assert type(await failure_of(transport.fetch(PATH))) is InvalidResponseError


@pytest.mark.parametrize(
    ("status", "expected", "attempts"),
    [
        (401, UnauthorizedError, 1),
        (403, ForbiddenError, 1),
        (404, NotFoundError, 1),
        (422, InvalidResponseError, 1),
        (500, ConnectionError, 3),
        (503, ConnectionError, 3),
    ],
)
async def test_a_status_is_an_error_of_its_own(
    make: Make, status: int, expected: type[ConfigClientError], attempts: int
) -> None:
    """As on threads: refusals at once, server errors after all retries, which carry what the service asked for."""
    service = Service(answer(status, {"Retry-After": "0"}, CONTENT.encode()))
    error = await failure_of(make(service).get(PATH))
    assert type(error) is expected
    assert str(status) in str(error)
    assert service.count == attempts
    if isinstance(error, ConnectionError):
        assert error.retry_after == 0.0


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ProxyError])
async def test_a_network_error_is_retried_and_then_a_connection_error(
    make: Make, kind: type[httpx.TransportError]
) -> None:
    """The cause is the last failure, of its own class, with a scrubbed text and no request."""
    service = Service(kind(f"header X-Service-Token: {TOKEN} is bad"))
    error = await failure_of(make(service).get(PATH))
    assert type(error) is ConnectionError
    assert type(error.__cause__) is kind
    assert str(error).startswith(f"{HOST}: {kind.__name__}")
    assert error.__context__ is None
    assert service.count == 3


async def test_the_first_success_ends_the_retries(make: Make) -> None:
    """5xx, network errors and bodies cut short count alike."""
    cut = Body([b"{"], httpx.ReadError("reset"))
    service = Service(
        answer(503), httpx.ReadTimeout("slow"), lambda _: httpx.Response(200, stream=cut), answer(content=b'"there"')
    )
    assert (await make(service, retry_count=3).get(PATH)).json() == "there"
    assert service.count == 4
    assert cut.closed


async def test_a_watch_makes_single_attempts(make: Make) -> None:
    """Its own backoff governs, so ``retry=False`` and streams ask once."""
    service = Service(answer(503))
    transport = make(service)
    assert type(await failure_of(transport.fetch(PATH, retry=False))) is ConnectionError
    assert await opened(transport) == 503
    assert service.count == 2


async def test_what_no_url_can_hold_is_an_error_of_this_package(make: Make) -> None:
    """httpx's InvalidURL and Python's UnicodeError stay inside."""
    transport = make(Service(answer()))
    for path in ("/\x00", "/" + "a" * 100_000, "/\ud800"):
        assert type(await failure_of(transport.get(path))) is ConnectionError


async def test_a_hook_that_raises_for_status_changes_no_error() -> None:
    """What it raises holds request and response, and is told as the status that it is."""

    async def hook(response: httpx.Response) -> None:
        await response.aread()
        response.raise_for_status()

    service = Service(answer(404, content=CONTENT.encode()))
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(service), event_hooks={"response": [hook]}) as client,
        AsyncTransport(HOST, TOKEN, http_client=client) as transport,
    ):
        assert type(await failure_of(transport.get(PATH))) is NotFoundError
        assert await opened(transport) == 404
    assert service.count == 2


@respx.mock
async def test_mocks_of_respx_keep_working() -> None:
    """Routes, side effects and call counts, on a client of our own."""
    route = respx.get(f"{HOST}{PATH}", headers={"X-Service-Token": TOKEN})
    route.side_effect = [httpx.Response(502), httpx.ConnectError("down"), httpx.Response(200, json={"a": 1})]
    async with AsyncTransport(HOST, TOKEN, 1, 2, 0) as transport:
        assert (await transport.get(PATH)).json() == {"a": 1}
    assert route.call_count == 3


# ------------------------------------------------------------------------------------------------------ redirects


async def test_a_redirect_within_the_origin_is_followed_with_the_token(make: Make) -> None:
    """Elsewhere the token would go along, so there it is an error; so is a circle."""
    service = Service(answer(302, {"Location": "/moved?x=1"}), answer(content=b'"moved"'))
    assert (await make(service).get(PATH)).json() == "moved"
    assert [request.headers["X-Service-Token"] for request in service.requests] == [TOKEN] * 2
    for location, count in (("http://evil.test/", 1), (PATH, MAX_REDIRECTS + 1)):
        service = Service(answer(302, {"Location": location}))
        assert type(await failure_of(make(service).get(PATH))) is InvalidResponseError
        assert type(await failure_of(opened(make(service)))) is InvalidResponseError
        assert service.count == 2 * count
        assert {request.url.host for request in service.requests} == {"config.test"}


# ---------------------------------------------------------------------------------------------------------- hosts


async def test_the_next_host_is_asked_at_once_and_again_first_next_time(make: Make) -> None:
    """Within one attempt, without a pause; until it fails, then the order begins at the first."""

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if request.url.host in down:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=b"{}")

    asked: list[str] = []
    down = {"a.test"}
    transport = make(serve, ["http://a.test/", "http://b.test"], retry_count=0)
    assert transport.hosts == ("http://a.test", "http://b.test")
    await transport.get(PATH)
    await transport.get(PATH)
    down = {"b.test"}
    await transport.get(PATH)
    await transport.get(PATH)
    assert asked == ["a.test", "b.test", "b.test", "b.test", "a.test", "a.test"]
    async with transport.stream(PATH, host=0) as response:
        assert response.status_code == 200
    assert type(await failure_of(transport.fetch(PATH, host=1))) is ConnectionError
    assert asked[6:] == ["a.test", "b.test"]


# --------------------------------------------------------------------------------------------------------- bodies


async def test_a_compressed_body_arrives_decompressed_and_a_broken_one_is_an_invalid_response(make: Make) -> None:
    """A proxy may compress; the headers no longer speak of it then."""
    headers = {"Content-Encoding": "gzip"}
    whole = Service(lambda _: httpx.Response(200, headers=headers, stream=Body([gzip.compress(CONTENT.encode())])))
    response = await make(whole).get(PATH)
    assert response.content == CONTENT.encode()
    assert "Content-Encoding" not in response.headers
    broken = Service(lambda _: httpx.Response(200, headers=headers, stream=Body([CONTENT.encode()])))
    assert type(await failure_of(make(broken).get(PATH))) is InvalidResponseError
    assert broken.count == 1


async def test_a_body_over_the_limit_is_refused_while_it_arrives(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit itself is allowed."""
    monkeypatch.setattr(_bodies, "MAX_BODY_BYTES", 1000)
    for excess in (0, 1):
        body = Body([b"x" * 500, b"x" * (500 + excess)])
        transport = make(Service(lambda _, body=body: httpx.Response(200, stream=body)))  # type: ignore[misc]
        if excess:
            assert type(await failure_of(transport.get(PATH))) is InvalidResponseError
        else:
            assert len((await transport.get(PATH)).content) == 1000
        assert body.closed


async def test_a_request_takes_no_longer_than_its_timeout_in_all(make: Make) -> None:
    """Before its head, where a mock knows no timeout of its own, and within its body."""

    async def hang(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/head":
            await anyio.sleep_forever()
        return httpx.Response(200, stream=Stalled())

    transport = make(hang, request_timeout=0.05, retry_count=1)
    for path in ("/head", "/body"):
        error = await failure_of(transport.get(path))
        assert type(error.__cause__) is httpx.ReadTimeout


# -------------------------------------------------------------------------------------------------------- streams


async def test_a_stream_is_opened_as_an_event_stream_and_read_as_it_arrives(make: Make) -> None:
    """Uncompressed, uncached, its read timeout that of the heartbeat."""
    body = Body([b"data: 1\n\n", b"data: 2\n\n"])
    service = Service(lambda _: httpx.Response(200, stream=body))
    transport = make(service)
    async with transport.stream(PATH, {"label": "main"}, {"Last-Event-ID": "e-1"}) as response:
        chunks = [chunk async for chunk in transport.chunks(response, read_timeout=15.0)]
    assert chunks == [b"data: 1\n\n", b"data: 2\n\n"]
    assert body.closed
    [request] = service.requests
    assert request.extensions["timeout"] == {**httpx.Timeout(10.0).as_dict(), "read": 15.0}
    assert str(request.url) == f"{HOST}{PATH}?label=main"
    sent = {name: request.headers[name] for name in ("Accept", "Accept-Encoding", "Cache-Control", "Last-Event-ID")}
    assert sent == {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Cache-Control": "no-store",
        "Last-Event-ID": "e-1",
    }


async def test_a_stream_may_be_asked_for_with_a_body(make: Make) -> None:
    """POST with JSON; a redirect keeps both, or is an error."""
    service = Service(answer(307, {"Location": "/other"}), answer(200), answer(302, {"Location": "/other"}))
    transport = make(service)
    async with transport.stream("/watch", method="POST", body=b"[1]") as response:
        assert response.status_code == 200
    assert [(request.method, request.content) for request in service.requests] == [("POST", b"[1]")] * 2
    assert {request.headers["Content-Type"] for request in service.requests} == {"application/json"}

    async def post() -> None:
        async with transport.stream("/watch", method="POST", body=b"[1]"):
            pass

    assert type(await failure_of(post())) is InvalidResponseError


async def test_a_stream_that_fails_while_it_is_read_is_a_connection_error(make: Make) -> None:
    """What arrived before the failure was told."""
    body = Body([b"data: 1\n\n"], httpx.ReadTimeout(f"silence {TOKEN}"))
    transport = make(Service(lambda _: httpx.Response(200, stream=body)))
    async with transport.stream(PATH) as response:
        chunks = transport.chunks(response, read_timeout=1)
        assert await chunks.__anext__() == b"data: 1\n\n"
        error = await failure_of(chunks.__anext__())
    assert type(error.__cause__) is httpx.ReadTimeout
    assert body.closed


async def test_a_stream_that_is_left_early_is_closed(make: Make) -> None:
    """By an error of the reader too, which passes through."""
    body = Body([b"data: 1\n\n", b"data: 2\n\n"])
    transport = make(Service(lambda _: httpx.Response(200, stream=body)))

    async def leave() -> None:
        async with (
            transport.stream(PATH) as response,
            contextlib.aclosing(transport.chunks(response, read_timeout=1)) as chunks,
        ):
            await chunks.__anext__()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await leave()
    assert body.closed


# -------------------------------------------------------------------------------------------------------- closing


async def closed_meanwhile(
    transport: AsyncTransport, call: Callable[[], Awaitable[object]], ready: anyio.Event
) -> None:
    """Run ``call`` on a task, close when ``ready``, and assert that the task is told so and has left by then."""
    told: list[ConfigClientError] = []

    async def run() -> None:
        told.append(await failure_of(call()))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await ready.wait()
            await transport.aclose()
            assert not transport._inside
    assert [type(error) for error in told] == [ClosedError]


async def test_close_ends_a_request_under_way(make: Make) -> None:
    """Wherever it waits: a mock that never answers stands for all of them."""
    reached = anyio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        reached.set()
        await anyio.sleep_forever()
        raise AssertionError

    transport = make(hang)
    await closed_meanwhile(transport, lambda: transport.get(PATH), reached)


async def test_close_ends_a_pause_between_two_attempts(make: Make) -> None:
    """No further attempt is made."""
    paused = anyio.Event()

    async def refuse(_: httpx.Request) -> httpx.Response:
        paused.set()
        return httpx.Response(503, headers={"Retry-After": "59"})

    transport = make(refuse)
    await closed_meanwhile(transport, lambda: transport.get(PATH), paused)


async def test_close_ends_the_reading_of_a_stream(make: Make) -> None:
    """The stream is closed on leaving."""
    body = Stalled()
    transport = make(Service(lambda _: httpx.Response(200, stream=body)))

    async def read() -> None:
        async with transport.stream(PATH) as response:
            async for _ in transport.chunks(response, read_timeout=PATIENCE):
                pass

    await closed_meanwhile(transport, read, body.reached)
    assert body.closed


async def test_close_ends_a_pause_of_the_callers(make: Make) -> None:
    """``pause`` tells whether it was ended; one that begins later is over at once."""
    transport = make(Service(answer()))
    assert await transport.pause(0.01) is False
    told: list[bool] = []

    async def pause() -> None:
        told.append(await transport.pause(PATIENCE * 10))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pause)
            await anyio.wait_all_tasks_blocked()
            await transport.aclose()
        assert told == [True]
        assert await transport.pause(PATIENCE * 10) is True


async def test_cancelling_a_task_is_not_told_as_closing(make: Make) -> None:
    """The cancellation passes through, and the transport goes on."""
    reached = anyio.Event()

    async def hang_once(_: httpx.Request) -> httpx.Response:
        if not reached.is_set():
            reached.set()
            await anyio.sleep_forever()
        return httpx.Response(200, content=b"{}")

    transport = make(hang_once)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transport.get, PATH)
            await reached.wait()
            tasks.cancel_scope.cancel()
        assert not transport._inside
        assert (await transport.get(PATH)).json() == {}


async def test_nothing_is_sent_after_close(make: Make) -> None:
    """Every call raises ClosedError; closing again is no error."""
    service = Service(answer())
    async with make(service) as transport:
        assert not transport.closed
    assert transport.closed
    await transport.aclose()
    assert type(await failure_of(transport.get(PATH))) is ClosedError
    assert type(await failure_of(transport.fetch(PATH, retry=False))) is ClosedError
    assert type(await failure_of(opened(transport))) is ClosedError
    assert service.count == 0


async def test_a_client_of_the_callers_is_never_closed() -> None:
    """It goes on serving the caller."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(Service(answer()))) as client:
        async with AsyncTransport(HOST, TOKEN, http_client=client) as transport:
            await transport.get(PATH)
        assert not client.is_closed
        assert (await client.get(f"{HOST}/other")).status_code == 200


async def test_an_error_of_the_callers_own_code_passes_through(make: Make) -> None:
    """A RuntimeError out of a mock or a hook is not ours to explain."""
    transport = make(Service(RuntimeError("a fault of the mock")))
    with pytest.raises(RuntimeError, match="a fault of the mock"):
        await transport.get(PATH)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("host", ["", "config.test", "http://a.test,", "http://a.test,b.test", []])
def test_a_host_that_is_no_url_is_refused(host: str | list[str]) -> None:
    """One of several, too."""
    with pytest.raises(ConfigClientError, match="host is"):
        AsyncTransport(host, "x")


def test_a_token_that_no_header_can_carry_is_refused_without_repeating_it() -> None:
    """As on threads."""
    with pytest.raises(ConfigClientError) as caught:
        AsyncTransport(HOST, f"{TOKEN}\n")
    assert TOKEN not in str(caught.value)


def test_the_repr_tells_where_and_not_as_whom() -> None:
    """Transports end up in logs."""
    assert repr(AsyncTransport("http://a.test, http://b.test/p/", TOKEN)) == (
        "AsyncTransport('http://a.test,http://b.test/p')"
    )
