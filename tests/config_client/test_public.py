"""The published surface: names, places, signatures and defaults; and that nothing foreign or secret leaves it."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import config_client
from config_client import ConfigClient, ConfigClientError, Format, GetOptions, Options, Snapshot
from config_client.crypto import seal
from config_client.transport import Transport

TOKEN = "cst_canary-token-51e9"
KEY = "deadbeef" * 8
DOCUMENT = "canary-of-the-document"
SECRETS = (TOKEN, KEY, DOCUMENT)
ROOT = Path(config_client.__file__).parent.parent

PLACES = {
    "client": ["ConfigClient"],
    "options": ["Options", "GetOptions"],
    "types": ["ConfigInfo", "ConfigChangeEvent", "Format"],
    "snapshot": ["Snapshot"],
    "errors": [
        "ConfigClientError",
        "UnauthorizedError",
        "ForbiddenError",
        "NotFoundError",
        "DecryptionError",
        "InvalidResponseError",
        "ConnectionError",
        "UnmarshalError",
        "RefusedError",
        "ClosedError",
    ],
    "status": ["State", "Status"],
    "subscription": ["Subscription"],
    "aio": ["AsyncConfigClient"],
    "crypto": ["NONCE_SIZE", "GCM_TAG_SIZE", "decrypt", "parse_encryption_key"],
    "transport": ["Transport", "backoff_delay"],
}


class Model(BaseModel):
    text: int


# Names and signatures


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PLACES.items() for name in names])
def test_every_name_is_where_applications_import_it_from(module: str, name: str) -> None:
    """From its module, and, what is not low-level, from the package: the same object."""
    found = getattr(importlib.import_module(f"config_client.{module}"), name)
    if module not in {"crypto", "transport"}:
        assert getattr(config_client, name) is found
        assert name in config_client.__all__


def test_the_package_exports_nothing_else_by_accident() -> None:
    """Every exported name exists, is documented, and is not a module."""
    assert sorted(config_client.__all__) == list(config_client.__all__)
    for name in config_client.__all__:
        value = getattr(config_client, name)
        assert inspect.isclass(value)
        assert value.__doc__
        assert value.__module__.startswith("config_client.")


def parameters(function: Callable[..., object]) -> dict[str, object]:
    """Names in order, with defaults."""
    return {name: each.default for name, each in inspect.signature(function).parameters.items() if name != "self"}


REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            Options,
            {
                "host": REQUIRED,
                "service_token": REQUIRED,
                "encryption_key": REQUIRED,
                "http_client": None,
                "request_timeout": 10.0,
                "retry_count": 3,
                "retry_delay": 1.0,
                "on_error": None,
                "on_change": None,
            },
        ),
        (GetOptions, {"environment": "", "version": 0, "label": ""}),
        (ConfigClient, {"opts": REQUIRED}),
        (ConfigClient.get, {"config_name": REQUIRED, "target_type": REQUIRED, "opts": None}),
        (ConfigClient.get_raw, {"config_name": REQUIRED, "opts": None}),
        (ConfigClient.get_bytes, {"config_name": REQUIRED, "opts": None}),
        (ConfigClient.get_formatted, {"config_name": REQUIRED, "fmt": REQUIRED}),
        (ConfigClient.list, {}),
        (ConfigClient.watch, {"config_name": REQUIRED, "callback": REQUIRED}),
        (
            ConfigClient.watch_and_decode,
            {"config_name": REQUIRED, "target_type": REQUIRED, "snapshot": REQUIRED, "opts": None},
        ),
        (ConfigClient.close, {}),
        (
            ConfigClient.subscribe,
            {
                "config_name": REQUIRED,
                "target_type": REQUIRED,
                "opts": None,
                "timeout": 10.0,
                "required": True,
                "allow_stale": True,
                "default": None,
                "pre_apply": None,
                "snapshot": None,
            },
        ),
        (
            config_client.ConfigInfo,
            {"name": REQUIRED, "is_valid": REQUIRED, "valid_from": REQUIRED, "updated_at": REQUIRED},
        ),
        (
            config_client.ConfigChangeEvent,
            {"config_name": REQUIRED, "version": REQUIRED, "changed_by": REQUIRED, "timestamp": REQUIRED},
        ),
        (Snapshot, {}),
        (Snapshot.load, {}),
        (Snapshot.store, {"value": REQUIRED}),
        (config_client.crypto.decrypt, {"ciphertext": REQUIRED, "key": REQUIRED}),
        (config_client.crypto.parse_encryption_key, {"hex_key": REQUIRED}),
        (
            Transport,
            {
                "host": REQUIRED,
                "service_token": REQUIRED,
                "request_timeout": 10.0,
                "retry_count": 3,
                "retry_delay": 1.0,
                "http_client": None,
            },
        ),
        (config_client.transport.backoff_delay, {"attempt": REQUIRED, "base_delay": REQUIRED}),
    ],
)
def test_arguments_keep_their_names_order_and_defaults(
    function: Callable[..., object], expected: dict[str, object]
) -> None:
    """What applications pass by position or by name; whatever was added comes after it and has a default."""
    found = parameters(function)
    assert list(found.items())[: len(expected)] == list(expected.items())
    assert all(default is not REQUIRED for default in list(found.values())[len(expected) :])


@pytest.mark.parametrize(
    "name", [name for name, each in vars(ConfigClient).items() if inspect.isfunction(each) and name[0] != "_"]
)
def test_both_clients_have_the_same_methods_and_arguments(name: str) -> None:
    """What is learnt of one holds for the other, but for the awaiting."""
    one, other = getattr(ConfigClient, name), getattr(config_client.AsyncConfigClient, name)
    assert list(inspect.signature(one).parameters.values()) == list(inspect.signature(other).parameters.values())
    assert inspect.iscoroutinefunction(other)
    assert not inspect.iscoroutinefunction(one)


def test_constants_and_formats_have_their_published_values() -> None:
    """Sizes of sealed format 1, and the three renderings as texts."""
    assert (config_client.crypto.NONCE_SIZE, config_client.crypto.GCM_TAG_SIZE) == (12, 16)
    assert [(each.name, each.value) for each in Format] == [("JSON", "json"), ("YAML", "yaml"), ("ENV", "env")]
    assert "env" in list(Format)


def test_the_client_is_a_context_manager_and_options_are_a_dataclass() -> None:
    """Both are used that way; the client closes itself at the end of the block."""
    options = Options("http://127.0.0.1:1", TOKEN, KEY)
    assert dataclasses.is_dataclass(options)
    with ConfigClient(options) as client:
        assert isinstance(client, ConfigClient)
    with pytest.raises(config_client.ClosedError):
        client.list()


def test_no_repr_shows_a_secret() -> None:
    """Options, clients, transports, snapshots, changes and events are printed without token, key or value."""
    options = Options("http://config.test", TOKEN, f"{KEY},{KEY}", on_error=print)
    snapshot: Snapshot[dict[str, str]] = Snapshot()
    changes: list[object] = []
    snapshot.on_change(changes.append)
    snapshot.store({"text": DOCUMENT}, version=3)
    with ConfigClient(options) as client:
        objects = [options, client, client._transport, client._keyring, snapshot, *changes]
        for text in [*map(repr, objects), *map(str, objects), f"{objects}"]:
            assert not [secret for secret in SECRETS if secret in text]


def run(code: str) -> str:
    """Run ``code`` in a fresh interpreter and return what it printed."""
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.integration
def test_what_is_not_used_is_not_imported() -> None:
    """A client starts, and decodes into a dict, a dataclass or a snapshot, without pydantic and YAML."""
    printed = run(
        f"""
        import dataclasses, httpx
        from config_client import ConfigClient, Options, Snapshot
        from config_client.crypto import seal
        SLOW = ("pydantic", "yaml", "dotenv", "config_service", "asyncio.events")
        @dataclasses.dataclass
        class Target:
            a: int
        answer = lambda request: httpx.Response(200, content=seal(b'{{"a": 1}}', bytes.fromhex({KEY!r})))
        mock = httpx.Client(transport=httpx.MockTransport(answer))
        client = ConfigClient(Options("http://config.test", "t", {KEY!r}, http_client=mock))
        print([name for name in (*SLOW, "config_client.decode", "config_client._watches") if name in sys.modules])
        assert client.get("orders", Target) == Target(1)
        assert client.get_raw("orders") == {{"a": 1}}
        snapshot = Snapshot()
        snapshot.on_change(lambda change: client.close())
        client.watch_and_decode("orders", Target, snapshot)
        assert snapshot.load() == Target(1)
        print([name for name in SLOW if name in sys.modules])
        """
    )
    assert printed.splitlines() == ["[]", "[]"]


# Nothing foreign, nothing secret


CALLS: dict[str, Callable[[ConfigClient], object]] = {
    "get dict": lambda client: client.get("orders", dict),
    "get model": lambda client: client.get("orders", Model),
    "get_raw": lambda client: client.get_raw("orders", GetOptions(environment="prod")),
    "get_bytes": lambda client: client.get_bytes("orders"),
    "get_formatted": lambda client: client.get_formatted("orders", Format.YAML),
    "list": lambda client: client.list(),
    "watch": lambda client: client.watch("orders", lambda event: None),
    "watch_and_decode": lambda client: client.watch_and_decode("orders", dict, Snapshot()),
    "subscribe": lambda client: client.subscribe("orders", Model),
}


class Collector:
    """An ``on_error`` that ends a watch, which would go on for ever, after ``enough`` errors."""

    def __init__(self, enough: int = 1) -> None:
        self.errors: list[Exception] = []
        self.client: ConfigClient | None = None
        self._enough = enough

    def __call__(self, error: Exception) -> None:
        self.errors.append(error)
        if self.client is not None and len(self.errors) >= self._enough:
            self.client.close()

    def call(self, call: Callable[[ConfigClient], object], options: Options) -> None:
        """Make one call and keep what it raises."""
        options.on_error = self
        with ConfigClient(options) as self.client:
            try:
                call(self.client)
            except Exception as error:
                self.errors.append(error)


def failing_calls(handle: Callable[[httpx.Request], httpx.Response]) -> Iterator[tuple[str, Exception]]:
    """Make every call with ``handle`` as the network; yield each error that it raises or, in a watch, reports."""
    for name, call in CALLS.items():
        with httpx.Client(transport=httpx.MockTransport(handle)) as http_client:
            collector = Collector()
            collector.call(call, Options("http://config.test", TOKEN, KEY, http_client, retry_count=1, retry_delay=0.0))
            for error in collector.errors:
                yield name, error


def foreign_errors() -> list[type[Exception]]:
    """Every exception that httpx can raise, as its documentation lists them."""
    found = [each for each in vars(httpx).values() if inspect.isclass(each) and issubclass(each, Exception)]
    assert {httpx.ConnectError, httpx.InvalidURL, httpx.StreamClosed, httpx.DecodingError} <= set(found)
    return sorted({*found, UnicodeError} - {httpx.CookieConflict}, key=lambda each: each.__name__)


def made(kind: type[Exception], request: httpx.Request) -> Exception:
    """An error as httpx makes it, with the request, and so the token, on it."""
    text = f"about {TOKEN}"
    if issubclass(kind, httpx.HTTPStatusError):
        return kind(text, request=request, response=httpx.Response(500, request=request, text=DOCUMENT))
    if issubclass(kind, httpx.RequestError):
        return kind(text, request=request)
    # Some of httpx's take no text at all.
    takes_text = kind is UnicodeError or len(inspect.signature(kind).parameters) > 0
    return kind(text) if takes_text else kind()


class Breaking(httpx.SyncByteStream):
    """A body that fails after its first bytes."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        yield f"event: config_changed\ndata: {DOCUMENT}".encode()
        raise self._error


@pytest.mark.parametrize("where", ["sending", "reading"])
@pytest.mark.parametrize("kind", foreign_errors())
def test_every_error_of_httpx_becomes_one_of_ours_without_its_request(
    kind: type[Exception], where: str, leaks: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the network raises, and when: no method lets it through, and nothing secret hangs on what it raises."""
    caplog.set_level(logging.DEBUG)

    def handle(request: httpx.Request) -> httpx.Response:
        error = made(kind, request)
        if where == "sending":
            raise error
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Breaking(error))

    called = set()
    for name, error in failing_calls(handle):
        called.add(name)
        assert isinstance(error, ConfigClientError), (name, error)
        assert leaks(error, secrets=SECRETS) == [], name
    assert called == set(CALLS)
    assert not [secret for secret in SECRETS if secret in caplog.text]


ANSWERS: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "400 with the document": lambda request: httpx.Response(400, text=DOCUMENT),
    "401": lambda request: httpx.Response(401, json={"error": {"message": DOCUMENT}}),
    "403": lambda request: httpx.Response(403, headers={"X-Echo": TOKEN}),
    "404": lambda request: httpx.Response(404, text=TOKEN),
    "422 with a path": lambda request: httpx.Response(422, json={"error": {"path": "/a", "message": DOCUMENT}}),
    "500": lambda request: httpx.Response(500, text=DOCUMENT, request=request),
    "a redirect elsewhere": lambda request: httpx.Response(302, headers={"Location": f"https://evil.test/{DOCUMENT}"}),
    "a redirect to nowhere": lambda request: httpx.Response(302, headers={"Location": "http://[" + DOCUMENT}),
    "a loop of redirects": lambda request: httpx.Response(302, headers={"Location": str(request.url)}),
    "a body that is not gzip": lambda request: httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(DOCUMENT.encode() * 9)
    ),
    "a page": lambda request: httpx.Response(200, html=f"<html>{DOCUMENT}</html>" * 9),
    "another key": lambda request: httpx.Response(200, content=seal(DOCUMENT.encode(), bytes(32))),
    "no JSON": lambda request: sealed(f'{{"text": "{DOCUMENT}'),
    "no object": lambda request: sealed(f'["{DOCUMENT}"]'),
    "half an event": lambda request: streamed(f"event: config_changed\ndata: {DOCUMENT}"),
    "an unreadable event": lambda request: streamed(f"event: config_changed\ndata: {DOCUMENT}\n\n"),
    "an event with a wrong field": lambda request: streamed(
        f'event: config_changed\ndata: {{"config_name": "orders", "version": "{DOCUMENT}"}}\n\n'
    ),
}


def sealed(text: str) -> httpx.Response:
    return httpx.Response(200, content=seal(text.encode(), bytes.fromhex(KEY)))


def streamed(text: str) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=text.encode())


@pytest.mark.parametrize("answer", ANSWERS)
def test_no_answer_leaks_into_an_error_or_a_log(
    answer: str, leaks: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """Token, key and document stay out of messages, causes, attributes and log lines, whatever the service sends."""
    caplog.set_level(logging.DEBUG)
    erred = []
    for name, error in failing_calls(ANSWERS[answer]):
        erred.append(name)
        assert isinstance(error, ConfigClientError), (name, error)
        assert leaks(error, secrets=SECRETS) == [], name
    assert erred
    assert not [secret for secret in SECRETS if secret in caplog.text]


def test_a_document_that_a_model_refuses_leaks_nothing(
    leaks: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """pydantic's errors carry the input; ours name the place and the kind of fault."""
    caplog.set_level(logging.DEBUG)
    erred = dict(failing_calls(lambda request: sealed(f'{{"text": "{DOCUMENT}"}}')))
    assert isinstance(erred["get model"], config_client.UnmarshalError)
    assert leaks(erred["get model"], caplog.text, secrets=SECRETS) == []
    assert "text" in str(erred["get model"])


HEADERS = st.sampled_from(
    [
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Transfer-Encoding",
        "Location",
        "ETag",
        "Retry-After",
        "X-Config-Heartbeat",
        "X-Config-Epoch",
        "X-Config-Revision",
        "X-Config-Timestamp",
        "Connection",
        "Set-Cookie",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "0",
            "5",
            "-1",
            "9" * 30,
            "chunked",
            "gzip",
            "br",
            "text/event-stream",
            "identity",
            "http://[",
            "//",
            "close",
            "",
        ]
    ),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=12),
)
BODIES = st.one_of(
    st.binary(max_size=60), st.just(b"event: config_changed\ndata: {}\n\n"), st.just(b"5\r\nhello\r\n0\r\n\r\n")
)


@pytest.mark.integration
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from(
        [b"200 OK", b"204 No", b"301 M", b"302 F", b"304 N", b"404 N", b"503 U", b"99 X", b"1000 X", b""]
    ),
    headers=st.lists(st.tuples(HEADERS, VALUES), max_size=4),
    body=BODIES,
)
def test_no_bytes_from_the_network_raise_anything_but_our_errors(
    foreign: Any, status: bytes, headers: list[tuple[str, str]], body: bytes
) -> None:
    """Random answers on a real socket: every method returns or raises a ConfigClientError."""
    head = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)

    def handle(connection: Any, request: Any) -> None:
        connection.send(b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n" + body)
        connection.sock.shutdown(1)

    for route in ("config", "formatted", "list", "watch"):
        foreign.always(route, handle)
    for call in CALLS.values():
        collector = Collector(enough=3)
        collector.call(call, Options(foreign.url, TOKEN, KEY, request_timeout=2.0, retry_count=0, max_retry_delay=0.01))
        assert all(isinstance(error, ConfigClientError) for error in collector.errors), collector.errors
        assert not any(TOKEN in repr(error) for error in collector.errors)


@pytest.mark.integration
def test_a_real_conversation_logs_no_secret(
    foreign: Any,
    background: Callable[..., Any],
    connect: Callable[..., ConfigClient],
    leaks: Callable[..., list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Even at DEBUG, and of the HTTP libraries too: successes, retries, refusals and streams leave no secret behind."""
    caplog.set_level(logging.DEBUG)
    foreign.publish("orders", {"text": DOCUMENT})
    foreign.script("config", foreign.answer(503))
    client = connect()
    assert client.get_raw("orders") == {"text": DOCUMENT}
    with pytest.raises(ConfigClientError):
        client.get("orders", Model)
    with pytest.raises(ConfigClientError):
        connect(service_token="cst_unknown-canary").list()
    watching = background()
    assert watching.snapshot.wait_for(timeout=60)
    assert foreign.wait_for_streams(1)
    foreign.cut()
    assert foreign.wait_for_streams(2)
    watching.client.close()
    assert watching.ended()
    assert {"httpx", "httpcore.http11", "config_client"} <= {record.name for record in caplog.records}
    assert leaks(None, caplog.text) == []
    assert leaks(None, caplog.text, secrets=(DOCUMENT, "cst_unknown-canary")) == []
