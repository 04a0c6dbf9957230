"""``ConfigClient`` over real sockets: every method, every documented error, and a caller's own HTTP client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from stopwatch import stopwatch

from config_client import (
    ClosedError,
    ConfigClient,
    ConfigClientError,
    ConfigInfo,
    ConnectionError,  # noqa: A004 - the SDK's
    DecryptionError,
    ForbiddenError,
    Format,
    GetOptions,
    InvalidResponseError,
    NotFoundError,
    Options,
    Snapshot,
    UnauthorizedError,
    UnmarshalError,
)

pytestmark = pytest.mark.integration

CALLS: dict[str, Callable[[ConfigClient], object]] = {
    "get": lambda client: client.get("orders", dict),
    "get_raw": lambda client: client.get_raw("orders"),
    "get_bytes": lambda client: client.get_bytes("orders"),
    "get_formatted": lambda client: client.get_formatted("orders", Format.JSON),
    "list": lambda client: client.list(),
}
CANARY = "canary-of-the-document"
ROUTES = {"get": "config", "get_raw": "config", "get_bytes": "config", "get_formatted": "formatted", "list": "list"}
every_call = pytest.mark.parametrize("call", CALLS)


@dataclass
class Database:
    host: str
    port: int = 5432


@dataclass
class Orders:
    database: Database
    tags: list[str] = field(default_factory=list)
    comment: str | None = None


class OrdersModel(BaseModel):
    database: dict[str, Any]


# What the methods return


def test_get_decodes_into_every_kind_of_target(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """A dict, a dataclass with nested, optional and defaulted fields, and a pydantic model."""
    foreign.publish("orders", {"database": {"host": "db1"}})
    client = connect()
    assert client.get("orders", dict) == {"database": {"host": "db1"}}
    assert client.get("orders", Orders) == Orders(Database("db1"))
    assert client.get("orders", OrdersModel).database == {"host": "db1"}
    assert client.get_raw("orders") == {"database": {"host": "db1"}}


def test_bytes_are_returned_as_published(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """Not parsed and not rewritten: white space and duplicate keys survive, and what is no JSON as well."""
    client = connect()
    for raw in (b'{ "a" : 1.0, "a": 2 }\n', b"not json", "ü".encode()):
        foreign.publish("orders", raw)
        assert client.get_bytes("orders") == raw


@pytest.mark.parametrize("fmt", [*Format, "yaml"])
def test_a_rendering_is_asked_for_by_its_name(foreign: Any, connect: Callable[..., ConfigClient], fmt: Format) -> None:
    """The service renders; the body comes back untouched. The plain text of a format will do."""
    body = b"DATABASE_HOST='db1'\n"
    foreign.always("formatted", foreign.answer(200, body, Content_Type="text/plain"))
    assert connect().get_formatted("orders", fmt) == body
    assert foreign.requests[-1].query == {"format": str(Format(fmt).value)}


def test_a_web_page_is_no_rendering(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """A login page of a proxy must not end up in somebody's .env file."""
    foreign.always("formatted", foreign.answer(200, b"<html>log in</html>", Content_Type="Text/HTML; charset=utf-8"))
    with pytest.raises(InvalidResponseError, match="web page"):
        connect().get_formatted("orders", Format.ENV)


def test_the_list_has_a_row_per_config(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """Names, validity, and aware UTC times of whatever form."""
    foreign.publish("orders", {})
    foreign.publish("billing", {})
    valid_from = datetime(2026, 11, 20, 10, tzinfo=timezone.utc)
    updated_at = datetime(2026, 11, 20, 10, 0, 0, 500_000, tzinfo=timezone.utc)
    assert connect().list() == [ConfigInfo(name, True, valid_from, updated_at) for name in ("orders", "billing")]


@pytest.mark.parametrize(
    ("opts", "query"),
    [
        (None, {}),
        (GetOptions(), {}),
        (GetOptions("prod"), {"environment": "prod"}),
        (GetOptions("prod", 3, "feature/x"), {"environment": "prod", "version": "3", "label": "feature/x"}),
    ],
)
def test_options_travel_in_the_query(
    foreign: Any, connect: Callable[..., ConfigClient], opts: GetOptions | None, query: dict[str, str]
) -> None:
    """Empty texts and version 0 are left out, by every method that takes them."""
    foreign.publish("orders", {})
    client = connect()
    client.get("orders", dict, opts)
    client.get_raw("orders", opts)
    client.get_bytes("orders", opts)
    client.get_formatted("orders", Format.JSON, opts)
    assert [request.query for request in foreign.requests] == [*[query] * 3, {"format": "json", **query}]


def test_a_client_is_shared_between_threads(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """Eight threads read different configs through one client without mixing them up."""
    client = connect()
    for number in range(8):
        foreign.publish(f"config-{number}", {"n": number})
    wrong: list[object] = []

    def read(number: int) -> None:
        wrong.extend(value for _ in range(20) if (value := client.get_raw(f"config-{number}")) != {"n": number})

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


# Errors


@every_call
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (400, InvalidResponseError),
        (409, InvalidResponseError),
        (418, InvalidResponseError),
        (431, InvalidResponseError),
        (204, InvalidResponseError),
        (206, InvalidResponseError),
    ],
)
def test_a_refusal_is_raised_as_its_error_after_one_attempt(
    foreign: Any, connect: Callable[..., ConfigClient], call: str, status: int, error: type[ConfigClientError]
) -> None:
    """401, 403 and 404 have errors of their own, the rest is InvalidResponseError; nothing of it is retried."""
    foreign.always(ROUTES[call], foreign.answer(status, b"x" * 40))
    with pytest.raises(ConfigClientError) as caught:
        CALLS[call](connect())
    assert type(caught.value) is error
    assert foreign.count(ROUTES[call]) == 1


@every_call
@pytest.mark.parametrize("retries", [0, 2])
def test_5xx_and_network_errors_are_retried_and_then_raised(
    foreign: Any, connect: Callable[..., ConfigClient], call: str, retries: int
) -> None:
    """After 1 + retry_count attempts a ConnectionError is raised, whose cause holds no request."""
    route = ROUTES[call]
    foreign.always(route, foreign.answer(500))
    client = connect(retry_count=retries)
    with pytest.raises(ConnectionError, match="500") as caught:
        CALLS[call](client)
    assert foreign.count(route) == 1 + retries
    assert caught.value.__cause__ is not None
    foreign.always(route, lambda connection, request: connection.reset())
    with pytest.raises(ConnectionError) as caught:
        CALLS[call](client)
    assert foreign.count(route) == 2 * (1 + retries)
    assert isinstance(caught.value.__cause__, httpx.TransportError)
    with pytest.raises(RuntimeError):
        _ = caught.value.__cause__.request


def test_a_passing_failure_is_not_noticed(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """An answer within the retries is as good as the first."""
    foreign.publish("orders", {"a": 1})
    foreign.script("config", foreign.answer(503), lambda connection, request: connection.reset(), foreign.answer(502))
    assert connect().get_raw("orders") == {"a": 1}
    assert foreign.count("config") == 4


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"", DecryptionError),
        (b"x" * 27, DecryptionError),
        (b"x" * 28, DecryptionError),
        (b"<html>" * 9, DecryptionError),
    ],
)
def test_a_payload_that_does_not_open_is_a_decryption_error(
    foreign: Any, connect: Callable[..., ConfigClient], payload: bytes, error: type[ConfigClientError]
) -> None:
    """Too short or not authentic: the error names the config, and the payload is fetched once."""
    foreign.always("config", foreign.answer(200, payload))
    with pytest.raises(error, match="orders"):
        connect().get_bytes("orders")
    assert foreign.count("config") == 1


def test_one_of_several_keys_opens(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """While a key is rotated the client holds the old and the new one."""
    foreign.publish("orders", {"a": 1})
    key = connect()._options.encryption_key
    assert connect(encryption_key=f"{'0' * 64},{key}").get_raw("orders") == {"a": 1}
    with pytest.raises(DecryptionError):
        connect(encryption_key="0" * 64).get_raw("orders")


@pytest.mark.parametrize(
    ("raw", "target", "fragment"),
    [
        (b"not json", dict, "JSON"),
        (b"[1]", dict, "object"),
        (b'{"database": 5}', OrdersModel, "Pydantic validation failed"),
        (b'{"database": 5}', Orders, "Dataclass construction failed"),
    ],
)
def test_a_document_that_does_not_fit_is_an_unmarshal_error(
    foreign: Any, connect: Callable[..., ConfigClient], raw: bytes, target: type, fragment: str
) -> None:
    """The text says which kind of target failed; applications match on it."""
    foreign.publish("orders", raw)
    with pytest.raises(UnmarshalError, match=fragment):
        connect().get("orders", target)


def test_a_document_that_does_not_fit_is_in_no_frame_of_the_traceback(
    foreign: Any, connect: Callable[..., ConfigClient], leaks: Callable[..., list[str]]
) -> None:
    """Error trackers collect the variables of every frame; the document is none of them."""
    foreign.publish("orders", {"database": CANARY})
    with pytest.raises(UnmarshalError) as raised:
        connect().get("orders", Orders)
    assert leaks(raised.value, secrets=(CANARY,)) == []
    traceback, frames = raised.value.__traceback__, []
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename != __file__:
            frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    assert frames
    for frame in frames:
        for value in frame.f_locals.values():
            assert CANARY not in repr(value), frame.f_code.co_name
            assert not isinstance(value, BaseException) or value is raised.value


@pytest.mark.parametrize("target", [int, list, str, object])
def test_a_target_that_is_not_supported_costs_no_request(
    foreign: Any, connect: Callable[..., ConfigClient], target: type
) -> None:
    """The mistake is the caller's whatever the document is; a watch raises it instead of reporting it for ever."""
    client = connect()
    with pytest.raises(UnmarshalError, match="Unsupported target_type"):
        client.get("orders", target)
    with pytest.raises(UnmarshalError, match="Unsupported target_type"):
        client.watch_and_decode("orders", target, Snapshot())
    assert foreign.requests == []


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"{}", b'"text"', b"[1]", b'[{"name": "orders"}]', b"\xff"],
)
def test_a_list_that_is_none_is_an_invalid_response(
    foreign: Any, connect: Callable[..., ConfigClient], body: bytes
) -> None:
    """A 2xx whose body is not what the endpoint promises."""
    foreign.always("list", foreign.answer(200, body))
    with pytest.raises(InvalidResponseError):
        connect().list()


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "api", "é", "x" * 129, "orders\n", "-a", "a..b"])
def test_a_name_that_is_none_is_refused_before_any_request(
    foreign: Any, connect: Callable[..., ConfigClient], name: str
) -> None:
    """By every method that takes one: no path trick ever leaves the client."""
    client = connect()
    for call in (
        lambda: client.get(name, dict),
        lambda: client.get_raw(name),
        lambda: client.get_bytes(name),
        lambda: client.get_formatted(name, Format.JSON),
        lambda: client.watch(name, lambda event: None),
        lambda: client.watch_and_decode(name, dict, Snapshot()),
    ):
        with pytest.raises(ConfigClientError, match="config name"):
            call()
    assert foreign.requests == []


def test_other_arguments_that_cannot_work_are_refused(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """An unknown format, and a watch of one version, which never changes."""
    client = connect()
    with pytest.raises(ConfigClientError, match="json, yaml, env"):
        client.get_formatted("orders", "toml")  # type: ignore[arg-type]
    with pytest.raises(ConfigClientError, match="never changes"):
        client.watch("orders", lambda event: None, GetOptions(version=3))
    with pytest.raises(ConfigClientError, match="never changes"):
        client.watch_and_decode("orders", dict, Snapshot(), GetOptions(version=3))
    assert foreign.requests == []


@pytest.mark.parametrize("timeout", [None, -1.0, float("nan"), "5", True])
def test_a_timeout_that_is_no_time_is_refused(
    foreign: Any, connect: Callable[..., ConfigClient], timeout: object
) -> None:
    """Before any request, and with what to give instead."""
    with pytest.raises(ConfigClientError, match="number of seconds, 0 or more"):
        connect().subscribe("orders", dict, timeout=timeout)  # type: ignore[arg-type]
    assert foreign.requests == []


def test_a_first_value_may_be_waited_for_without_end(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """No clock overflows."""
    foreign.publish("orders", {"n": 1})
    for timeout in (float("inf"), 1e300):
        assert connect().subscribe("orders", dict, timeout=timeout).load() == {"n": 1}


def test_a_watch_refuses_a_callback_that_nobody_would_await(foreign: Any, connect: Callable[..., ConfigClient]) -> None:
    """Its coroutines would be dropped in silence."""

    async def callback(event: object) -> None:
        raise AssertionError

    with pytest.raises(ConfigClientError, match="asynchronous"):
        connect().watch("orders", callback)
    assert foreign.requests == []


# Closing


def test_subscribing_on_a_closed_client_raises_though_it_never_subscribed(connect: Callable[..., ConfigClient]) -> None:
    """At once: nothing is waited for, not even without end."""
    client = connect()
    client.close()
    for terms in ({"timeout": float("inf")}, {"timeout": 0, "required": False}):
        with pytest.raises(ClosedError):
            client.subscribe("orders", dict, **terms)  # type: ignore[arg-type]


@every_call
def test_every_call_after_close_raises(foreign: Any, connect: Callable[..., ConfigClient], call: str) -> None:
    """A closed client says so instead of connecting again."""
    foreign.publish("orders", {})
    with connect() as client:
        CALLS[call](client)
    requests = len(foreign.requests)
    with pytest.raises(ClosedError):
        CALLS[call](client)
    client.close()
    assert len(foreign.requests) == requests


@pytest.mark.parametrize("how", ["answer", "retry"])
def test_close_ends_a_call_under_way(foreign: Any, connect: Callable[..., ConfigClient], how: str) -> None:
    """A get that waits for an answer, or for its next attempt, raises ClosedError at once."""
    if how == "answer":
        foreign.always("config", lambda connection, request: connection.stall())
    else:
        foreign.always("config", foreign.answer(503, Retry_After="50"))
    client = connect(request_timeout=60.0)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            client.get_raw("orders")
        except ConfigClientError as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert foreign.wait_for("config", 1)
    if how == "retry":
        assert foreign.wait_for_answers("config", 1)
    began = time.monotonic()
    client.close()
    thread.join(60)
    assert time.monotonic() - began < 1.0
    assert [type(error) for error in raised] == [ClosedError]


# The environment


VARIABLES = {
    "CONFIG_SERVICE_HOST": "http://127.0.0.1:1",
    "CONFIG_SERVICE_TOKEN": "cst_t",
    "CONFIG_SERVICE_KEY": "a" * 64,
}


@pytest.mark.parametrize("missing", [*[{name} for name in VARIABLES], set(VARIABLES)])
@pytest.mark.parametrize("empty", [False, True])
def test_from_env_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, missing: set[str], empty: bool) -> None:
    """Each variable that is not set, or empty, and none of the others."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
        if name in missing:
            monkeypatch.setenv(name, "") if empty else monkeypatch.delenv(name)
    with pytest.raises(ConfigClientError) as caught:
        ConfigClient.from_env()
    assert {name for name in VARIABLES if name in str(caught.value)} == missing


def test_from_env_makes_a_client(
    foreign: Any, connect: Callable[..., ConfigClient], monkeypatch: pytest.MonkeyPatch, told: Callable[[], Any]
) -> None:
    """Host, token and key come from the environment; the callbacks may be given."""
    options = connect()._options
    monkeypatch.setenv("CONFIG_SERVICE_HOST", foreign.url + "/")
    monkeypatch.setenv("CONFIG_SERVICE_TOKEN", options.service_token)
    monkeypatch.setenv("CONFIG_SERVICE_KEY", options.encryption_key)
    foreign.publish("orders", {"a": 1})
    errors = told()
    foreign.always("watch", foreign.answer(404))
    with ConfigClient.from_env(on_error=errors) as client:
        assert client.get_raw("orders") == {"a": 1}
        with pytest.raises(NotFoundError):
            client.watch("missing", lambda event: None)
    assert len(errors.items) == 1


def test_a_bad_value_in_the_environment_is_an_error_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is none is named by its fault."""
    for name, value in {**VARIABLES, "CONFIG_SERVICE_KEY": "canary"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigClientError, match="64 hex") as caught:
        ConfigClient.from_env()
    assert "canary" not in repr(caught.value)


@pytest.mark.parametrize("host", ["http://[bad", "http://a:99999", "http://a:b", "ftp://a", "a", "http://a b"])
def test_a_host_that_is_no_url_is_refused_at_the_start(host: str) -> None:
    """Not by httpx, and not at the first request."""
    with pytest.raises(ConfigClientError, match="host"):
        ConfigClient(Options(host, "cst_t", "a" * 64))


# A caller's own HTTP client


@pytest.fixture
def http_client() -> Iterator[httpx.Client]:
    """Make an HTTP client that belongs to the application."""
    with httpx.Client() as client:
        yield client


def test_a_callers_client_is_used_and_never_closed(
    foreign: Any, connect: Callable[..., ConfigClient], http_client: httpx.Client
) -> None:
    """Requests and retries go through it, and it works on after close."""
    foreign.publish("orders", {"a": 1})
    foreign.script("config", foreign.answer(503))
    http_client.headers["X-Of-The-Caller"] = "yes"
    with connect(http_client=http_client) as client:
        assert client.get_raw("orders") == {"a": 1}
    assert [request.headers["x-of-the-caller"] for request in foreign.requests] == ["yes", "yes"]
    assert not http_client.is_closed
    assert http_client.get(foreign.url + "/api/v1/service/configs").status_code == 401


def test_a_watch_on_a_callers_client_follows_and_ends_while_the_callers_requests_go_on(
    foreign: Any,
    background: Callable[..., Any],
    http_client: httpx.Client,
    eventually: Callable[[Callable[[], bool]], bool],
    sockets: Callable[[], int],
) -> None:
    """close wakes the blocked read of the stream, and leaves the caller's own request to finish."""
    foreign.publish("orders", {"a": 1})
    before = sockets()
    watching = background(http_client=http_client)
    assert watching.snapshot.wait_for(timeout=60)
    assert foreign.wait_for_answers("config", 2)
    swapped = threading.Event()
    watching.snapshot.on_change(lambda _: swapped.set())
    foreign.publish("orders", {"a": 2})
    assert swapped.wait(60)
    assert foreign.wait_for_answers("config", 3)

    answer_now = threading.Event()
    answers: list[int] = []

    def slow(connection: Any, request: Any) -> None:
        answer_now.wait(60)
        connection.answer(200, b"[]")

    foreign.always("list", slow)
    own = threading.Thread(
        target=lambda: answers.append(http_client.get(foreign.url + "/api/v1/service/configs").status_code)
    )
    own.start()
    assert foreign.wait_for("list", 1)
    with stopwatch() as took:
        watching.client.close()
    assert watching.ended()
    answer_now.set()
    own.join(60)
    assert watching.raised == []
    assert answers == [200]
    assert not http_client.is_closed
    assert took.seconds < 0.1
    assert foreign.wait_until_left()
    http_client.close()
    assert eventually(lambda: sockets() == before)


def test_a_connection_that_went_back_to_the_caller_is_left_alone(
    foreign: Any, background: Callable[..., Any], told: Callable[[], Any]
) -> None:
    """A stream that ended in good order leaves its connection in the caller's pool: closing must not cut it there."""
    errors = told()
    foreign.publish("orders", {"a": 1})
    with httpx.Client(limits=httpx.Limits(max_connections=2)) as http_client:
        watching = background(http_client=http_client, on_error=errors, retry_delay=30.0, max_retry_delay=30.0)
        assert foreign.wait_for_answers("config", 2)
        foreign.always("watch", foreign.answer(503))
        foreign.end()
        assert errors.wait_for(1)
        entered, answer_now = threading.Barrier(3), threading.Event()
        answers: list[int] = []

        def slow(connection: Any, request: Any) -> None:
            entered.wait(60)
            answer_now.wait(60)
            connection.answer(200, b"[]")

        def call() -> None:
            answers.append(http_client.get(foreign.url + "/api/v1/service/configs").status_code)

        foreign.always("list", slow)
        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        entered.wait(60)
        watching.client.close()
        answer_now.set()
        for thread in threads:
            thread.join(60)
        assert answers == [200, 200]


def test_a_callers_mock_keeps_working(connect: Callable[..., ConfigClient], foreign: Any) -> None:
    """An application's tests put a MockTransport under its client: requests and streams go through it."""
    sealed = foreign.sealed(b'{"a": 1}')
    event = '{"config_name":"orders","version":4,"changed_by":1,"timestamp":"2026-11-20T10:00:00"}'
    stream = f"event: config_changed\ndata: {event}\n\n".encode()

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/watch"):
            return httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, content=stream)
        return httpx.Response(200, content=sealed)

    with httpx.Client(transport=httpx.MockTransport(handle)) as http_client:
        client = connect(http_client=http_client, host="http://config.test")
        assert client.get_raw("orders") == {"a": 1}
        versions: list[int] = []

        def callback(event: Any) -> None:
            versions.append(event.version)
            if len(versions) == 3:
                client.close()

        client.watch("orders", callback)
        assert versions == [4, 4, 4]
    assert foreign.requests == []


def test_one_connection_is_enough_to_stay_current(foreign: Any, background: Callable[..., Any]) -> None:
    """A caller's pool of one connection cannot fetch beside a stream; between streams it can."""
    foreign.publish("orders", {"a": 1})
    limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(5.0, pool=0.05)
    with httpx.Client(limits=limits, timeout=timeout) as http_client:
        watching = background(http_client=http_client, request_timeout=0.2)
        assert watching.snapshot.wait_for(timeout=60)
        swapped = threading.Event()
        watching.snapshot.on_change(lambda _: swapped.set())
        foreign.publish("orders", {"a": 2})
        assert swapped.wait(60)
        assert watching.snapshot.load() == {"a": 2}
        watching.client.close()
        assert watching.ended()


def test_the_repr_of_a_client_shows_its_host_and_no_secret(connect: Callable[..., ConfigClient]) -> None:
    """Clients and options end up in logs."""
    client = connect(host="http://config.test/prefix")
    options = client._options
    assert repr(client) == "ConfigClient('http://config.test/prefix')"
    for text in (repr(client), repr(options), str(options), repr(client._transport), repr(client._keyring)):
        assert options.service_token not in text
        assert options.encryption_key not in text
