"""The transport above the network: errors, retries, redirects, bodies, a caller's client. Nothing here opens a socket.

Most tests run twice: on a client of the transport's own, whose network is replaced, and on a caller's client.
"""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import logging
import pickle
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Protocol

import httpx
import pytest
import respx

from config_client import _bodies, _clients, _retrying
from config_client._interrupt import Interrupt
from config_client.errors import (
    ClosedError,
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
)
from config_client.transport import MAX_REDIRECTS, RetryTransport, Transport, raise_for_status

HOST = "http://config.test"
PATH = "/api/v1/service/configs/orders"
TOKEN = "t0k3n-canary-5e1f"
CONTENT = "d0cument-canary"
NOW = 1_700_000_000.0

Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


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
        return step(request) if callable(step) else step

    @property
    def count(self) -> int:
        return len(self.requests)


class Make(Protocol):
    """Builds a transport to a scripted service."""

    def __call__(
        self, service: Callable[[httpx.Request], httpx.Response], host: str | Sequence[str] = HOST, **options: float
    ) -> Transport: ...


@pytest.fixture(params=["own", "caller"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A builder of transports that never pause, on a client of their own and on a caller's."""
    with contextlib.ExitStack() as stack:

        def build(
            service: Callable[[httpx.Request], httpx.Response], host: str | Sequence[str] = HOST, **options: float
        ) -> Transport:
            given = {"retry_count": 2, "retry_delay": 0, **options}
            mock = httpx.MockTransport(service)
            client: httpx.Client | None = None
            if request.param == "caller":
                client = stack.enter_context(httpx.Client(transport=mock))
            else:
                monkeypatch.setattr(_clients, "network", lambda *_: mock)
            return stack.enter_context(Transport(host, TOKEN, http_client=client, **given))  # type: ignore[arg-type]

        yield build


def answer(
    status: int = 200, headers: dict[str, str] | None = None, content: bytes = b"{}"
) -> Callable[[httpx.Request], httpx.Response]:
    """Return a step that answers with a new response each time, as a network does."""
    return lambda _: httpx.Response(status, headers=headers, content=content)


class Body(httpx.SyncByteStream):
    """A body that arrives in parts and may fail after the last; knows how much of it was taken."""

    def __init__(self, parts: Sequence[bytes], failure: Exception | None = None) -> None:
        self.parts, self.failure = parts, failure
        self.taken, self.closed = 0, False

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            self.taken += 1
            yield part
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        self.closed = True


def pauses(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that every pause of ``transport`` is added to; none is really made."""
    made: list[float] = []

    def wait(seconds: float) -> bool:
        made.append(seconds)
        return False

    monkeypatch.setattr(transport.interrupt, "wait", wait)
    return made


def failure_of(call: Callable[[], object]) -> ConfigClientError:
    """Return the error that ``call`` raises, which must be one of this package's and reveal nothing."""
    with pytest.raises(ConfigClientError) as caught:
        call()
    reveals_nothing(caught.value)
    return caught.value


def reveals_nothing(error: BaseException) -> None:
    """Assert that no secret can be reached from ``error``: texts, attributes, causes, contexts, variables of frames."""
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        current = waiting.pop()
        if current is None or current in seen:
            continue
        seen.append(current)
        waiting += [current.__cause__, current.__context__]
        shown = [str(current), repr(current), repr(current.args), repr(vars(current))]
        shown += traceback.format_exception(type(current), current, current.__traceback__)
        for attribute in ("request", "response"):
            with contextlib.suppress(AttributeError, RuntimeError):
                pytest.fail(f"{current!r}.{attribute} is {getattr(current, attribute)!r}")
        for value in vars(current).values():
            assert not isinstance(value, (httpx.Request, httpx.Response))
        for frame, _ in traceback.walk_tb(current.__traceback__):
            if "config_client" in frame.f_code.co_filename and "tests" not in frame.f_code.co_filename:
                shown += map(repr, frame.f_locals.values())
        for text in shown:
            assert TOKEN not in text
            assert CONTENT not in text


# ------------------------------------------------------------------------------------------------------- requests


def test_a_request_carries_the_token_and_the_parameters(make: Make) -> None:
    """``get(path, **params)`` asks the host for the path, and the token travels in its header only."""
    service = Service(answer(content=b'{"a":1}'))
    response = make(service).get(PATH, environment="staging", label="feature/x", version=3)
    assert response.json() == {"a": 1}
    [request] = service.requests
    assert str(request.url) == f"{HOST}{PATH}?environment=staging&label=feature%2Fx&version=3"
    assert request.headers["X-Service-Token"] == TOKEN
    assert request.extensions["timeout"] == httpx.Timeout(10.0).as_dict()


def test_what_is_returned_leads_to_no_token(make: Make) -> None:
    """Applications log responses; the request behind one of ours has no headers of its own."""
    response = make(Service(answer(headers={"X-Config-Version": "3"}))).get(PATH)
    assert response.headers["X-Config-Version"] == "3"
    assert TOKEN not in repr(response.request.headers)
    assert response.raise_for_status() is response
    assert "network_stream" not in response.extensions


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("http://config.test/", f"http://config.test{PATH}"),
        ("http://config.test/prefix/", f"http://config.test/prefix{PATH}"),
        ("HTTPS://Config.Test:8443", f"https://config.test:8443{PATH}"),
        ("http://[::1]:8080", f"http://[::1]:8080{PATH}"),
        ("http://[::1]/p", f"http://[::1]/p{PATH}"),
        ("http://bücher.test", f"http://xn--bcher-kva.test{PATH}"),
    ],
)
def test_any_host_is_asked_for_the_path_below_it(host: str, url: str) -> None:
    """Prefixes, IPv6 addresses and international names; errors name the host without the prefix."""
    service = Service(answer(), httpx.ConnectError("refused"))
    with httpx.Client(transport=httpx.MockTransport(service)) as client, Transport(host, TOKEN, 1, 0, 0, client) as one:
        one.get(PATH)
        error = failure_of(lambda: one.get(PATH))
    parsed = httpx.URL(url)
    assert service.requests[0].url == parsed
    assert str(error) == f"{parsed.scheme}://{parsed.netloc.decode()}: ConnectError: refused"


def test_a_conditional_request_may_be_answered_not_modified(make: Make) -> None:
    """304 is an answer only to those who asked for it."""
    service = Service(answer(304, content=b""))
    transport = make(service)
    assert transport.fetch(PATH, headers={"If-None-Match": '"a"'}).status_code == 304
    assert service.requests[0].headers["If-None-Match"] == '"a"'
    assert isinstance(failure_of(lambda: transport.fetch(PATH)), InvalidResponseError)
    assert isinstance(failure_of(lambda: transport.fetch(PATH, headers={"X-Other": "1"})), InvalidResponseError)


# --------------------------------------------------------------------------------------------------------- status


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        *((status, InvalidResponseError) for status in (400, 405, 409, 410, 412, 413, 418, 422, 425, 431, 451)),
        *((status, InvalidResponseError) for status in (201, 202, 204, 206, 300, 304, 305)),
    ],
)
def test_a_refusal_is_its_own_error_and_never_retried(
    make: Make, status: int, expected: type[ConfigClientError]
) -> None:
    """401, 403 and 404 have errors of their own, anything else below 500 but 200 is InvalidResponseError."""
    service = Service(answer(status, {"Retry-After": "0"}, b"" if status in {204, 304} else CONTENT.encode()))
    error = failure_of(lambda: make(service).get(PATH))
    assert type(error) is expected
    assert str(status) in str(error)
    assert PATH in str(error)
    assert error.__cause__ is error.__context__ is None
    assert service.count == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("status", [408, 429, 500, 501, 502, 503, 504, 507, 599])
def test_a_server_error_is_retried_and_then_a_connection_error(make: Make, status: int, retries: int) -> None:
    """Exactly ``1 + retry_count`` attempts; the cause tells the last status."""
    service = Service(answer(status, content=CONTENT.encode()))
    error = failure_of(lambda: make(service, retry_count=retries).get(PATH))
    assert type(error) is ConnectionError
    assert str(error) == f"{PATH}: the service answered {status}"
    assert repr(error.__cause__) == f"OSError('HTTP {status}')"
    assert error.__context__ is None
    assert service.count == 1 + retries


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"code": "no_form", "message": "m", "path": "/db/host"}}', " at /db/host"),
        (b'{"error": {"path": "/a b/\\u00e9~1"}}', " at /a b/é~1"),
        (b'{"error": {"path": ""}}', ""),
        (b'{"error": {"path": "db"}}', ""),
        (b'{"error": {"path": "/a\\nb"}}', ""),
        (b'{"error": {"path": "/' + b"a" * 300 + b'"}}', ""),
        (b'{"error": {"path": 5}}', ""),
        (b'{"error": null}', ""),
        (b'["error"]', ""),
        (b'{"detail": "d0cument-canary"}', ""),
        (b"d0cument-canary", ""),
        (b"[" * 100_000, ""),
        (b"\xff\xfe\xff", ""),
        (b"", ""),
    ],
)
def test_a_422_names_the_path_that_has_no_faithful_form(make: Make, body: bytes, told: str) -> None:
    """A path of keys is repeated when it looks like one and it was asked for a format; nothing else of any body is."""
    transport = make(Service(answer(422, content=body)))
    for path, expected in ((f"{PATH}/formatted", told), (PATH, "")):
        error = failure_of(partial(transport.get, path))
        assert type(error) is InvalidResponseError
        assert str(error) == f"{path}: the service answered 422{expected}; is host its URL?"
        assert error.__context__ is None


@pytest.mark.parametrize("token", [TOKEN, "a/b~c"])
def test_a_422_that_spells_the_token_is_told_without_its_path(token: str) -> None:
    """A service that repeats what it was sent; also as RFC 6901 writes a slash and a tilde within a key."""
    path = f"{PATH}/formatted"
    for spelt in {token, token.replace("~", "~0").replace("/", "~1")}:
        service = Service(answer(422, content=json.dumps({"error": {"path": f"/keys/{spelt}/x"}}).encode()))
        with httpx.Client(transport=httpx.MockTransport(service)) as client:
            error = failure_of(partial(Transport(HOST, token, http_client=client).get, path))
        assert str(error) == f"{path}: the service answered 422; is host its URL?"


def test_the_status_of_an_unread_stream_is_mapped_too() -> None:
    """A 422 whose body was not read is told without a path."""
    response = httpx.Response(422, stream=Body([b'{"error": {"path": "/a"}}']))
    error = failure_of(lambda: raise_for_status(response, PATH))
    assert str(error) == f"{PATH}: the service answered 422; is host its URL?"


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("3600", 3600.0), ("soon", None), (None, None)])
def test_a_server_error_carries_the_pause_that_was_asked_for(
    make: Make, value: str | None, seconds: float | None
) -> None:
    """For callers with a backoff of their own; it survives copying and pickling, and other failures have none."""
    transport = make(Service(answer(503, {"Retry-After": value} if value else None), httpx.ConnectError("down")))
    error = failure_of(lambda: transport.fetch(PATH, retry=False))
    for each in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert isinstance(each, ConnectionError)
        assert (each.retry_after, str(each)) == (seconds, f"{PATH}: the service answered 503")
    failure = failure_of(lambda: transport.fetch(PATH, retry=False))
    assert isinstance(failure, ConnectionError)
    assert failure.retry_after is None


# ------------------------------------------------------------------------------------------------- network errors

FAILURES = [
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.ReadTimeout,
    httpx.WriteError,
    httpx.WriteTimeout,
    httpx.PoolTimeout,
    httpx.CloseError,
    httpx.ProxyError,
    httpx.RemoteProtocolError,
    httpx.LocalProtocolError,
    httpx.UnsupportedProtocol,
]


@pytest.mark.parametrize("kind", FAILURES)
def test_a_network_error_is_retried_and_then_a_connection_error(make: Make, kind: type[httpx.TransportError]) -> None:
    """The cause is the last failure, of its own class, with a scrubbed text and no request."""
    service = Service(kind(f"header X-Service-Token: {TOKEN} is bad"))
    error = failure_of(lambda: make(service, retry_count=2).get(PATH))
    assert type(error) is ConnectionError
    assert type(error.__cause__) is kind
    assert error.__cause__.__cause__ is error.__cause__.__context__ is error.__context__ is None
    assert str(error).startswith(f"{HOST}: {kind.__name__}")
    assert service.count == 3


def test_texts_of_protocol_errors_are_left_out(make: Make) -> None:
    """h11 repeats the header that it refuses, and parts of the answer that it does not understand."""
    for kind in (httpx.LocalProtocolError, httpx.RemoteProtocolError):
        error = failure_of(partial(make(Service(kind(f"illegal {CONTENT}"))).get, PATH))
        assert str(error) == f"{HOST}: {kind.__name__}"


def test_a_failure_of_a_class_of_the_callers_becomes_one_of_httpx(make: Make) -> None:
    """Such a class may want arguments that we cannot know, and hold what we must not keep."""

    class Refused(httpx.ConnectError):
        def __init__(self, where: str, *, secret: str) -> None:
            super().__init__(f"refused by {where}")
            self.secret = secret

    error = failure_of(lambda: make(Service(Refused("the proxy", secret=TOKEN))).get(PATH))
    assert type(error.__cause__) is httpx.ConnectError
    assert str(error) == f"{HOST}: Refused: refused by the proxy"


def test_the_first_success_ends_the_retries(make: Make) -> None:
    """5xx and network errors count alike, in any order."""
    service = Service(answer(503), httpx.ReadTimeout("slow"), answer(200, content=b'"there"'))
    assert make(service).get(PATH).json() == "there"
    assert service.count == 3


def test_a_refusal_after_a_failure_ends_the_retries(make: Make) -> None:
    """The last answer is the one that counts."""
    service = Service(answer(503), answer(401))
    assert type(failure_of(lambda: make(service).get(PATH))) is UnauthorizedError
    assert service.count == 2


@pytest.mark.parametrize("step", [answer(503), httpx.ConnectError("refused")])
def test_a_watch_makes_single_attempts(make: Make, step: Step) -> None:
    """Its own backoff governs, so ``retry=False`` and streams ask once."""
    service = Service(step)
    transport = make(service, retry_count=5)
    assert type(failure_of(lambda: transport.fetch(PATH, retry=False))) is ConnectionError
    assert service.count == 1
    with contextlib.suppress(ConnectionError), transport.stream(PATH) as response:
        assert response.status_code == 503
    assert service.count == 2


def test_a_body_cut_short_is_retried(make: Make) -> None:
    """The status arrived, the body did not: that is a network error like any other."""
    cut = Body([b"{"], httpx.RemoteProtocolError(f"peer closed connection {CONTENT}"))
    service = Service(lambda _: httpx.Response(200, stream=cut), answer(200, content=b'"whole"'))
    assert make(service).get(PATH).json() == "whole"
    assert service.count == 2
    assert cut.closed


def test_a_body_that_is_always_cut_short_is_a_connection_error(make: Make) -> None:
    """After all retries, never a partial body."""
    service = Service(lambda _: httpx.Response(200, stream=Body([b"{"], httpx.ReadError("reset"))))
    assert type(failure_of(lambda: make(service).get(PATH))) is ConnectionError
    assert service.count == 3


def test_what_no_url_can_hold_is_an_error_of_this_package(make: Make) -> None:
    """httpx's InvalidURL and Python's UnicodeError stay inside."""
    transport = make(Service(answer()))
    for path in ("/\x00", "/" + "a" * 100_000, "/\ud800"):
        error = failure_of(partial(transport.get, path))
        assert type(error) is ConnectionError
        assert type(error.__cause__) is OSError
    assert type(failure_of(lambda: transport.fetch("/", {"label": "a"}, {"X-Other": "\ud800"}))) is ConnectionError


# ------------------------------------------------------------------------------------------------------ redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["/moved?x=1", f"{HOST}/moved?x=1", "//config.test/moved?x=1", f"{HOST}:80/moved?x=1", "../../../moved?x=1"],
)
def test_a_redirect_within_the_origin_is_followed_with_the_token(make: Make, status: int, location: str) -> None:
    """Relative or absolute; a default port that is spelt out is no other origin."""
    service = Service(answer(status, {"Location": location}), answer(200, content=b'"moved"'))
    assert make(service).get("/a/b/c").json() == "moved"
    assert service.requests[1].url.path.endswith("/moved")
    assert service.requests[1].url.query == b"x=1"
    assert [request.headers["X-Service-Token"] for request in service.requests] == [TOKEN] * 2


ELSEWHERE = [
    "https://config.test/moved",
    "http://config.test:8080/moved",
    "http://evil.test/moved",
    "//evil.test/moved",
    "http://config.test.evil.test/",
    "http://config.test@evil.test/",
    "ftp://config.test/",
]


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_redirect_to_another_origin_is_refused_and_the_token_never_sent_there(make: Make, location: str) -> None:
    """Another scheme, port or host is another origin, however it is spelt; the error says what to do."""
    service = Service(answer(302, {"Location": location}), answer(200))
    error = failure_of(lambda: make(service).get(PATH))
    assert type(error) is InvalidResponseError
    assert "set host to its new URL" in str(error)
    assert [request.url.host for request in service.requests] == ["config.test"]
    assert type(failure_of(lambda: make(Service(*service.steps)).stream(PATH).__enter__())) is InvalidResponseError


@pytest.mark.parametrize(
    "location",
    ["http://[", "http://xn--a/", "http://a:b/", "http://h:99999999999999999999/\x00", "javascript:alert(1)"],
)
def test_a_redirect_to_what_is_no_url_is_an_error_of_this_package(make: Make, location: str) -> None:
    """httpx fails on these in three different ways; none of them gets out, and nothing is sent on."""
    service = Service(answer(302, {"Location": location}))
    transport = make(service, retry_count=0)
    failure_of(lambda: transport.get(PATH))
    failure_of(lambda: transport.stream(PATH).__enter__())
    assert service.count == 2


def test_a_host_is_the_same_origin_however_it_was_spelt() -> None:
    """Capitals, a default port, and a location that only looks like another host."""
    service = Service(
        answer(302, {"Location": "https://config.test/a"}),
        answer(302, {"Location": "https://evil.test\\@config.test/b"}),
        answer(200, content=b'"moved"'),
    )
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        assert Transport("HTTPS://Config.Test:443", TOKEN, http_client=client).get(PATH).json() == "moved"
    assert [request.url.host for request in service.requests] == ["config.test"] * 3


def test_a_circle_of_redirects_ends(make: Make) -> None:
    """After a handful, without a retry; so does a redirect without a target."""
    for headers in ({"Location": PATH}, {}):
        service = Service(answer(302, headers))
        error = failure_of(partial(make(service).get, PATH))
        assert type(error) is InvalidResponseError
        assert service.count == MAX_REDIRECTS + 1


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirected_post_keeps_its_method_and_body(make: Make, status: int) -> None:
    """RFC 9110 §15.4.8 and §15.4.9."""
    service = Service(answer(status, {"Location": "/moved"}), answer(200))
    with make(service).stream(PATH, method="POST", body=b"[1]") as response:
        assert response.status_code == 200
    assert [(request.method, request.url.path, request.content) for request in service.requests] == [
        ("POST", PATH, b"[1]"),
        ("POST", "/moved", b"[1]"),
    ]
    assert [request.headers["Content-Type"] for request in service.requests] == ["application/json"] * 2


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_make_a_post_a_get_is_refused(make: Make, status: int) -> None:
    """A watch without what it asks for is no watch."""
    service = Service(answer(status, {"Location": "/moved"}), answer(200))
    error = failure_of(lambda: make(service).stream(PATH, method="POST", body=b"[1]").__enter__())
    assert type(error) is InvalidResponseError
    assert str(status) in str(error)
    assert service.count == 1


# ---------------------------------------------------------------------------------------------------------- hosts

A, B, C = "http://a.test", "http://b.test:8080/prefix", "http://c.test"


class Cluster:
    """Hosts that are up, down, or refuse; remembers who was asked."""

    def __init__(self, **states: Step) -> None:
        self.states = states
        self.asked: list[str] = []
        self.tokens: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host[0]
        self.asked.append(name)
        self.tokens.append(request.headers["X-Service-Token"])
        step = self.states.get(name, answer(200, content=b"{}"))
        if isinstance(step, Exception):
            raise step
        return step(request) if callable(step) else step

    def taken(self) -> str:
        """Return who was asked since the last time, in order."""
        asked, self.asked = "".join(self.asked), []
        return asked


@pytest.mark.parametrize("hosts", [f"{A},{B},{C}", f"{A}/ , {B}/, {C}", [A, f"{B}/", C], (A, B, C)])
def test_several_hosts_are_given_as_text_or_as_a_sequence(make: Make, hosts: str | Sequence[str]) -> None:
    """Separated by commas, as in one variable of the environment."""
    transport = make(Cluster(), hosts)
    assert transport.hosts == (A, B, C)
    assert repr(transport) == f"Transport('{A},{B},{C}')"


@pytest.mark.parametrize("hosts", [f"{A},", f"{A},,{B}", f"{A},ftp://b.test", [], [""], f"{A},https://u:{TOKEN}@b"])
def test_every_host_must_be_a_url(hosts: str | Sequence[str]) -> None:
    """One that is none is refused when the transport is made, without repeating it."""
    with pytest.raises(ConfigClientError, match="host is") as caught:
        Transport(hosts, "x")
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("failure", [answer(500), answer(503, {"Retry-After": "50"}), httpx.ConnectError("down")])
def test_the_next_host_is_asked_at_once(make: Make, monkeypatch: pytest.MonkeyPatch, failure: Step) -> None:
    """Within the attempt and without a pause; the path prefix of each is its own."""
    cluster = Cluster(a=failure, b=failure, c=answer(200, content=b'"c"'))
    transport = make(cluster, (A, B, C))
    made = pauses(transport, monkeypatch)
    assert transport.get(PATH).json() == "c"
    assert (cluster.taken(), made) == ("abc", [])
    assert set(cluster.tokens) == {TOKEN}


def test_a_body_cut_short_is_asked_of_the_next_host(make: Make) -> None:
    """It is a network error like any other."""
    cluster = Cluster(a=lambda _: httpx.Response(200, stream=Body([b"{"], httpx.ReadError("reset"))))
    assert make(cluster, (A, B)).get(PATH).json() == {}
    assert cluster.taken() == "ab"


def test_a_backoff_applies_only_when_every_host_has_failed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """``1 + retry_count`` attempts at each, a pause after each round; the error tells of the last host."""
    cluster = Cluster(a=answer(503), b=httpx.ConnectError("down"))
    transport = make(cluster, (A, B), retry_count=2, retry_delay=1)
    made = pauses(transport, monkeypatch)
    error = failure_of(lambda: transport.get(PATH))
    assert str(error) == "http://b.test:8080: ConnectError: down"
    assert cluster.taken() == "ababab"
    assert len(made) == 2


@pytest.mark.parametrize("status", [200, 304, 400, 401, 403, 404, 422, 431])
def test_any_answer_below_500_is_final(make: Make, status: int) -> None:
    """The hosts serve the same configs, so that another would answer the same."""
    cluster = Cluster(a=answer(status, content=b""))
    transport = make(cluster, (A, B))
    with contextlib.suppress(ConfigClientError):
        transport.fetch(PATH, headers={"If-None-Match": '"a"'})
    assert cluster.taken() == "a"


def test_a_redirect_to_another_host_of_the_list_is_refused(make: Make) -> None:
    """Which host answers is for the order to say; a redirect is an answer, so no other is asked."""
    cluster = Cluster(a=answer(302, {"Location": f"{C}/x"}))
    assert type(failure_of(lambda: make(cluster, (A, C)).get(PATH))) is InvalidResponseError
    assert cluster.taken() == "a"


def test_the_host_that_answered_last_is_asked_first_until_it_fails(make: Make) -> None:
    """Then the order begins at the first again."""
    down = httpx.ConnectError("down")
    cluster = Cluster(a=down)
    transport = make(cluster, (A, B, C), retry_count=0)
    transport.get(PATH)
    transport.get(PATH)
    assert cluster.taken() == "abb"
    cluster.states = {"b": down}
    transport.get(PATH)
    transport.get(PATH)
    assert cluster.taken() == "baa"
    cluster.states = {"a": down}
    transport.get(PATH)
    cluster.states = {"a": down, "b": down, "c": down}
    failure_of(lambda: transport.get(PATH))
    cluster.states = {}
    transport.get(PATH)
    assert cluster.taken() == "abbaca"


def test_a_host_may_be_picked_and_is_then_asked_alone(make: Make) -> None:
    """By watches, which go round themselves: one attempt, no other host, whatever comes of it."""
    cluster = Cluster(a=httpx.ConnectError("down"), c=answer(503))
    transport = make(cluster, (A, B, C), retry_count=3)
    assert str(failure_of(lambda: transport.fetch(PATH, host=0))) == "http://a.test: ConnectError: down"
    assert type(failure_of(lambda: transport.fetch(PATH, host=2, retry=False))) is ConnectionError
    assert type(failure_of(lambda: transport.stream(PATH, host=0).__enter__())) is ConnectionError
    assert cluster.taken() == "aca"
    assert transport.fetch(PATH, host=1).json() == {}
    for host, status in ((1, 200), (2, 503)):
        with transport.stream(PATH, host=host) as response:
            assert response.status_code == status
    assert cluster.taken() == "bbc"


def test_a_stream_without_a_pick_asks_the_host_that_answered_last(make: Make) -> None:
    """And no other: which comes next is for the watch to say. A pick that answered counts as well."""
    cluster = Cluster(c=answer(503))
    transport = make(cluster, (A, B, C))
    for picked, asked in ((None, "a"), (1, "b"), (None, "b"), (2, "c"), (None, "b"), (0, "a"), (None, "a")):
        with transport.stream(PATH, host=picked):
            assert cluster.taken() == asked
    cluster.states["a"] = httpx.ConnectError("down")
    failure_of(lambda: transport.stream(PATH).__enter__())
    assert cluster.taken() == "a"


def test_clients_of_our_own_are_shared_by_hosts_that_are_reached_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pool for those without a proxy, another for each proxy and for TLS."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "a.test,c.test,d.test")
    for variable in ("http_proxy", "no_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with Transport((A, "http://b.test", C, "https://d.test"), TOKEN) as transport:
        assert transport._own is not None
        a, b, c, d = (transport._own.client(index) for index in range(4))
        assert a is c
        assert len({id(client) for client in (a, b, d)}) == 3


# ---------------------------------------------------------------------------------------------------- Retry-After


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own zone is nine hours ahead of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(
    ("value", "pause"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("60", 60.0),
        ("Tue, 14 Nov 2023 22:13:27 GMT", 7.0),
        ("Tuesday, 14-Nov-23 22:13:27 GMT", 7.0),
        ("Tue Nov 14 22:13:27 2023", 7.0),
        ("Tue, 14 Nov 2023 23:13:27 +0100", 7.0),
        ("Tue, 14 Nov 2023 22:13:13 GMT", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("٣", 0.0),
        ("", 0.0),
        ("Tue, 99 Nov 2023 22:13:27 GMT", 0.0),
    ],
)
def test_the_pause_that_the_service_asks_for_is_made(
    make: Make, monkeypatch: pytest.MonkeyPatch, value: str, pause: float
) -> None:
    """Seconds or a date in any of HTTP's three forms; what is neither is ignored. The jitter is 0 here."""
    monkeypatch.setattr(_retrying, "time", SimpleNamespace(time=lambda: NOW))
    service = Service(
        lambda _: httpx.Response(503, headers=[(b"Retry-After", value.encode())]), answer(200, content=b'"there"')
    )
    transport = make(service)
    made = pauses(transport, monkeypatch)
    assert transport.get(PATH).json() == "there"
    assert made == [pause]


@pytest.mark.parametrize("value", ["61", "3600", "9" * 5000, "Wed, 15 Nov 2023 22:13:27 GMT"])
def test_a_service_that_asks_for_a_long_pause_is_not_asked_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """More than a minute: giving up tells the caller sooner than waiting would."""
    monkeypatch.setattr(_retrying, "time", SimpleNamespace(time=lambda: NOW))
    service = Service(answer(503, {"Retry-After": value}))
    transport = make(service)
    made = pauses(transport, monkeypatch)
    assert type(failure_of(lambda: transport.get(PATH))) is ConnectionError
    assert (made, service.count) == ([], 1)


def test_pauses_grow_with_full_jitter(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within 0 … min(base · 2^attempt, 30) seconds; one fewer than there are attempts."""
    service = Service(answer(500))
    transport = make(service, retry_count=8, retry_delay=0.5)
    made = pauses(transport, monkeypatch)
    failure_of(lambda: transport.get(PATH))
    assert service.count == 9
    assert len(made) == 8
    assert all(0 <= pause <= min(0.5 * 2**attempt, 30) for attempt, pause in enumerate(made))
    assert len(set(made)) == 8


# -------------------------------------------------------------------------------------------------------- closing


def test_close_ends_a_pause_between_two_attempts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller leaves at once with ClosedError, and no further attempt is made."""
    service, pausing = Service(answer(503, {"Retry-After": "59"})), threading.Event()
    transport = make(service)
    wait = transport.interrupt.wait

    def announced(seconds: float) -> bool:
        pausing.set()
        return wait(seconds)

    monkeypatch.setattr(transport.interrupt, "wait", announced)
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(transport.get, PATH)
        assert pausing.wait(60)
        transport.close()
        error = failure_of(lambda: getting.result(timeout=60))
    assert type(error) is ClosedError
    assert error.__context__ is None
    assert service.count == 1


def test_a_failure_of_a_call_that_was_closed_meanwhile_is_told_as_closed(make: Make) -> None:
    """Whatever the network says to being shut down is our own doing; a body cut by it is not returned as whole."""

    def close(request: httpx.Request) -> httpx.Response:
        transports[-1].interrupt.set()
        if request.url.path == "/fails":
            raise httpx.ReadError("shut down")
        return httpx.Response(200, content=b"{")

    transports: list[Transport] = []
    for path in ("/fails", "/cut"):
        transports.append(make(close))
        assert type(failure_of(partial(transports[-1].get, path))) is ClosedError


def test_nothing_is_sent_after_close(make: Make) -> None:
    """Every call raises ClosedError; closing again is no error."""
    service = Service(answer())
    with make(service) as transport:
        assert not transport.closed
    assert transport.closed
    transport.close()
    calls: list[Callable[[], object]] = [
        lambda: transport.get(PATH),
        lambda: transport.fetch(PATH, retry=False),
        lambda: transport.stream(PATH).__enter__(),
    ]
    for call in calls:
        assert type(failure_of(call)) is ClosedError
    assert service.count == 0


def test_a_client_of_the_callers_is_never_closed() -> None:
    """It goes on serving the caller."""
    service = Service(answer())
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        with Transport(HOST, TOKEN, http_client=client) as transport:
            transport.get(PATH)
        assert not client.is_closed
        assert client.get(f"{HOST}/other").status_code == 200


def test_clients_of_our_own_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network below is told."""
    closed: list[bool] = []

    class Network(httpx.MockTransport):
        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(_clients, "network", lambda *_: Network(Service(answer())))
    with Transport(HOST, TOKEN) as transport:
        transport.get(PATH)
        assert not closed
    assert closed


def test_an_error_of_the_callers_own_code_passes_through(make: Make) -> None:
    """A RuntimeError out of a mock or a hook is not ours to explain, unless closing is what caused it."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise RuntimeError("a fault of the mock")

    transport = make(fail)
    with pytest.raises(RuntimeError, match="a fault of the mock"):
        transport.get(PATH)

    def fail_closed(_: httpx.Request) -> httpx.Response:
        closing.interrupt.set()
        raise RuntimeError("cannot send a request, as the client has been closed")

    closing = make(fail_closed)
    assert type(failure_of(lambda: closing.get(PATH))) is ClosedError


# --------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
def test_a_compressed_body_arrives_decompressed(make: Make, encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """A proxy may compress; the headers no longer speak of it then."""
    body = CONTENT.encode() * 1000
    encoded = encode(body)
    response = make(
        Service(
            lambda _: httpx.Response(
                200, headers={"Content-Encoding": encoding}, stream=Body([encoded[:20], encoded[20:]])
            )
        )
    ).get(PATH)
    assert response.content == body
    assert "Content-Encoding" not in response.headers
    assert response.headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_does_not_decompress_is_an_invalid_response(make: Make, encoding: str) -> None:
    """Not a network error: asking again would give the same."""
    service = Service(
        lambda _: httpx.Response(200, headers={"Content-Encoding": encoding}, stream=Body([CONTENT.encode()]))
    )
    error = failure_of(lambda: make(service).get(PATH))
    assert type(error) is InvalidResponseError
    assert "Content-Encoding" in str(error)
    assert service.count == 1


@pytest.mark.parametrize("excess", [0, 1])
def test_a_body_over_the_limit_is_refused_while_it_arrives(
    make: Make, monkeypatch: pytest.MonkeyPatch, excess: int
) -> None:
    """The limit itself is allowed; what lies beyond is not even read."""
    monkeypatch.setattr(_bodies, "MAX_BODY_BYTES", 1000)
    body = Body([b"x" * 500, b"x" * (500 + excess), *[b"x"] * (50 * excess)])
    transport = make(Service(lambda _: httpx.Response(200, stream=body)))
    if not excess:
        assert len(transport.get(PATH).content) == 1000
        return
    error = failure_of(lambda: transport.get(PATH))
    assert type(error) is InvalidResponseError
    assert "over 1000 bytes" in str(error)
    assert body.taken == 2
    assert body.closed


def test_the_limit_counts_decompressed_bytes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small body must not swell beyond it."""
    monkeypatch.setattr(_bodies, "MAX_BODY_BYTES", 1000)
    bomb = gzip.compress(bytes(100_000))
    assert len(bomb) < 1000
    service = Service(lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Body([bomb])))
    assert type(failure_of(lambda: make(service).get(PATH))) is InvalidResponseError


# -------------------------------------------------------------------------------------------------------- streams


def test_a_stream_is_opened_as_an_event_stream_and_read_as_it_arrives(make: Make) -> None:
    """Uncompressed, uncached, its body unread, its read timeout that of the heartbeat."""
    body = Body([b"data: 1\n\n", b"data: 2\n\n"])
    service = Service(lambda _: httpx.Response(200, stream=body, headers={"X-Config-Heartbeat": "5"}))
    transport = make(service)
    with transport.stream(PATH, {"label": "main"}, {"Last-Event-ID": "e-1"}) as response:
        assert body.taken == 0
        chunks = transport.chunks(response, read_timeout=15.0)
        assert next(chunks) == b"data: 1\n\n"
        assert service.requests[0].extensions["timeout"] == {**httpx.Timeout(10.0).as_dict(), "read": 15.0}
        assert list(chunks) == [b"data: 2\n\n"]
        assert list(chunks) == []
    assert body.closed
    [request] = service.requests
    assert str(request.url) == f"{HOST}{PATH}?label=main"
    sent = {name: request.headers[name] for name in ("Accept", "Accept-Encoding", "Cache-Control", "Last-Event-ID")}
    assert sent == {
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Cache-Control": "no-store",
        "Last-Event-ID": "e-1",
    }
    assert request.headers["X-Service-Token"] == TOKEN


def test_a_stream_follows_redirects_within_the_origin(make: Make) -> None:
    """With the token and the event id, as any other request."""
    service = Service(answer(307, {"Location": "/other"}), answer(200, content=b"data: 1\n\n"))
    transport = make(service)
    with transport.stream(PATH) as response:
        assert list(transport.chunks(response, read_timeout=1)) == [b"data: 1\n\n"]
    assert [request.url.path for request in service.requests] == [PATH, "/other"]


def test_a_stream_that_fails_while_it_is_read_is_a_connection_error(make: Make) -> None:
    """What arrived before the failure was told."""
    body = Body([b"data: 1\n\n"], httpx.ReadTimeout(f"silence {TOKEN}"))
    transport = make(Service(lambda _: httpx.Response(200, stream=body)))
    with transport.stream(PATH) as response:
        chunks = transport.chunks(response, read_timeout=1)
        assert next(chunks) == b"data: 1\n\n"
        error = failure_of(lambda: next(chunks))
    assert type(error) is ConnectionError
    assert type(error.__cause__) is httpx.ReadTimeout
    assert body.closed


def test_a_stream_that_is_left_early_is_closed(make: Make) -> None:
    """By an error of the reader too, which passes through."""
    body = Body([b"data: 1\n\n", b"data: 2\n\n"])
    transport = make(Service(lambda _: httpx.Response(200, stream=body)))

    def leave() -> None:
        with transport.stream(PATH) as response:
            next(transport.chunks(response, read_timeout=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    assert body.closed
    assert transport.interrupt.settle(0)


def test_a_stream_that_was_closed_meanwhile_raises_closed(make: Make) -> None:
    """Its end is not the service's doing, so it is not told as the end of the stream."""
    transport = make(Service(lambda _: httpx.Response(200, stream=Body([b"data: 1\n\n", b"data: 2\n\n"]))))
    with transport.stream(PATH) as response:
        chunks = transport.chunks(response, read_timeout=1)
        next(chunks)
        transport.interrupt.set()
        assert type(failure_of(lambda: next(chunks))) is ClosedError


# ----------------------------------------------------------------------------------------------- a caller's client


def test_a_clients_defaults_go_along_and_its_base_url_does_not_matter() -> None:
    """Default headers, cookies and parameters are the caller's business; where to ask is ours."""
    service = Service(answer())
    with httpx.Client(
        transport=httpx.MockTransport(service),
        base_url="https://elsewhere.test/base",
        headers={"X-Team": "payments", "X-Service-Token": "the-callers-own"},
        cookies={"session": "1"},
        follow_redirects=True,
        timeout=99,
    ) as client:
        Transport(HOST, TOKEN, 3.0, http_client=client).get(PATH)
    [request] = service.requests
    assert str(request.url) == f"{HOST}{PATH}"
    assert request.headers["X-Team"] == "payments"
    assert request.headers["Cookie"] == "session=1"
    assert request.headers.get_list("X-Service-Token") == [TOKEN]
    assert request.extensions["timeout"] == httpx.Timeout(3.0).as_dict()


def test_a_client_that_follows_redirects_does_not_take_the_token_along() -> None:
    """The setting of the client is overridden for our requests."""
    service = Service(answer(302, {"Location": "http://evil.test/"}), answer(200))
    with httpx.Client(transport=httpx.MockTransport(service), follow_redirects=True) as client:
        transport = Transport(HOST, TOKEN, http_client=client)
        assert type(failure_of(lambda: transport.get(PATH))) is InvalidResponseError
    assert service.count == 1


@pytest.mark.parametrize(
    ("status", "expected", "attempts"),
    [(401, UnauthorizedError, 1), (404, NotFoundError, 1), (422, InvalidResponseError, 1), (503, ConnectionError, 3)],
)
def test_a_hook_that_raises_for_status_changes_no_error(
    status: int, expected: type[ConfigClientError], attempts: int
) -> None:
    """httpx's documentation recommends such a hook; what it raises holds request and response."""

    def hook(response: httpx.Response) -> None:
        response.read()
        response.raise_for_status()

    service = Service(answer(status, content=CONTENT.encode()))
    hooks = {"response": [hook]}
    with httpx.Client(transport=httpx.MockTransport(service), event_hooks=hooks) as client:
        transport = Transport(HOST, TOKEN, 1, 2, 0, client)
        assert type(failure_of(lambda: transport.get(PATH))) is expected
        assert service.count == attempts
        with transport.stream(PATH) as response:
            assert response.status_code == status


def test_a_hook_that_raises_for_status_lets_answers_below_400_through() -> None:
    """Not modified and redirects are what we asked for, though httpx raises for them."""
    hooks = {"response": [lambda response: response.raise_for_status()]}
    service = Service(answer(304, content=b""), answer(307, {"Location": "/moved"}), answer(200, content=b'"moved"'))
    with httpx.Client(transport=httpx.MockTransport(service), event_hooks=hooks) as client:
        transport = Transport(HOST, TOKEN, http_client=client)
        assert transport.fetch(PATH, headers={"If-None-Match": '"a"'}).status_code == 304
        assert transport.get(PATH).json() == "moved"


def test_a_body_that_a_hook_threw_away_is_an_error_of_this_package() -> None:
    """httpx's StreamError stays inside."""
    hooks = {"response": [lambda response: response.close()]}
    service = Service(lambda _: httpx.Response(200, stream=Body([b"{}"])))
    with httpx.Client(transport=httpx.MockTransport(service), event_hooks=hooks) as client:
        transport = Transport(HOST, TOKEN, http_client=client)
        assert type(failure_of(partial(transport.get, PATH))) is ConnectionError


@pytest.mark.parametrize("own", [True, False])
@respx.mock
def test_mocks_of_respx_keep_working(own: bool) -> None:
    """Routes, side effects and call counts, on clients of either kind."""
    route = respx.get(f"{HOST}{PATH}", params={"environment": "staging"}, headers={"X-Service-Token": TOKEN})
    route.side_effect = [httpx.Response(502), httpx.ConnectError("down"), httpx.Response(200, json={"a": 1})]
    with contextlib.ExitStack() as stack:
        client = None if own else stack.enter_context(httpx.Client())
        transport = stack.enter_context(Transport(HOST, TOKEN, 1, 2, 0, client))
        assert transport.get(PATH, environment="staging").json() == {"a": 1}
    assert route.call_count == 3


# ------------------------------------------------------------------------------------------ RetryTransport, alone


def retrying(service: Service, retry_count: int = 2, interrupt: Interrupt | None = None) -> httpx.Client:
    """Return a user's own client that retries."""
    return httpx.Client(
        transport=RetryTransport(httpx.MockTransport(service), retry_count, retry_delay=0, interrupt=interrupt)
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"])
@pytest.mark.parametrize("step", [answer(503), httpx.ConnectError("refused")])
def test_idempotent_requests_are_retried(method: str, step: Step) -> None:
    """RFC 9110 §9.2.2: repeating them does no harm. A body in memory is sent again."""
    service = Service(step, step, answer(200))
    with retrying(service) as client:
        content = b"body" if method == "PUT" else None
        assert client.request(method, HOST, content=content).status_code == 200
    assert service.count == 3
    assert {request.content for request in service.requests} == {content or b""}


@pytest.mark.parametrize("method", ["POST", "PATCH", "CONNECT", "LOCK"])
def test_other_requests_are_never_retried(method: str) -> None:
    """The first attempt may have had its effect."""
    service = Service(answer(503))
    with retrying(service) as client:
        assert client.request(method, HOST, content=b"x").status_code == 503
    assert service.count == 1
    service = Service(httpx.ReadError("cut"))
    with retrying(service) as client, pytest.raises(httpx.ReadError):
        client.request(method, HOST, content=b"x")
    assert service.count == 1


def test_a_request_whose_body_is_a_stream_is_not_retried() -> None:
    """The first attempt has used it up."""
    service = Service(answer(503))
    with retrying(service) as client:
        assert client.put(HOST, content=iter([b"a", b"b"])).status_code == 503
    assert service.count == 1


def test_the_last_answer_is_returned_when_the_retries_are_used_up() -> None:
    """As any transport does: whole, readable, and an error only if the user asks."""
    service = Service(answer(503, content=b"first"), answer(502, content=b"second"), answer(500, content=b"last"))
    with retrying(service) as client:
        response = client.get(HOST)
    assert (response.status_code, response.content) == (500, b"last")
    assert service.count == 3


def test_the_last_failure_is_raised_when_the_retries_are_used_up() -> None:
    """httpx's own, with its request: this client is the user's, and so is the error."""
    with retrying(Service(answer(503), httpx.ReadTimeout("slow"))) as client:
        with pytest.raises(httpx.ReadTimeout) as caught:
            client.get(HOST)
        assert caught.value.request.url == HOST


def test_responses_pass_through_unread() -> None:
    """A stream stays a stream; answers that are thrown away are closed."""
    thrown_away, kept = Body([b"no"]), Body([b"a", b"b"])
    service = Service(lambda _: httpx.Response(503, stream=thrown_away), lambda _: httpx.Response(200, stream=kept))
    with retrying(service) as client, client.stream("GET", HOST) as response:
        assert thrown_away.closed
        assert (thrown_away.taken, kept.taken) == (0, 0)
        assert list(response.iter_bytes()) == [b"a", b"b"]
    assert kept.closed


def test_refusals_are_not_retried() -> None:
    """4xx but 408 and 429, redirects and successes are final."""
    for status in (200, 204, 302, 400, 401, 404, 431, 499):
        service = Service(answer(status, content=b""))
        with retrying(service) as client:
            assert client.get(HOST).status_code == status
        assert service.count == 1


def test_its_defaults_are_those_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three retries from a base of one second."""
    made: list[float] = []
    interrupt = Interrupt()
    monkeypatch.setattr(interrupt, "wait", made.append)
    service = Service(answer(503))
    with httpx.Client(transport=RetryTransport(httpx.MockTransport(service), interrupt=interrupt)) as client:
        assert client.get(HOST).status_code == 503
    assert service.count == 4
    assert all(0 <= pause <= 2**attempt for attempt, pause in enumerate(made))


def test_a_limit_of_requests_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """429 says when to come back; asked again then, the same request is answered, and nothing is raised."""
    service = Service(answer(429, {"Retry-After": "7"}), answer(content=CONTENT.encode()))
    transport = make(service, retry_count=1, retry_delay=0.001)
    made = pauses(transport, monkeypatch)
    assert transport.get(PATH).content == CONTENT.encode()
    (pause,) = made
    assert pause >= 7


def test_a_set_interrupt_allows_no_further_attempt() -> None:
    """The answer that is there is returned, the failure raised."""
    interrupt = Interrupt()
    interrupt.set()
    service = Service(answer(503), httpx.ReadError("cut"))
    with retrying(service, interrupt=interrupt) as client:
        assert client.get(HOST).status_code == 503
        with pytest.raises(httpx.ReadError):
            client.get(HOST)
    assert service.count == 2


@pytest.mark.parametrize("step", [answer(503, {"Retry-After": "59"}), httpx.ConnectError("refused")])
def test_closing_the_client_ends_a_pause(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting thread gets an httpx error at once; the transport inside is closed too."""
    pausing, closed = threading.Event(), threading.Event()

    class Inner(httpx.MockTransport):
        def close(self) -> None:
            closed.set()

    class Announced(Interrupt):
        def wait(self, seconds: float) -> bool:
            pausing.set()
            return super().wait(max(seconds, 59))

    service = Service(step)
    retry = RetryTransport(Inner(service), retry_count=5, retry_delay=0, interrupt=Announced())
    with ThreadPoolExecutor(1) as pool, httpx.Client(transport=retry) as client:
        getting = pool.submit(client.get, HOST)
        assert pausing.wait(60)
        client.close()
        with pytest.raises(httpx.NetworkError):
            getting.result(timeout=60)
    assert closed.is_set()
    assert service.count == 1


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "host",
    ["", "config.test", "ftp://h", "http://u:t0k3n-canary-5e1f@h", "http://h:99999", "http://xn--a", "http://[x]"],
)
def test_a_host_that_is_no_url_is_refused_without_repeating_it(host: str) -> None:
    """Also without ``Options`` in front, and whatever httpx thinks of it."""
    with pytest.raises(ConfigClientError, match="host is not a URL") as caught:
        Transport(host, "x")
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("token", ["", f"{TOKEN}\n", f"{TOKEN} ", f"é{TOKEN}", f"{TOKEN}\r\nX-Other: 1"])
def test_a_token_that_no_header_can_carry_is_refused_without_repeating_it(token: str) -> None:
    """httpx would raise a UnicodeEncodeError that holds all of it, h11 an error that spells it."""
    with pytest.raises(ConfigClientError) as caught:
        Transport(HOST, token)
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_repr_tells_where_and_not_as_whom() -> None:
    """Transports end up in logs."""
    with Transport(f"{HOST}/prefix/", TOKEN) as transport:
        assert repr(transport) == f"Transport('{HOST}/prefix')"


def test_no_log_record_holds_a_secret(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Not even at DEBUG, where httpx and httpcore tell every request."""
    caplog.set_level(logging.DEBUG)
    service = Service(answer(503), httpx.ConnectError("down"), answer(200, content=CONTENT.encode()), answer(401))
    transport = make(service)
    transport.get(PATH)
    failure_of(lambda: transport.get(PATH))
    assert caplog.records
    for record in caplog.records:
        assert TOKEN not in record.getMessage() + repr(record.args)
        assert CONTENT not in record.getMessage() + repr(record.args)


def test_a_body_that_only_drips_is_given_up_after_the_request_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte arrives in time, the whole does not: after ``request_timeout`` seconds of body that is an error."""
    now = [0.0]
    monkeypatch.setattr(_bodies, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def drip() -> Iterator[bytes]:
        while True:
            now[0] += 0.9
            yield b"x"

    class Dripping(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return drip()

    client = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Dripping())))
    with (
        client,
        Transport("http://h", "SECRET", request_timeout=5.0, retry_count=0, http_client=client) as transport,
        pytest.raises(ConnectionError, match="ReadTimeout: the body took too long"),
    ):
        transport.get("/x")
    assert 5.0 < now[0] < 7.0
