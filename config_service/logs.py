"""How the service logs: lines of text for people, or one JSON object a line for programs; never a secret.

Knows records of ``logging`` and the origin of the work at hand. Knows no configs and no HTTP. Of an exception that a
library logs only the type and the place are told: its text may repeat a secret, and so may the texts of its causes.
What still looks like a secret or a key in any line is masked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any, Final, Literal

from . import origin
from .origin import Origin

LogFormat = Literal["text", "json"]

SECRETS: Final = re.compile(r"cst_[A-Za-z0-9_-]+|(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
"""What looks like a token's secret or a key."""
_MASK: Final = "***"
_EVENT: Final = "config_service_event"
_FIELDS: Final = "config_service_fields"
_ORIGIN: Final = "config_service_origin"
_CHATTY: Final = ("alembic", "uvicorn")
_logger = logging.getLogger("config_service")


Fields = Mapping[str, str | float | None]
"""What is told of an event beside its message, by name."""


def log_event(
    logger: logging.Logger, level: int, event: str, message: str, *args: object, **fields: str | float | None
) -> None:
    """Log ``message % args``; in JSON with ``event``, a name to search for, and ``fields`` of their own."""
    if logger.isEnabledFor(level):
        handle_event(logger, level, event, message, args, lambda: fields)


def handle_event(
    logger: logging.Logger, level: int, event: str, message: str, args: tuple[object, ...], fields: Callable[[], Fields]
) -> None:
    """Log an event whose level the caller has looked at; ``fields`` is called where they are wanted.

    Without a search for the line of code that logs, which costs more than the rest and which no format shows.
    """
    logger.handle(_record(logger.name, level, event, message, args, fields))


def _record(
    name: str, level: int, event: str, message: str, args: tuple[object, ...], fields: Callable[[], Fields]
) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "", 0, message, args, None)
    record.__dict__[_EVENT] = event
    record.__dict__[_FIELDS] = fields
    record.__dict__[_ORIGIN] = origin.current()
    return record


def configure_logging(level: str, log_format: LogFormat = "text") -> None:
    """Log to standard error from ``level`` on, which is one of logging's names in lower case."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper())
    # What these say of every start and stop is news to their developers only.
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def json_line(event: str, message: str, **fields: str | float | None) -> str:
    """Return the line that an event of level info is as JSON, for what is to be said whatever the level is."""
    return JsonFormatter().format(_record("config_service", logging.INFO, event, message, (), lambda: fields))


def mask(text: str) -> str:
    """Return ``text`` without what looks like a secret or a key."""
    return SECRETS.sub(_MASK, text)


def describe_failure(error: BaseException) -> str:
    """Return the type of ``error`` and where it was raised, without its text, which may repeat a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames[-4:]))
    return f"{type(error).__qualname__} at {places or 'an unknown place'}"


def log_loop_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what an event loop could tell nobody else. Its own handler would show the text of the exception."""
    error = context.get("exception")
    what = "an unknown failure" if error is None else describe_failure(error)
    log_event(_logger, logging.ERROR, "loop_failure", "outside of any request: %s", what)


class TextFormatter(logging.Formatter):
    """One line of text for a record; control characters in it are escapes, so that nobody writes lines of his own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; within a request with its id at the end."""
        request_id = _origin(record).request_id
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {_message(record)}"
        return f"{line} [{request_id}]" if request_id else line


class JsonFormatter(logging.Formatter):
    """One JSON object for a record, on one line, in ASCII.

    ``time`` (RFC 3339, UTC), ``level``, ``pid``, ``logger``, ``event`` and ``message``; within a request also
    ``request_id`` and ``address``; then the fields of the event.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        where = _origin(record)
        fields: Callable[[], Fields] = getattr(record, _FIELDS, dict)
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "event": getattr(record, _EVENT, "message"),
            "message": _message(record),
        }
        if where.request_id:
            told["request_id"] = where.request_id
            told["address"] = where.address
        for name, value in fields().items():
            told[name] = mask(value) if isinstance(value, str) else value
        return json.dumps(told)


def _origin(record: logging.LogRecord) -> Origin:
    # A record of another logger is formatted where it was made.
    kept: Origin | None = getattr(record, _ORIGIN, None)
    return origin.current() if kept is None else kept


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        text = f"{text}: {describe_failure(error)}"
    text = mask(text)
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
