"""How current a value is: the states of a subscription and of a client. Knows no I/O and no clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from .errors import ConfigClientError


class State(str, Enum):
    """Where a subscription, or the watch of a client, stands."""

    INITIALIZING = "initializing"
    """No value came from the service yet."""
    LIVE = "live"
    """A stream is open and everything it has told is in place."""
    STALE = "stale"
    """The value may be old: the connection is down, the config is deleted, or the newest version was refused."""
    POLLING = "polling"
    """No stream can be had, so the value is asked for again and again."""
    STOPPED = "stopped"
    """Nothing will change any more: closed, or ended by an error."""


@dataclass(frozen=True, slots=True)
class Status:
    """A state, since when (aware, UTC), why, and the last error (None: none since it was last LIVE).

    ``reason`` is a short text such as ``deleted`` or ``connection lost``, never a value of a config.
    """

    state: State
    since: datetime
    reason: str = ""
    error: ConfigClientError | None = None
