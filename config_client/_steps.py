"""The words that a watch and its driver exchange: commands, and their outcomes.

Data only. The rules that yield the commands are in ``watching``; a driver performs them and sends the outcomes back.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from httpx_sse import ServerSentEvent

from .errors import ConfigClientError
from .protocol import Metadata, Position
from .types import ConfigChangeEvent


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the config, unless it still has ``etag``. Outcome: Fetched, NotModified or an error.

    ``at_least``: a service that has not come as far as this place in its history shall say so instead of answering.
    """

    etag: str | None = None
    at_least: Position | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Open the stream. Outcome: Opened, Halted or an error."""

    last_event_id: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """Take the next event of the stream. Outcome: ServerSentEvent, Ended or an error."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the stream."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Apply:
    """Decode and store a document. Outcome: None, or the error that kept the old value in place."""

    document: bytes
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the application of a change."""

    event: ConfigChangeEvent


@dataclass(frozen=True, slots=True)
class Heard:
    """A change of the watched config was heard of, whether or not its value could be used."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the application of an error that does not end the watch (or is about to)."""

    error: ConfigClientError


@dataclass(frozen=True, slots=True)
class Fetched:
    """A config as it was served; ``fault`` instead of ``document`` when it could not be opened."""

    metadata: Metadata
    document: bytes = b""
    fault: ConfigClientError | None = None


@dataclass(frozen=True, slots=True)
class NotModified:
    """The config still has the entity tag that was sent."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is open. ``position``: the service's history at that moment; None from a foreign service.

    ``replays``: every change since the ``last_event_id`` that was sent follows on the stream.
    """

    position: Position | None = None
    replays: bool = False


@dataclass(frozen=True, slots=True)
class Halted:
    """The service asks not to be watched again: 204 instead of a stream (WHATWG HTML, section 9.2)."""

    error: ConfigClientError


@dataclass(frozen=True, slots=True)
class Ended:
    """The service ended the stream."""


Command: TypeAlias = Fetch | Open | Read | HangUp | Pause | Apply | Notify | Heard | Report
Outcome: TypeAlias = Fetched | NotModified | Opened | Halted | Ended | ServerSentEvent | ConfigClientError | None
Steps: TypeAlias = Generator[Command, Outcome, None]
Attempt: TypeAlias = Generator[Command, Outcome, ConfigClientError | None]
