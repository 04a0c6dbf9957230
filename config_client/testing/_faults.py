"""What goes wrong at the in-memory service: a test that asks for nonsense, and a request that is refused.

Knows neither HTTP's bytes nor configs. A refusal says the same as the real service's, in ``docs/PROTOCOL.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CODES: Final[Mapping[int, str]] = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "access_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    412: "precondition_failed",
    413: "document_too_large",
    414: "target_too_long",
    422: "not_renderable",
    429: "rate_limited",
    431: "headers_too_large",
    500: "internal",
    503: "unavailable",
    507: "store_full",
}
"""What a program may match on, by status."""


class MisuseError(ValueError):
    """The test asks the in-memory service for something that cannot be; the message names fault and remedy."""


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered with an error. ``pointer``: a JSON Pointer to the fault in a document."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        pointer: str = "",
    ) -> None:
        super().__init__(message)
        self.status: Final = status
        self.message: Final = message
        self.pointer: Final = pointer
        self.headers: Final[Mapping[str, str]] = {**_ALWAYS.get(status, {}), **(headers or {})}

    @property
    def code(self) -> str:
        """The code of the error body."""
        return CODES.get(self.status, "error")


_ALWAYS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": 'X-Service-Token realm="config-service"'},
    503: {"Retry-After": "1"},
}
