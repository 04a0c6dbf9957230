"""The outermost layer: refuses requests that mean different things to different readers, and lets nothing escape.

Knows raw paths, sizes and logs. It runs before any routing, on the bytes that came in: a path is refused when another
program on the way (a proxy, a cache, a framework) could decode it to another path than this service does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from .. import origin
from ..domain.errors import HeadersTooLargeError, InvalidRequestError, ServiceError, TargetTooLongError
from ..logs import describe_failure, log_event
from .access import log_access
from .answers import NO_STORE, Answer, App, EncodedAnswer, Headers, Receive, Scope, Send, encoded, send_answer
from .errors import error_answer, internal_error
from .exchange import EXCHANGE, Exchange
from .peers import Peers
from .security_headers import secured

MAX_TARGET_BYTES: Final = 8 * 1024
"""Bytes that path and query of a request may take, unless set otherwise."""
MAX_HEADER_BYTES: Final = 32 * 1024
"""Bytes that the headers of a request may take, unless set otherwise."""
MAX_HEADERS: Final = 100
"""Headers that a request may have, unless set otherwise."""

_FORBIDDEN_ESCAPE: Final = re.compile(rb"%(?:2[Ff]|5[Cc]|[01][0-9A-Fa-f]|7[Ff]|25|(?![0-9A-Fa-f]{2}))")
"""Slash, backslash, control characters, a percent sign (it would be decoded once more), or an incomplete escape."""
_ORDINARY: Final = re.compile(rb"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+\Z")
T = TypeVar("T")
AnswerAtOnce = Callable[[Scope], EncodedAnswer | None]
_CLOSING_LINES: Final = {scheme: encoded(secured([NO_STORE], scheme)[1:]) for scheme in ("http", "https")}
"""What every answer tells, but for what those that come at once tell themselves."""
Observer = Callable[[Exchange], None]
"""Is told of every exchange once it is complete. Must return at once, and raise nothing."""
_logger = logging.getLogger("config_service")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bytes that path and query may take, bytes that the headers may take, and how many of them there may be."""

    target_bytes: int = MAX_TARGET_BYTES
    header_bytes: int = MAX_HEADER_BYTES
    headers: int = MAX_HEADERS


class Tracing(Protocol[T]):
    """Is told of requests, for traces."""

    def enter(self, exchange: Exchange, headers: Headers) -> T:
        """Take note that a request begins; its parts are told as such until ``leave``."""

    def leave(self, entered: T, exchange: Exchange) -> None:
        """Take note that the request is complete for which ``enter`` returned ``entered``."""

    def record(self, exchange: Exchange, headers: Headers) -> None:
        """Take note of a request without parts, which is complete."""


class Guard:
    """Wraps the application. Answers every error, logs the place of every failure, and tells the observers."""

    def __init__(
        self,
        app: App,
        peers: Peers | None = None,
        limits: RequestLimits | None = None,
        at_once: AnswerAtOnce | None = None,
        observers: Sequence[Observer] = (log_access,),
        tracing: Tracing[Any] | None = None,
    ) -> None:
        self._app = app
        self._peers = peers or Peers(())
        self._limits = limits or RequestLimits()
        self._at_once = at_once
        self._observers = tuple(observers)
        self._tracing = tracing

    def answer_at_once(self, scope: Scope) -> EncodedAnswer | None:
        """Return the answer, all headers included, of a request that needs no waiting; None: it is asked by a call.

        What is refused, or fails, is asked by a call as well, which counts it, logs it and says why.
        """
        if self._at_once is None:
            return None
        self._peers.resolve(scope)
        exchange = scope[EXCHANGE] = Exchange(scope, send=None)
        try:
            check_request(scope, self._limits)
            answer = self._at_once(scope)
        except Exception:
            answer = None
        if answer is None:
            del scope[EXCHANGE]
            return None
        exchange.status, exchange.body_bytes = answer.status, len(answer.body)
        lines = answer.lines + encoded([exchange.header]) + _CLOSING_LINES[scope["scheme"]]
        self._conclude(scope, exchange)
        if self._tracing is not None:
            self._tracing.record(exchange, scope["headers"])
        return EncodedAnswer(answer.status, lines, answer.body)

    def note_refusal(self, error: ServiceError, answer: Answer, client: tuple[str, int] | None) -> tuple[bytes, bytes]:
        """Tell the observers of ``answer`` to what never became a request; return the header with its fresh id."""
        scope: Scope = {"method": "", "headers": (), "client": client}
        exchange = scope[EXCHANGE] = Exchange(scope, send=None)
        exchange.status, exchange.code, exchange.body_bytes = answer.status, error.code, len(answer.body)
        entered = origin.enter(exchange.origin)
        self._conclude(scope, exchange)
        origin.leave(entered)
        return exchange.header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises nothing but a cancellation from outside."""
        if scope["type"] != "http":
            # A service without websockets: refusing is closing.
            await send({"type": "websocket.close", "code": 1000})
            return
        self._peers.resolve(scope)
        exchange = scope[EXCHANGE] = Exchange(scope, send)
        entered = origin.enter(exchange.origin)
        traced = None if self._tracing is None else self._tracing.enter(exchange, scope["headers"])
        head = scope["method"] == "HEAD"
        try:
            check_request(scope, self._limits)
            await self._app(scope, receive, exchange.send)
        except ServiceError as error:
            if not exchange.status:
                exchange.code = error.code
                await send_answer(error_answer(error), exchange.send, head=head)
        except Exception as error:
            # Not raised: a server would log its text, which may hold a secret.
            log_event(
                _logger,
                logging.ERROR,
                "failure",
                "unexpected %s",
                describe_failure(error),
                error_type=type(error).__qualname__,
            )
            if not exchange.status:
                exchange.code = "internal"
                await send_answer(internal_error(), exchange.send, head=head)
        finally:
            self._conclude(scope, exchange)
            if self._tracing is not None and traced is not None:
                self._tracing.leave(traced, exchange)
            origin.leave(entered)

    def _conclude(self, scope: Scope, exchange: Exchange) -> None:
        exchange.complete(scope)
        for observe in self._observers:
            observe(exchange)


_DEFAULT_LIMITS: Final = RequestLimits()


def check_request(scope: Scope, limits: RequestLimits = _DEFAULT_LIMITS) -> None:
    """Return when path and sizes of a request are in order, else raise InvalidRequestError or one of its kinds.

    A server that hands over no raw path has decoded it already; then the decoded one is checked.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogateescape")
    scope["raw_path"] = raw
    if len(raw) + len(scope["query_string"]) > limits.target_bytes:
        raise TargetTooLongError(f"the path and query are over the limit of {limits.target_bytes} bytes")
    if len(scope["headers"]) > limits.headers:
        raise HeadersTooLargeError(f"the request has more than {limits.headers} headers")
    header_bytes = hosts = 0
    for name, value in scope["headers"]:
        header_bytes += len(name) + len(value)
        hosts += name == b"host"
    if header_bytes > limits.header_bytes:
        raise HeadersTooLargeError(f"the headers are over the limit of {limits.header_bytes} bytes")
    if hosts > 1:
        # RFC 9112, 3.2: a proxy in between may have gone by the other one.
        raise InvalidRequestError("the header host was sent more than once")
    if not _ORDINARY.match(raw) and not _is_unambiguous(raw):
        raise InvalidRequestError(
            "invalid path: no encoded slash or percent sign, no backslash or control character, "
            "no empty or dot segment, and only complete percent escapes"
        )


def _is_unambiguous(raw: bytes) -> bool:
    if any(byte <= 0x20 or byte >= 0x7F for byte in raw) or b"\\" in raw or _FORBIDDEN_ESCAPE.search(raw):
        return False
    segments = unquote_to_bytes(raw).split(b"/")
    return segments[0] == b"" and b"" not in segments[1:-1] and not {b".", b".."} & set(segments)
