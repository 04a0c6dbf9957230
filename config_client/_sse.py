"""Decoding of server-sent events: bytes in, events out.

Knows the event stream format (WHATWG HTML, section 9.2 "Server-sent events") and what makes an HTTP answer an event
stream. Does no I/O, and knows nothing of connections, threads, time or what the events mean.

Linear in the bytes it is given, however they are cut: each byte is searched for a line end once, and what waits for
its line or its blank line is kept in a ``bytearray``, which grows in place. Whole lines are interpreted as bytes, and
only values that reach the caller are decoded: a line end never lies inside a UTF-8 sequence, so a sequence cut by a
chunk is whole again by then.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from httpx_sse import ServerSentEvent

from .errors import ConfigClientError, InvalidResponseError

DEFAULT_MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
"""Bytes that an unfinished event may take, unless told otherwise: 64 MiB."""

_MEDIA_TYPE: Final = "text/event-stream"
_MEDIA_TYPE_SHAPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,40}/[a-z0-9!#$&^_.+-]{1,40}")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_MAX_RETRY_DIGITS: Final = 18


def check_event_stream(status: int, content_type: str) -> None:
    """Return when an answer with this status and ``Content-Type`` header is an event stream to be decoded.

    The type is compared without case, and its parameters are ignored: an event stream is UTF-8 whatever they say.

    Raises InvalidResponseError when the status is 204, by which a service asks for no reconnecting; when it is
    anything else than 200, redirects included; and when the type is not ``text/event-stream``.
    """
    if status == 204:
        raise InvalidResponseError(
            "event stream: the service asked to stop watching (204 No Content); do not reconnect, and check that the "
            "config may be watched"
        )
    if 300 <= status <= 399:
        raise InvalidResponseError(
            f"event stream: the service redirects elsewhere (status {status}); set host to the final address"
        )
    if status != 200:
        raise InvalidResponseError(
            f"event stream: expected status 200, got {status}; check that host is a config service and the watch "
            "route reaches it"
        )
    found = content_type.partition(";")[0].strip(" \t\r\n").lower()
    if found != _MEDIA_TYPE:
        shown = found if _MEDIA_TYPE_SHAPE.fullmatch(found) else "none or a malformed one"
        raise InvalidResponseError(
            f"event stream: expected content type {_MEDIA_TYPE}, got {shown}; check that no proxy answers in place of "
            "the service"
        )


class SSEDecoder:
    """Turns the body of one event stream into events, one decoder per connection.

    An unfinished event at the end of the stream is discarded, as the standard asks: just drop the decoder. Not safe
    for use by several threads at once.
    """

    def __init__(self, *, max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES, last_event_id: str = "") -> None:
        """Start at the beginning of a stream.

        ``max_event_bytes`` bounds what is kept of an event that is not finished: its data, type and id, and the line
        that is under way, be it a comment. ``last_event_id`` is that of the decoder before a reconnect, so that the id
        outlives a connection that brought none.

        Raises ConfigClientError when ``max_event_bytes`` is less than 1.
        """
        if max_event_bytes < 1:
            raise ConfigClientError(f"max_event_bytes must be at least 1, got {max_event_bytes}")
        self._max_event_bytes = max_event_bytes
        self._last_event_id = last_event_id
        self._retry: int | None = None

        self._pieces: deque[bytes] = deque()  # of chunks not yet interpreted: a line, or its start, or its end
        self._line = bytearray()  # the line under way, when it began in an earlier chunk
        self._at_start = True
        self._after_cr = False
        self._too_large = False

        self._data = bytearray()  # every value of a data field with a line feed behind it; empty: no such field yet
        self._event_type = b""
        self._event_id: bytes | None = None  # None: this event has no id field, the last id stays
        self._event_retry: int | None = None

    @property
    def last_event_id(self) -> str:
        """The id to send as ``Last-Event-ID`` on reconnecting: that of the last block whose blank line was seen.

        Blocks without data count too. Empty when there was no id, or an empty ``id`` field reset it.
        """
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds that the stream asked for last, None when it did not.

        Any number of up to 18 digits: bound it before waiting for so long.
        """
        return self._retry

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Take the next bytes of the stream, and return the events that they complete, in order.

        The bytes are taken at once and interpreted while the result is iterated. So the events in front of one that
        is too large are delivered before the error, and ``last_event_id`` never runs ahead of the event in the
        consumer's hands. An iterator left early loses nothing: the next one goes on where it stopped.

        An event's ``id`` is the last event id as of that event, its ``retry`` the value of its own block, if any.

        Raises InvalidResponseError when an unfinished event exceeds ``max_event_bytes``: while iterating, and by
        every later call, since the place in the stream is lost.
        """
        if self._too_large:
            raise self._limit_error()
        # Unlike str, bytes are split at LF, CRLF and CR only: exactly the line ends of the format.
        self._pieces.extend(chunk.splitlines(keepends=True))
        return self._events()

    def _events(self) -> Iterator[ServerSentEvent]:
        while self._pieces:
            line = self._complete_line(self._pieces.popleft())
            if line:
                self._field(line)
            elif line is not None:
                event = self._dispatch()
                if event is not None:
                    yield event

    def _complete_line(self, piece: bytes) -> bytes | None:
        """The line that ``piece`` ends, without its line end; None when it ends none."""
        if self._after_cr and piece == b"\n":  # the CR in the chunk before has already ended this line
            self._after_cr = False
            return None
        self._after_cr = piece.endswith(b"\r")
        content = piece.rstrip(b"\r\n")

        # Counted before the line end is looked at: the same stream passes or fails however it is cut into chunks.
        kept = len(self._data) + len(self._event_type) + len(self._event_id or b"") + len(self._line)
        if kept + len(content) > self._max_event_bytes:
            self._too_large = True
            self._pieces.clear()
            self._line.clear()
            self._data.clear()
            raise self._limit_error()

        if len(content) == len(piece):
            self._line += piece
            return None
        if self._line:
            self._line += content
            content = bytes(self._line)
            self._line.clear()
        if self._at_start:
            self._at_start = False
            content = content.removeprefix(_BYTE_ORDER_MARK)
        return content

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # a comment is a line whose name is empty: no case takes it
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._event_type = value
        elif name == b"id":
            if b"\0" not in value:
                self._event_id = value
        elif name == b"retry" and value.isdigit():
            # A longer number is no waiting time, and int() would refuse it or take quadratic time over it.
            digits = value.lstrip(b"0") or b"0"
            if len(digits) <= _MAX_RETRY_DIGITS:
                self._retry = self._event_retry = int(digits)

    def _dispatch(self) -> ServerSentEvent | None:
        """End the block at its blank line; None when it had no data field, and so is no event."""
        if self._event_id is not None:
            self._last_event_id = self._event_id.decode("utf-8", "replace")
        event = None
        if self._data:
            del self._data[-1:]
            event = ServerSentEvent(
                event=self._event_type.decode("utf-8", "replace") or "message",
                data=self._data.decode("utf-8", "replace"),
                id=self._last_event_id,
                retry=self._event_retry,
            )
            self._data.clear()
        self._event_type = b""
        self._event_id = None
        self._event_retry = None
        return event

    def _limit_error(self) -> InvalidResponseError:
        return InvalidResponseError(
            f"event stream: an event exceeds the limit of {self._max_event_bytes} bytes; raise max_event_bytes or "
            "publish smaller documents"
        )
