"""Whole HTTP answers as values, and how they are sent. Knows ASGI. Knows nothing of configs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""The types of ASGI 3, whose scopes and messages are open mappings."""
Headers = list[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
NO_STORE: Final = (b"cache-control", b"no-store")
NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """Status, headers and body of one answer. Without its repr: the body may be a document."""

    status: int
    headers: Headers
    body: bytes = b""

    def encoded_headers(self) -> Headers:
        """Return the headers with the length of the body, which 304 does not have."""
        if self.status == 304:
            return self.headers
        return [*self.headers, (b"content-length", b"%d" % len(self.body))]


@dataclass(frozen=True, slots=True, repr=False)
class EncodedAnswer:
    """An answer whose headers are the bytes that are sent, each line with its end; the server adds its own."""

    status: int
    lines: bytes
    body: bytes


def encoded(headers: Headers) -> bytes:
    """Return ``headers`` as the lines that are sent."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


async def send_answer(answer: Answer, send: Send, *, head: bool = False) -> None:
    """Send ``answer``; to a HEAD request without its body."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.encoded_headers()})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})
