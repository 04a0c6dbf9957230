"""Traces for OpenTelemetry, by the extra ``opentelemetry``: a span for every request, with spans for its parts below.

Needs the API only, which stands still unless the process was given a tracer provider, as ``opentelemetry-instrument``
does. Then nothing here is used at all. A span tells what the log tells: templates of routes, codes and types of errors;
no path, query or header, no name of a config, and never the text of an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time_ns
from typing import TYPE_CHECKING, Final

from ..api.answers import Headers
from ..api.exchange import Exchange
from ..build import service_version

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

_CARRIED: Final = frozenset({b"traceparent", b"tracestate"})
"""The headers of a trace's context (W3C Trace Context, 3)."""
_MAX_CARRIED: Final = 1024
"""Bytes of such a header that are looked at; longer ones are left out."""


def find_tracing(provider: TracerProvider | None = None) -> Tracing | None:
    """Return what traces with ``provider`` (None: that of the process), or None when nobody would be told."""
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    used = trace.get_tracer_provider() if provider is None else provider
    if isinstance(used, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Tracing(used)


class Request:
    """The span of a request under way, and how to leave it."""

    __slots__ = ("entered", "span")

    def __init__(self, span: Span, entered: Token[Context]) -> None:
        self.span = span
        self.entered = entered


class Tracing:
    """Makes spans with the tracer ``config_service`` of ``provider``."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import context, trace  # noqa: PLC0415 - an extra
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._context = context
        self._trace = trace
        self._tracer = provider.get_tracer("config_service", service_version())
        self._propagator = TraceContextTextMapPropagator()

    def enter(self, exchange: Exchange, headers: Headers) -> Request:
        """Begin the span of a request, in the trace that its headers name, and let it be the current one."""
        span = self._start(exchange, headers)
        return Request(span, self._context.attach(self._trace.set_span_in_context(span)))

    def record(self, exchange: Exchange, headers: Headers) -> None:
        """Tell the span of a request that has no parts, and whose answer is complete."""
        self._end(self._start(exchange, headers, time_ns() - int(exchange.seconds * 1e9)), exchange)

    def leave(self, request: Request, exchange: Exchange) -> None:
        """End the span of a request, whose answer is complete."""
        self._context.detach(request.entered)
        self._end(request.span, exchange)

    def _start(self, exchange: Exchange, headers: Headers, began: int | None = None) -> Span:
        return self._tracer.start_span(
            exchange.method,
            context=self._propagator.extract(_carrier(headers), context=self._context.Context()),
            kind=self._trace.SpanKind.SERVER,
            attributes={
                "http.request.method": exchange.method,
                "config_service.request_id": exchange.origin.request_id,
                "client.address": exchange.origin.address,
            },
            start_time=began,
        )

    def _end(self, span: Span, exchange: Exchange) -> None:
        if exchange.route:
            span.update_name(f"{exchange.method} {exchange.route}")
            span.set_attribute("http.route", exchange.route)
        if exchange.status:
            span.set_attribute("http.response.status_code", exchange.status)
        if exchange.token_id is not None:
            span.set_attribute("config_service.token_id", exchange.token_id)
        if exchange.code:
            span.set_attribute("error.type", exchange.code)
        if exchange.status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        span.end()

    def begin(self, name: str, attributes: dict[str, str | int]) -> Callable[[str], None] | None:
        """Begin a span below the current one; see ``spans.Spans``."""
        if not self._trace.get_current_span().is_recording():
            return None
        span = self._tracer.start_span(name, attributes=attributes)

        def end(error: str) -> None:
            if error:
                span.set_attribute("error.type", error)
                span.set_status(self._trace.StatusCode.ERROR)
            span.end()

        return end


def _carrier(headers: Headers) -> dict[str, str]:
    """Return the headers of the trace's context; one that comes twice names no trace."""
    carried: dict[str, str] = {}
    for name, value in headers:
        if name in _CARRIED and len(value) <= _MAX_CARRIED:
            if name.decode() in carried:
                return {}
            carried[name.decode()] = value.decode("latin-1")
    return carried
