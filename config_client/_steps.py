"""The words that a watch and its driver exchange: commands, and their outcomes.

Data only. The rules that yield the commands are in ``watching``; a driver performs those that need the network, hands
the others to the application's side, and sends the outcomes back.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from httpx_sse import ServerSentEvent

from ._fetched import Fetched
from .errors import ConfigClientError
from .protocol import ConfigState, Held, Metadata, Position
from .status import State
from .types import ConfigChangeEvent

if TYPE_CHECKING:
    from ._tracks import Track

__all__ = [
    "Apply",
    "Attempt",
    "Clear",
    "Command",
    "Connection",
    "Delegate",
    "Ended",
    "Fetch",
    "Fetched",
    "Finish",
    "Forget",
    "Halted",
    "HangUp",
    "Heard",
    "LocalCommand",
    "NetworkCommand",
    "NotModified",
    "Notify",
    "Open",
    "OpenStates",
    "Opened",
    "Outcome",
    "Pause",
    "Read",
    "Recall",
    "Report",
    "StatesOpened",
    "Steps",
    "Trouble",
    "Unseal",
    "Unsupported",
    "Woken",
]

# Commands that need the network. ``track`` is the config that is meant, None where a watch has only one.


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the config, unless it still has ``etag``. Outcome: Fetched, NotModified or an error.

    ``at_least``: a service that has not come as far as this place in its history shall say so instead of answering.
    """

    etag: str | None = None
    at_least: Position | None = None
    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Open the base stream. Outcome: Opened, Halted or an error."""

    last_event_id: str = ""


@dataclass(frozen=True, slots=True)
class OpenStates:
    """Open the state-first stream of many configs on one host.

    Outcome: StatesOpened, Unsupported, Halted or an error.
    """

    held: tuple[Held, ...]
    host: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """Take what the stream brings next. Outcome: ServerSentEvent, None (a heartbeat), Ended, Woken or an error.

    ``patient``: a wake waits until a later read that is not.
    """

    patient: bool = False


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the stream."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before the next attempt. Outcome: None or Woken."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Delegate:
    """Let every config have a base stream of its own, for ``seconds`` or until woken. Outcome: None or Woken."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Recall:
    """End the base streams that were delegated."""


# Commands for the application's side.


@dataclass(frozen=True, slots=True)
class Unseal:
    """Open the payload of a state. Outcome: Fetched."""

    track: Track
    state: ConfigState


@dataclass(frozen=True, slots=True)
class Apply:
    """Decode and store a document. Outcome: None, or the error that kept the old value in place."""

    document: bytes
    metadata: Metadata
    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell the application of a change."""

    event: ConfigChangeEvent


@dataclass(frozen=True, slots=True)
class Heard:
    """A change of the watched config was heard of, whether or not its value could be used."""

    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the application of an error that does not end the watch (or is about to)."""

    error: ConfigClientError
    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection came to be LIVE, STALE or POLLING, and with it every value that has no trouble of its own."""

    state: State
    reason: str = ""
    error: ConfigClientError | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """The newest state of a config cannot be taken: deleted, refused, not to be opened. The old value stays."""

    reason: str
    error: ConfigClientError
    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Clear:
    """The trouble of a config is over without a new value: it is back as it was."""

    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """Erase what is kept of the config for a start without the service: it may not be read any more."""

    track: Track | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The watch of this config ends with an error."""

    error: ConfigClientError
    track: Track


# Outcomes.


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
class StatesOpened:
    """The state-first stream is open. ``environment``: what is meant where none was named."""

    position: Position | None = None
    environment: str | None = None


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The service speaks the base protocol only."""


@dataclass(frozen=True, slots=True)
class Halted:
    """The service asks not to be watched again: 204 instead of a stream (WHATWG HTML, section 9.2)."""

    error: ConfigClientError


@dataclass(frozen=True, slots=True)
class Ended:
    """The service ended the stream."""


@dataclass(frozen=True, slots=True)
class Woken:
    """The set of watched configs has changed."""


NetworkCommand: TypeAlias = Fetch | Open | OpenStates | Read | HangUp | Pause | Delegate | Recall
LocalCommand: TypeAlias = Unseal | Apply | Notify | Heard | Report | Connection | Trouble | Clear | Forget | Finish
Command: TypeAlias = NetworkCommand | LocalCommand
Outcome: TypeAlias = (
    Fetched
    | NotModified
    | Opened
    | StatesOpened
    | Unsupported
    | Halted
    | Ended
    | Woken
    | ServerSentEvent
    | ConfigClientError
    | None
)
Steps: TypeAlias = Generator[Command, Outcome, None]
Attempt: TypeAlias = Generator[Command, Outcome, ConfigClientError | None]
