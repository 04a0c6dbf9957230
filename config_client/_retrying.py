"""The one retry loop of this package, and the httpx transport that applies it.

Knows httpx and the policy. ``retrying`` runs inside ``RetryTransport`` (clients of our own) or around ``send`` (a
caller's client, whose transport is the caller's), never both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from ._bodies import read_whole
from ._interrupt import Interrupt
from .backoff import RetryPolicy

WHOLE_BODY: Final = "config_client.whole_body"
"""Marks a request whose body is read within the attempt, so that a body cut short is retried too.

The value of this extension is the number of seconds that the body may take.
"""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


class RetryTransport(httpx.BaseTransport):
    """Retries idempotent requests after a network error or a 5xx, around any other transport.

    It honours ``Retry-After``, pauses for at most 30 s (or what ``Retry-After`` asks for, up to a minute), returns the
    last 5xx or raises the last error when the retries are used up, and stops pausing at once on ``close``.

    ``retry_count``: further attempts; ``retry_delay``: base seconds of the backoff.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport,
        retry_count: int = 3,
        retry_delay: float = 1.0,
        *,
        interrupt: Interrupt | None = None,
    ) -> None:
        self._transport = transport
        self._policy = RetryPolicy(retries=retry_count, base=retry_delay)
        self._interrupt = interrupt or Interrupt()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request``, again if need be. Raises httpx.TransportError like any transport."""
        # A body that is a stream is used up by the first attempt.
        replayable = isinstance(request.stream, httpx.ByteStream)
        if request.method not in _IDEMPOTENT or not replayable:
            return self._transport.handle_request(request)

        seconds: float | None = request.extensions.get(WHOLE_BODY)

        def attempt() -> httpx.Response:
            response = self._transport.handle_request(request)
            return response if seconds is None else read_whole(response, seconds)

        return retrying(attempt, self._policy, self._interrupt)

    def close(self) -> None:
        """End pauses under way and close the transport inside."""
        self._interrupt.set()
        self._transport.close()


def retrying(attempt: Callable[[], httpx.Response], policy: RetryPolicy, interrupt: Interrupt) -> httpx.Response:
    """Apply ``policy`` to ``attempt``: the one retry loop of this package."""
    while True:
        response: httpx.Response | None = None
        failure: httpx.TransportError | None = None
        try:
            response = attempt()
        except httpx.TransportError as error:
            failure = error
        if response is not None and response.status_code < 500:
            return response
        step = None if interrupt.is_set() else policy.next(_retry_after(response))
        if step is not None:
            delay, policy = step
            if response is not None:
                response.close()
            if not interrupt.wait(delay):
                continue
            failure = failure or httpx.ReadError("interrupted")
            response = None
        if response is not None:
            return response
        assert failure is not None  # noqa: S101 - either a response or a failure came of the attempt
        raise failure


def _retry_after(response: httpx.Response | None) -> float | None:
    """Return the pause in seconds that a response asks for (RFC 9110 §10.2.3: seconds or a date), if any."""
    value = response.headers.get("Retry-After") if response is not None else None
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
        # The obsolete asctime form names no zone; it means UTC (RFC 9110 §5.6.7).
        aware = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        return max(0.0, aware.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
