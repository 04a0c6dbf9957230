"""What an answer or a failure of httpx means in this package's errors.

Knows httpx, status codes and the token, which it keeps out of every text. Sends nothing.
"""

from __future__ import annotations

import re
from typing import Final

import httpx

from ._hosts import place_of
from ._retrying import asked_pause, asks_for_later
from .errors import (
    ConfigClientError,
    ConnectionError,  # noqa: A004 - this package's
    ForbiddenError,
    InvalidResponseError,
    NotFoundError,
    UnauthorizedError,
)

FAILURES: Final = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError)
"""What sending a request may raise. A UnicodeError is what becomes of a redirect to a host that IDNA forbids."""

_POINTER: Final = r"/[^\x00-\x1f]{0,200}\Z"
_FORMATTED: Final = "/formatted"


def raise_for_status(response: httpx.Response, path: str) -> None:
    """Raise this package's error for any status but 200. No word of the body gets into it."""
    refusal = refusal_of(response, path)
    if refusal is not None:
        raise refusal


def refusal_of(response: httpx.Response, path: str, token: str = "") -> ConfigClientError | None:
    """Return this package's error for any status but 200, for which it is None. No word of the body gets into it.

    The exception: why a document has no form in the format that was asked for is told by a path of keys, unless that
    spells ``token``. Returned and not raised, since the frame that raises shows the token among its variables.
    """
    status = response.status_code
    if status == 200:
        return None
    if status == 401:
        return UnauthorizedError(f"{path}: 401, the service does not accept the token: unknown, expired or revoked")
    if status == 403:
        return ForbiddenError(f"{path}: 403, the token's scopes do not cover this; ask for one that does")
    if status == 404:
        return NotFoundError(f"{path}: 404, no such config or version in this environment and label, or it was deleted")
    if asks_for_later(status):
        error = ConnectionError(f"{path}: the service answered {status}", retry_after=asked_pause(response))
        error.__cause__ = OSError(f"HTTP {status}")
        return error
    where = _pointer(response, token) if status == 422 and path.endswith(_FORMATTED) else ""
    return InvalidResponseError(f"{path}: the service answered {status}{where}; is host its URL?")


def fault_of(failure: Exception, url: httpx.URL, token: str) -> ConfigClientError:
    """Return the error of this package that ``failure`` is, without its request and without the token.

    ``url``: where the request went; its origin is named.
    """
    if isinstance(failure, httpx.DecodingError):
        return InvalidResponseError("the body does not decompress as its Content-Encoding says")
    # h11 repeats in such errors the header that it refuses, and parts of the answer that it does not understand.
    text = "" if isinstance(failure, httpx.ProtocolError) else str(failure).replace(token, "…")
    what = type(failure).__name__ + (f": {text}" if text else "")
    error = ConnectionError(f"{place_of(url)}: {what}")
    error.__cause__ = OSError(what) if not isinstance(failure, httpx.TransportError) else _bare(failure, text)
    return error


def _pointer(response: httpx.Response, token: str) -> str:
    """Return `` at PATH`` when a 422 points into the document: a path of keys, never a value."""
    pointer: object = None
    try:
        pointer = response.json()["error"]["path"]
    except (ValueError, KeyError, TypeError, RecursionError, httpx.StreamError):
        return ""
    if not isinstance(pointer, str) or not re.match(_POINTER, pointer):
        return ""
    # RFC 6901 writes "/" and "~" within a key as "~1" and "~0", and a token may hold both.
    if token and (token in pointer or token in pointer.replace("~1", "/").replace("~0", "~")):
        return ""
    return f" at {pointer}"


def _bare(failure: httpx.TransportError, text: str) -> httpx.TransportError:
    """Return httpx's own class of ``failure`` with ``text`` alone; a class derived from it may want other arguments."""
    kinds = (kind for kind in type(failure).__mro__ if issubclass(kind, httpx.TransportError))
    return next(kind for kind in kinds if kind.__module__.partition(".")[0] == "httpx")(text)
