"""Reading the body of a response: bounded in bytes and in time, and without a way back to the request.

Knows httpx. The request's headers hold the token, so what is handed on must not lead to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import httpx

from .errors import InvalidResponseError

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Bytes of a response body, decompressed; a larger one is not a config."""

_NOTHING: Final = httpx.ByteStream(b"")
_FRAMING: Final = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


def read_whole(response: httpx.Response, seconds: float) -> httpx.Response:
    """Return ``response`` with its body read, at most ``MAX_BODY_BYTES`` of it within ``seconds``.

    Raises InvalidResponseError for a larger body and httpx.ReadTimeout for one that only drips.
    """
    meter = _Meter(seconds)
    if response.is_closed:
        response.read()  # raises for a body that somebody else has thrown away
        return response
    if "Content-Encoding" not in response.headers and isinstance(response.stream, httpx.SyncByteStream):
        # The usual case without a second Response, which costs as much as opening a small payload does.
        response.stream = _Limited(response.stream, meter)
        try:
            response.read()
        finally:
            response.close()
        response.stream = _NOTHING
        return response
    try:
        body = b"".join(map(meter.passed, response.iter_bytes()))
    finally:
        response.close()
    return detached(response, body)


async def aread_whole(response: httpx.Response, seconds: float) -> httpx.Response:
    """Do what ``read_whole`` does, on a client that is asynchronous."""
    meter = _Meter(seconds)
    if response.is_closed:
        await response.aread()
        return response
    try:
        body = b"".join([meter.passed(part) async for part in response.aiter_bytes()])
    finally:
        await response.aclose()
    return detached(response, body)


def put_away(response: httpx.Response) -> None:
    """Close ``response``, whose body is of no more use.

    httpx lets a response and its stream refer to each other, and so to the connection: they would stay in memory until
    the collector of cycles comes by.
    """
    response.close()
    response.stream = _NOTHING


async def aput_away(response: httpx.Response) -> None:
    """As ``put_away``, for a response on an event loop."""
    await response.aclose()
    response.stream = _NOTHING


class _Meter:
    """Counts a body that arrives, and fails beyond ``MAX_BODY_BYTES`` or ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._size = 0
        self._deadline = time.monotonic() + seconds

    def passed(self, part: bytes) -> bytes:
        self._size += len(part)
        if self._size > MAX_BODY_BYTES:
            raise InvalidResponseError(f"the body is over {MAX_BODY_BYTES} bytes; is host the service?")
        # A timeout per read would let a body that drips go on for ever.
        if time.monotonic() > self._deadline:
            raise httpx.ReadTimeout("the body took too long")
        return part


class _Limited(httpx.SyncByteStream):
    """A stream whose parts are metered."""

    def __init__(self, stream: httpx.SyncByteStream, meter: _Meter) -> None:
        self._stream = stream
        self._meter = meter

    def __iter__(self) -> Iterator[bytes]:
        return map(self._meter.passed, self._stream)

    def close(self) -> None:
        self._stream.close()


def detached(response: httpx.Response, body: bytes) -> httpx.Response:
    """Return status and headers of ``response`` with ``body``, and without a way to its request and connection."""
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _FRAMING]
    return httpx.Response(response.status_code, headers=headers, content=body)
