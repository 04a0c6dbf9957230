"""HTTP/1.1 (RFC 9112) as bytes, as much of it as the in-memory service needs. Does no I/O and knows no route."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from ._faults import Refusal

MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes of an unfinished request head."""
MAX_BODY_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a request body."""

Headers = Iterable[tuple[str, str]]
_MALFORMED: Final = "the request is not HTTP/1.1"


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """One request. ``path`` and ``query`` as they came, headers with names in lower case."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    keep_alive: bool = True

    def header(self, name: str) -> str | None:
        """Return the value of header ``name`` (lower case), or None. Raises Refusal when it comes twice."""
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise Refusal(400, f"the header {name} was sent more than once")
        return found[0] if found else None

    def joined(self, name: str) -> str:
        """Return the values of a header that is a list, as one list; empty when it was not sent."""
        return ",".join(value for key, value in self.headers if key == name)


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """Status, headers and body of one answer. Without its repr: the body may be a document."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def dump(self, *, head: bool = False, keep_alive: bool = True) -> bytes:
        """Return the bytes of this answer; without its body to a HEAD request."""
        headers = [*self.headers]
        if self.status != 304:
            headers.append(("Content-Length", str(len(self.body))))
        if not keep_alive:
            headers.append(("Connection", "close"))
        bare = head or self.status == 304
        return _dump_head(self.status, headers) + (b"" if bare else self.body)


def error_answer(refusal: Refusal) -> Answer:
    """Return the answer that tells ``refusal``."""
    fields = {"code": refusal.code, "message": refusal.message} | ({"path": refusal.pointer} if refusal.pointer else {})
    headers = (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *refusal.headers.items(),
    )
    return Answer(refusal.status, headers, json.dumps({"error": fields}).encode())


def dump_stream_head(headers: Headers) -> bytes:
    """Return the head of an answer whose body ends with its connection."""
    return _dump_head(200, [*headers, ("Connection", "close")])


class RequestReader:
    """Bytes in, requests out, for one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None
        self._expecting = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection."""
        self._buffer += data

    def wants_more(self) -> bool:
        """Tell, once per request, whether its client waits for ``100 Continue`` before it sends the body."""
        expecting, self._expecting = self._expecting, False
        return expecting

    def next(self) -> Request | None:
        """Return the next whole request, or None. Raises Refusal, after which the connection is of no more use."""
        if self._head is None:
            self._head = self._read_head()
        if self._head is None:
            return None
        chunked = _named(self._head, "transfer-encoding")
        if not chunked:
            body = self._read_plain(_named(self._head, "content-length"))
        elif chunked.lower() == "chunked" and not _named(self._head, "content-length"):
            body = self._read_chunked()
        else:
            raise Refusal(400, _MALFORMED)
        if body is None:
            return None
        head, self._head, self._expecting = self._head, None, False
        return Request(head.method, head.path, head.query, head.headers, body, head.keep_alive)

    def _read_head(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 and len(self._buffer) <= MAX_HEAD_BYTES:
            return None
        if not 0 <= end <= MAX_HEAD_BYTES:
            raise Refusal(431, "the path and headers are too long")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        request = _parse_head(head.split(b"\r\n"))
        self._expecting = (_named(request, "expect") or "").lower() == "100-continue"
        return request

    def _read_plain(self, length: str) -> bytes | None:
        if not length:
            return b""
        if not (length.isascii() and length.isdigit()):
            raise Refusal(400, _MALFORMED)
        # Compared as text first: a number of any length would take its time to be read.
        size = int(length) if len(length) <= 18 else MAX_BODY_BYTES + 1
        if size > MAX_BODY_BYTES:
            raise _too_large()
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _read_chunked(self) -> bytes | None:
        """Return the body once all of it is there: the whole of a bounded buffer is read again at each try."""
        body, at = bytearray(), 0
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                break
            text = bytes(self._buffer[at:end]).partition(b";")[0].strip()
            if not 1 <= len(text) <= 8 or not all(byte in b"0123456789abcdefABCDEF" for byte in text):
                raise Refusal(400, _MALFORMED)
            size, start = int(text, 16), end + 2
            if len(body) + size > MAX_BODY_BYTES:
                raise _too_large()
            if size == 0:
                # Trailers are read up to their blank line, and dropped.
                stop = (
                    start if self._buffer[start : start + 2] == b"\r\n" else self._buffer.find(b"\r\n\r\n", start) + 2
                )
                if stop < start or len(self._buffer) < stop + 2:
                    break
                del self._buffer[: stop + 2]
                return bytes(body)
            if len(self._buffer) < start + size + 2:
                break
            body += self._buffer[start : start + size]
            at = start + size + 2
        if len(self._buffer) > 2 * MAX_BODY_BYTES:
            raise _too_large()
        return None


def _parse_head(lines: list[bytes]) -> Request:
    parts = lines[0].split(b" ")
    if len(parts) != 3 or parts[2] not in {b"HTTP/1.0", b"HTTP/1.1"} or not parts[0].isalpha():
        raise Refusal(400, _MALFORMED)
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise Refusal(400, _MALFORMED)
        headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))
    path, _, query = parts[1].partition(b"?")
    request = Request(parts[0].decode("ascii"), path, query, tuple(headers))
    connection = _named(request, "connection").lower()
    keeps = parts[2] == b"HTTP/1.1" and "close" not in connection
    return Request(request.method, path, query, request.headers, keep_alive=keeps)


def _named(request: Request, name: str) -> str:
    return next((value for key, value in request.headers if key == name), "")


def _too_large() -> Refusal:
    return Refusal(413, f"the body is over the limit of {MAX_BODY_BYTES} bytes")


def _dump_head(status: int, headers: Headers) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}", f"Date: {formatdate(usegmt=True)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
