"""What the service logs: lines that nobody can forge, objects that programs can read, and no secret in either."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from config_service import origin
from config_service.logs import (
    JsonFormatter,
    TextFormatter,
    configure_logging,
    describe_failure,
    json_line,
    log_event,
    log_loop_failure,
)
from config_service.origin import Origin
from config_service.process import ServiceProcess

pytestmark = pytest.mark.anyio
CANARY = "canary-91aa"
SECRET = "cst_" + "Ab3-_" * 8
CONFIG = "/api/v1/service/configs/orders"
ACCESS = "config_service.access"


def lines(caplog: pytest.LogCaptureFixture, name: str = ACCESS) -> list[dict[str, Any]]:
    """What was logged by ``name``, as a program reads it."""
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == name]


def record(message: str, *args: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("some.library", logging.WARNING, "", 0, message, args, info)


@pytest.fixture
def _within_a_request() -> Iterator[None]:
    entered = origin.enter(Origin("r-1", "10.0.0.7"))
    yield
    origin.leave(entered)


@pytest.mark.usefixtures("_within_a_request")
def test_a_line_of_json_says_when_who_what_and_within_which_request() -> None:
    """One object on one line."""
    line = JsonFormatter().format(record("%s happened\n", "it"))
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", told.pop("time"))
    assert told == {
        "level": "warning",
        "pid": os.getpid(),
        "logger": "some.library",
        "event": "message",
        "message": "it happened\\n",
        "request_id": "r-1",
        "address": "10.0.0.7",
    }
    assert "\n" not in line


@pytest.mark.usefixtures("_within_a_request")
def test_a_line_of_text_ends_with_the_request() -> None:
    """Time, level, logger, message, id."""
    assert re.fullmatch(
        r"\S+ \S+ WARNING some\.library: it happened \[r-1\]", TextFormatter().format(record("it happened"))
    )


def test_outside_of_requests_there_is_no_id() -> None:
    """What the service does by itself has no request."""
    assert "request_id" not in json.loads(JsonFormatter().format(record("x")))
    assert TextFormatter().format(record("x")).endswith(" WARNING some.library: x")


@pytest.mark.parametrize("form", [JsonFormatter(), TextFormatter()])
def test_an_exception_is_told_by_type_and_place(form: logging.Formatter) -> None:
    """Neither its text nor that of its cause, which a library's logger would show."""
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise RuntimeError(CANARY) from error
    except RuntimeError as error:
        line = form.format(record("it failed", error=error))
    assert CANARY not in line
    assert "it failed: RuntimeError at test_an_exception_is_told_by_type_and_place (" in line
    assert line.count("\n") == 0


@pytest.mark.parametrize("form", [JsonFormatter(), TextFormatter()])
def test_what_looks_like_a_secret_is_masked_whoever_logs_it(form: logging.Formatter) -> None:
    """The last line of defence; nothing is known that would need it."""
    line = form.format(record("token %s key %s!", SECRET, "5a" * 32))
    assert "token *** key ***!" in line


@pytest.mark.parametrize("form", [JsonFormatter(), TextFormatter()])
def test_nobody_can_write_lines_of_his_own(form: logging.Formatter) -> None:
    """Control characters are escapes."""
    line = form.format(record("%s", "a\r\n2026-01-01 INFO forged\x1b[31m\u2028"))
    assert line.splitlines() == [line]
    assert "\x1b" not in line


def test_fields_are_told_and_masked() -> None:
    """Numbers stay numbers, None is null."""
    told = json.loads(json_line("listening", "Listening on x", url="x", port=1, spare=None, secret=SECRET))
    assert told["event"] == "listening"
    assert (told["url"], told["port"], told["spare"], told["secret"]) == ("x", 1, None, "***")


def test_an_event_that_nobody_wants_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    """The level is looked at first."""
    with caplog.at_level(logging.WARNING, "config_service"):
        log_event(logging.getLogger("config_service"), logging.INFO, "e", "m")
        log_event(logging.getLogger("config_service"), logging.WARNING, "e", "%d", 7, seven=7)
    (told,) = lines(caplog, "config_service")
    assert (told["event"], told["message"], told["seven"]) == ("e", "7", 7)


def test_what_a_loop_could_tell_nobody_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    """The loop's own handler shows the exception, and the repr of its task shows it too."""

    async def fail() -> None:
        raise RuntimeError(CANARY)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(log_loop_failure)
        asyncio.get_running_loop().call_soon({}.__getitem__, CANARY)
        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        del task
        log_loop_failure(asyncio.get_running_loop(), {"message": CANARY})

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    said = [told["message"] for told in lines(caplog, "config_service")]
    assert "KeyError" in said[0]
    assert "RuntimeError at fail (" in said[1]
    assert said[2] == "outside of any request: an unknown failure"
    assert CANARY not in caplog.text


def test_a_failure_without_a_traceback_can_be_described() -> None:
    """An exception that was never raised has no place."""
    assert describe_failure(RuntimeError(CANARY)) == "RuntimeError at an unknown place"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_messages_of_libraries_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log_format: Any
) -> None:
    """Libraries speak from warning on; the service itself from the level that is set, in the format that is set."""
    for name in ("alembic", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    configure_logging("info", log_format)
    assert not logging.getLogger("uvicorn.error").isEnabledFor(logging.INFO)
    assert logging.getLogger("alembic").isEnabledFor(logging.WARNING)
    logging.getLogger("config_service").info("hello")
    line = capsys.readouterr().err
    assert line.endswith("INFO config_service: hello\n" if log_format == "text" else '"message": "hello"}\n')


async def test_every_request_is_one_line(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With the template of its route and the id of its token: no path, no query, no secret."""
    await service.publish("orders")
    http = service.client(service.admin, {"X-Request-Id": "r-9"})
    requests = [
        ("GET", CONFIG, 200, "/api/v1/service/configs/{name}", None),
        ("HEAD", f"{CONFIG}?environment={CANARY}", 404, "/api/v1/service/configs/{name}", "not_found"),
        ("GET", "/api/v1/service/configs", 200, "/api/v1/service/configs", None),
        ("GET", f"{CONFIG}/formatted", 200, "/api/v1/service/configs/{name}/formatted", None),
        ("POST", f"{CONFIG}/watch", 405, "/api/v1/service/configs/{name}/watch", "method_not_allowed"),
        ("PUT", "/api/v1/service/watch", 405, "/api/v1/service/watch", "method_not_allowed"),
        ("GET", f"/api/v1/service/{SECRET}", 404, None, "not_found"),
        ("GET", f"/api/v1/manage/configs/{SECRET}", 404, "/api/v1/manage/configs/{name}", "not_found"),
        ("PATCH", f"/api/v1/manage/configs/{CANARY}", 405, "/api/v1/manage/configs/{name}", "method_not_allowed"),
        ("GET", f"/{SECRET}", 404, None, "not_found"),
        ("GET", f"/{CANARY}%2F", 400, None, "invalid_request"),
        ("BREW", f"/api/v1/service/configs/{CANARY}", 405, "/api/v1/service/configs/{name}", "method_not_allowed"),
        ("GET", "/healthz", 200, "/healthz", None),
    ]
    with caplog.at_level(logging.INFO, ACCESS):
        answers = [await http.request(method, path) for method, path, *_ in requests]
    told = lines(caplog)
    assert [(one["status"], one["route"], one["error"]) for one in told] == [one[2:] for one in requests]
    assert [one["method"] for one in told] == [one[0].replace("BREW", "OTHER") for one in requests]
    assert {one["request_id"] for one in told} == {"r-9"}
    assert {one["address"] for one in told} == {"127.0.0.1"}
    assert [one["bytes"] for one in told] == [len(answer.content) for answer in answers]
    assert all(0 < one["duration_seconds"] < 30 for one in told)
    known = [one["token_id"] for one in told]
    assert known == [1, 1, 1, 1, None, None, None, 1, None, None, None, None, None]
    for line in (*map(json.dumps, told), caplog.text):
        assert CANARY not in line
        assert SECRET[:12] not in line


async def test_a_refused_token_has_no_id(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Who it was is not known; that it was refused is."""
    with caplog.at_level(logging.INFO, ACCESS):
        await service.client(headers={"X-Service-Token": SECRET}).get(CONFIG)
    (told,) = lines(caplog)
    assert (told["status"], told["error"], told["token_id"]) == (401, "unauthenticated", None)
    assert SECRET not in caplog.text


async def test_no_access_lines_are_made_that_nobody_wants(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At level warning the reads cost no formatting."""
    with caplog.at_level(logging.WARNING, ACCESS):
        await service.client().get("/healthz")
    assert not lines(caplog)


async def test_a_failure_is_told_by_its_type_within_its_request(service: Any, caplog: pytest.LogCaptureFixture) -> None:
    """So that the line of the request leads to the place in the code."""
    service.store.fail = RuntimeError(CANARY)
    with caplog.at_level(logging.INFO):
        http = service.client(service.admin, {"X-Request-Id": "r-5"})
        assert (await http.put("/api/v1/manage/configs/orders", content=b"{}")).status_code == 500
    failed = [one for one in lines(caplog, "config_service") if one["event"] == "failure"]
    assert [(one["error_type"], one["request_id"]) for one in failed] == [("RuntimeError", "r-5")]
    assert lines(caplog)[-1]["error"] == "internal"
    assert CANARY not in caplog.text


async def test_the_life_of_the_service_is_told(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture, epoch: str
) -> None:
    """Ready, stopping, stopped: each once."""
    with caplog.at_level(logging.INFO, "config_service"):
        service = await start()
        await service.close()
    told = lines(caplog, "config_service")
    assert [one["event"] for one in told] == ["ready", "stopping", "stopped"]
    assert (told[0]["epoch"], told[0]["revision"]) == (epoch, 0)


async def test_a_stream_that_is_cut_is_told_with_its_own_token_and_address(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Not with those of the publisher, within whose request it is noticed."""
    service = await start(queue_frames=1)
    await service.publish("orders")
    minted = await service.mint()
    entered = origin.enter(Origin("r-1", "10.0.0.7"))
    service.operations.streams.subscribe(minted.token, "orders")
    origin.leave(entered)
    http = service.client(service.admin)
    for number in range(2):
        await http.put("/api/v1/manage/configs/orders", content=b'{"n": %d}' % number)
    (cut,) = [one for one in lines(caplog, "config_service") if one["event"] == "stream_cut"]
    assert (cut["level"], cut["token_id"], cut["address"]) == ("warning", minted.token.id, "10.0.0.7")
    assert "request_id" not in cut


@pytest.mark.e2e
def test_a_process_logs_nothing_but_json_when_told_to(tmp_path: Any) -> None:
    """From its start to its end, so that a collector has no line that it cannot read."""
    with ServiceProcess(tmp_path, {"LOG_FORMAT": "json"}) as process:
        process.operator().publish("orders", {"a": 1})
        assert process.stop() == 0
        told = [json.loads(line) for line in process.log.splitlines()]
    assert [one["event"] for one in told] == ["ready", "listening", "request", "stopping", "stopped"]
    assert told[1]["url"].startswith("http://127.0.0.1:")
    assert told[2]["route"] == "/api/v1/manage/configs/{name}"


@pytest.mark.e2e
def test_what_never_becomes_a_request_is_a_line_too(
    begin: Callable[..., Any], open_raw: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Bytes that are not HTTP, and a connection over the limit: counted, and logged with the id that was answered."""
    service = begin(max_connections=1)
    with caplog.at_level(logging.INFO, ACCESS):
        first = open_raw(service.address, f"/{CANARY}")
        second = open_raw(service.address, f"/{CANARY}")
        assert second.ends()
        garbage = f"{CANARY}\r\n\r\n".encode()
        first.socket.sendall(garbage)
        while b"invalid_request" not in first.body:
            assert first.read()
    told = {one["error"]: one for one in lines(caplog)}
    assert (second.status, told["too_many_connections"]["status"]) == (503, 503)
    assert told["too_many_connections"]["request_id"] == second.headers["x-request-id"]
    refused = told["invalid_request"]
    assert (refused["status"], refused["method"], refused["route"], refused["address"]) == (
        400,
        "OTHER",
        None,
        "127.0.0.1",
    )
    assert refused["request_id"].encode() in first.body
    assert CANARY not in caplog.text
    errors = service.app.metrics._requests.errors
    assert errors["too_many_connections"] == errors["invalid_request"] == 1
