"""One request and its answer, as the edge of the application sees them: where it came from, and what it was told.

Knows ASGI and headers. Knows nothing of configs. The layers within take note here of what only they know: the route,
the token, the error. Every answer names the request's id in ``X-Request-Id``: the one that the client or a proxy sent,
if it is fit for a log, else a fresh one.
"""

from __future__ import annotations

import re
from random import getrandbits
from time import perf_counter
from typing import Final

from ..origin import Origin
from .answers import Message, Scope, Send
from .peers import peer_of
from .security_headers import secured

EXCHANGE: Final = "config_service.exchange"
"""The key in a scope of its ``Exchange``."""
REQUEST_ID_HEADER: Final = b"x-request-id"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are told by their names; there may be any others."""
_FIT: Final = re.compile(rb"(?!cst_)[A-Za-z0-9][A-Za-z0-9._:-]{0,39}\Z")
"""Ids that may be logged: UUIDs and the like. Too short for a token's secret or a key that somebody put there."""


class Exchange:
    """A request under way. ``send`` passes the answer on, if it is sent by messages, and takes note of it."""

    __slots__ = (
        "_scheme",
        "_send",
        "began",
        "body_bytes",
        "code",
        "header",
        "method",
        "origin",
        "route",
        "seconds",
        "status",
        "token_id",
    )

    def __init__(self, scope: Scope, send: Send | None) -> None:
        request_id = request_id_of(scope) or new_request_id()
        self.origin: Final = Origin(request_id, peer_of(scope))
        self.header: Final = (REQUEST_ID_HEADER, request_id.encode())
        """The header that tells the id."""
        method = scope["method"]
        self.method: Final[str] = method if method in METHODS else "OTHER"
        self.route = ""
        """The template of the route, empty while or when there is none."""
        self.token_id: int | None = None
        """The id of the token that the request came with, once it is proved."""
        self.status = 0
        """The status of the answer, 0 while none has begun."""
        self._scheme: str = scope.get("scheme", "http")
        self.code = ""
        """The code of the error that was answered, if any."""
        self.body_bytes = 0
        """Bytes of the body sent over ASGI; what a stream writes to its connection is not among them."""
        self.began: Final = perf_counter()
        self.seconds = 0.0
        """How long it took, once it is complete."""
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass ``message`` on; the head of the answer with the request's id and what every browser is told."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = secured([*message.get("headers", ()), self.header], self._scheme)
        else:
            self.body_bytes += len(message.get("body", b""))
        if self._send is not None:
            await self._send(message)

    def complete(self, scope: Scope) -> None:
        """Take the time, and let go of ``scope``: the two would wait for the garbage collector together."""
        self.seconds = perf_counter() - self.began
        if not self.route:
            # Where the framework leaves the route that it has found.
            self.route = getattr(scope.get("route"), "path", "")
        del scope[EXCHANGE]


def note_route(scope: Scope, route: str) -> None:
    """Take note that the request of ``scope`` is for ``route``, the template of a path."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None:
        exchange.route = route


def note_token(scope: Scope, token_id: int) -> None:
    """Take note that the request of ``scope`` came with this token."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None:
        exchange.token_id = token_id


def note_error(scope: Scope, code: str) -> None:
    """Take note that the request of ``scope`` is refused with the error ``code``."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None:
        exchange.code = code


def request_id_of(scope: Scope) -> str | None:
    """Return the id that a request came with, or None when there is none, several, or one that is unfit for a log."""
    found: bytes | None = None
    for name, value in scope["headers"]:
        if name == REQUEST_ID_HEADER:
            if found is not None:
                return None
            found = value
    return found.decode() if found is not None and _FIT.match(found) else None


def new_request_id() -> str:
    """Return a fresh id: 64 random bits as 16 hex characters. It is no secret and need not be unpredictable."""
    return f"{getrandbits(64):016x}"
