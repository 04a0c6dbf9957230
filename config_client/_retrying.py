"""The one retry loop of this package, and the httpx transport that applies it.

Knows httpx's responses and the policy. ``retried`` is the loop, without I/O; ``RetryTransport`` performs it for
clients of the application's own, ``transport`` and ``_aio_transport`` perform it around whole exchanges, never both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, TypeVar

import httpx

from ._interrupt import Interrupt
from .backoff import RetryPolicy

S = TypeVar("S")
F = TypeVar("F", bound=Exception)

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_LATER: Final = frozenset({408, 429})
"""Below 500, and yet no word about the request itself: it came too slowly, or too often."""


class Pause(NamedTuple):
    """A step of the loop: do nothing for ``seconds``."""

    seconds: float


def asks_for_later(status: int) -> bool:
    """Tell whether a status says to send the same request again later: any 5xx, 408 and 429 (RFC 9110, RFC 6585)."""
    return status >= 500 or status in _LATER


def is_answer(outcome: httpx.Response | Exception) -> bool:
    """Tell whether an attempt has succeeded, as far as retries go: no network error, and no status to come back for."""
    return isinstance(outcome, httpx.Response) and not asks_for_later(outcome.status_code)


def retried(
    attempt: Callable[[], Generator[S, httpx.Response | F | None, httpx.Response | F]], policy: RetryPolicy
) -> Generator[S | Pause, httpx.Response | F | None, httpx.Response | F]:
    """Apply ``policy`` to ``attempt``, whose steps are passed on; return the last outcome."""
    while True:
        outcome = yield from attempt()
        if is_answer(outcome):
            return outcome
        step = policy.next(asked_pause(outcome) if isinstance(outcome, httpx.Response) else None)
        if step is None:
            return outcome
        delay, policy = step
        yield Pause(delay)


class RetryTransport(httpx.BaseTransport):
    """Retries idempotent requests after a network error, a 5xx, 408 or 429, around any other transport.

    It honours ``Retry-After``, pauses for at most 30 s (or what ``Retry-After`` asks for, up to a minute), returns the
    last such answer or raises the last error when the retries are used up, and stops pausing at once on ``close``.

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
        steps = retried(_once, self._policy)
        next(steps)
        while True:
            outcome = self._attempt(request)
            try:
                step = steps.send(outcome)
            except StopIteration:
                break
            # Set already, the interrupt lets the outcome stand.
            if step is None or self._interrupt.is_set():
                break
            if isinstance(outcome, httpx.Response):
                outcome.close()
            if self._interrupt.wait(step.seconds):
                outcome = outcome if isinstance(outcome, Exception) else httpx.ReadError("interrupted")
                break
            next(steps)
        if isinstance(outcome, httpx.Response):
            return outcome
        raise outcome

    def close(self) -> None:
        """End pauses under way and close the transport inside."""
        self._interrupt.set()
        self._transport.close()

    def _attempt(self, request: httpx.Request) -> httpx.Response | httpx.TransportError:
        try:
            return self._transport.handle_request(request)
        except httpx.TransportError as error:
            return error


def _once() -> Generator[None, httpx.Response | httpx.TransportError | None, httpx.Response | httpx.TransportError]:
    outcome = yield None
    assert outcome is not None  # noqa: S101 - an attempt ends in a response or an error
    return outcome


def asked_pause(response: httpx.Response) -> float | None:
    """Return the pause in seconds that a response asks for (RFC 9110 §10.2.3: seconds or a date), if any."""
    value = response.headers.get("Retry-After")
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
