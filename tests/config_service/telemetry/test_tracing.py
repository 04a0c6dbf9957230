"""Traces: a span for every request with its parts below, in the caller's trace, without a secret; nothing otherwise."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from config_service.domain.errors import StoreFullError
from config_service.telemetry.tracing import find_tracing

pytestmark = pytest.mark.anyio
CANARY = "canary-5d02"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
CONFIG = "/api/v1/service/configs/orders"
MANAGE = "/api/v1/manage/configs/orders"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Give the process a tracer provider, as ``opentelemetry-instrument`` does."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return kept


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Every span by its name; then forget them."""
    told = exporter.get_finished_spans()
    exporter.clear()
    return {span.name: span for span in told}


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


async def test_a_publish_is_a_span_with_its_commit_and_its_fan_out_below(
    exporter: InMemorySpanExporter, start: Callable[..., Any]
) -> None:
    """In the trace of the caller, and named by the template of the route."""
    service = await start()
    await service.publish("orders")
    service.operations.streams.subscribe(service.admin.token, "orders")
    exporter.clear()
    http = service.client(service.admin, PARENT | {"X-Request-Id": "r-1"})
    assert (await http.put(MANAGE, content=b'{"n": 1}')).status_code == 201
    told = spans(exporter)
    request = told["PUT /api/v1/manage/configs/{name}"]
    assert request.kind is trace.SpanKind.SERVER
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{parent_of(request):016x}" == "b7ad6b7169203331"
    assert dict(request.attributes or {}) == {
        "http.request.method": "PUT",
        "http.route": "/api/v1/manage/configs/{name}",
        "http.response.status_code": 201,
        "client.address": "127.0.0.1",
        "config_service.request_id": "r-1",
        "config_service.token_id": 1,
    }
    commit, fan_out = told["store commit_version"], told["fan-out"]
    assert parent_of(commit) == parent_of(fan_out) == request.context.span_id
    assert dict(fan_out.attributes or {}) == {"config_service.revision": 3, "config_service.streams": 1}
    assert request.start_time <= commit.start_time <= commit.end_time <= fan_out.end_time <= request.end_time


async def test_a_failure_is_told_by_type_and_code(exporter: InMemorySpanExporter, start: Callable[..., Any]) -> None:
    """Never by its text, and not as an exception with a stack of values."""
    service = await start()
    exporter.clear()
    http = service.client(service.admin)
    service.store.fail = StoreFullError(CANARY)
    assert (await http.put(MANAGE, content=b'{"a": "%s"}' % CANARY.encode())).status_code == 507
    told = spans(exporter)
    assert set(told) == {"PUT /api/v1/manage/configs/{name}", "store commit_version"}
    request, commit = told["PUT /api/v1/manage/configs/{name}"], told["store commit_version"]
    assert (request.attributes or {})["error.type"] == "store_full"
    assert (commit.attributes or {})["error.type"] == "StoreFullError"
    assert request.status.status_code is commit.status.status_code is trace.StatusCode.ERROR
    await http.get(f"/{CANARY}?{CANARY}")
    refused = spans(exporter)["GET"]
    assert refused.status.status_code is trace.StatusCode.UNSET
    assert CANARY not in "".join(span.to_json() for span in (request, commit, refused))
    assert not request.events


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": "rubbish"},
        {"traceparent": "00-" + "0" * 32 + "-b7ad6b7169203331-01"},
        {"traceparent": PARENT["traceparent"], "tracestate": "x" * 2000},
        {"traceparent": "x" * 5000},
    ],
)
async def test_a_trace_that_cannot_be_read_is_none(
    exporter: InMemorySpanExporter, start: Callable[..., Any], headers: dict[str, str]
) -> None:
    """Then the request begins a trace of its own, or at least has no rubbish in it."""
    service = await start()
    exporter.clear()
    assert (await service.client(headers=headers).get("/healthz")).status_code == 200
    span = spans(exporter)["GET /healthz"]
    assert (parent_of(span) is None) == ("tracestate" not in headers)
    assert len(span.context.trace_state) == 0


async def test_two_traces_are_none(exporter: InMemorySpanExporter, start: Callable[..., Any]) -> None:
    """Nobody knows which of them is meant."""
    service = await start()
    exporter.clear()
    twice = tuple((b"traceparent", PARENT["traceparent"].encode()) for _ in range(2))
    assert (await service.raw(b"/healthz", headers=twice)).status == 200
    assert parent_of(spans(exporter)["GET /healthz"]) is None


async def test_what_the_service_does_by_itself_is_no_trace(
    exporter: InMemorySpanExporter, start: Callable[..., Any]
) -> None:
    """Neither looking into the log nor a change that no request caused."""
    service = await start()
    await service.publish("orders")
    assert spans(exporter) == {}


async def test_what_is_not_sampled_has_no_parts(monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]) -> None:
    """Whoever decides not to record pays for nothing below the request."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    service = await start()
    http = service.client(service.admin)
    assert (await http.put(MANAGE, content=b"{}")).status_code == 201
    assert kept.get_finished_spans() == ()
    assert (await http.get(CONFIG, headers=PARENT)).status_code == 200
    assert [span.name for span in kept.get_finished_spans()] == ["GET /api/v1/service/configs/{name}"]


def test_without_a_provider_nothing_is_traced() -> None:
    """The API alone, as it is installed here, has one that does nothing."""
    assert find_tracing() is None
    assert find_tracing(trace.NoOpTracerProvider()) is None


def test_without_the_extra_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing library is no failure."""
    really = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "opentelemetry":
            raise ImportError(name)
        return really(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    assert find_tracing() is None


@pytest.mark.e2e
def test_a_real_server_traces_what_it_answers_at_once(
    exporter: InMemorySpanExporter, begin: Callable[..., Any]
) -> None:
    """Over a socket: the fastest way through the service has a span like every other one, and so has a stream."""
    service = begin()
    service.publish(b"{}")
    exporter.clear()
    headers = {"X-Service-Token": service.reader.secret} | PARENT
    with httpx.Client(base_url=service.url, headers=headers, trust_env=False) as http:
        assert http.get(CONFIG).status_code == 200
        with http.stream("GET", f"{CONFIG}/watch") as stream:
            assert stream.status_code == 200
    told = spans(exporter)
    assert set(told) == {"GET /api/v1/service/configs/{name}", "GET /api/v1/service/configs/{name}/watch"}
    for span in told.values():
        assert f"{span.context.trace_id:032x}" == TRACE
        assert (span.attributes or {})["http.response.status_code"] == 200
        assert span.end_time >= span.start_time
