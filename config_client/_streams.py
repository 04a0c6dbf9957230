"""What the head of a stream's answer means: statuses and headers. Shared by the drivers on threads and on tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ._sse import check_event_stream
from ._steps import Halted, Opened, StatesOpened
from .errors import InvalidResponseError
from .protocol import HEARTBEAT_HEADER, REPLAY_HEADER, parse_metadata

MISSED_HEARTBEATS: Final = 3
"""A stream that is silent for this many heartbeats is dead."""
MAX_HEARTBEAT: Final = 300.0
"""Seconds; a service that announces rarer heartbeats is not believed."""

_BASE_ONLY: Final = frozenset({404, 405, 501})


def states_unsupported(status: int) -> bool:
    """Tell whether this status of ``POST /watch`` means that the service has no such route."""
    return status in _BASE_ONLY


def check_stream(status: int, headers: Mapping[str, str]) -> Halted | None:
    """Return None for an event stream, Halted when the service asks not to be asked; else InvalidResponseError."""
    try:
        check_event_stream(status, headers.get("Content-Type", ""))
    except InvalidResponseError as error:
        if status == 204:
            return Halted(error)
        raise
    return None


def opened(headers: Mapping[str, str]) -> Opened:
    """Return what the head of a base stream tells."""
    return Opened(parse_metadata(headers).position, headers.get(REPLAY_HEADER) == "exact")


def states_opened(headers: Mapping[str, str]) -> StatesOpened:
    """Return what the head of a state-first stream tells."""
    metadata = parse_metadata(headers)
    return StatesOpened(metadata.position, metadata.environment)


def silence_limit(headers: Mapping[str, str], default_heartbeat: float) -> float:
    """Return the seconds of silence after which a stream is dead."""
    try:
        seconds = float(headers.get(HEARTBEAT_HEADER, ""))
    except ValueError:
        seconds = default_heartbeat
    return MISSED_HEARTBEATS * (seconds if 0 < seconds <= MAX_HEARTBEAT else default_heartbeat)
