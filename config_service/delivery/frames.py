"""Changes and states as bytes of an event stream (WHATWG HTML, section 9.2). Knows no stream, no reader and no HTTP."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from config_client.protocol import (
    CHANGED_EVENT,
    RESET_EVENT,
    SYNCED_EVENT,
    ConfigState,
    Position,
    dump_change_event,
    dump_config_state,
    dump_position,
)
from config_client.types import ConfigChangeEvent

from ..domain.keys import ConfigKey
from ..domain.records import ChangeKind, LogEntry

HEARTBEAT: Final = b":\n"
"""A comment of one line. No blank line follows: some decoders dispatch an empty event at each one after an id."""

_MARK: Final = b"\xfb\xef\xbe" * 4
"""A payload that is sixteen plus signs in base64: no name, label or time has those."""


def change_frame(entry: LogEntry, key: ConfigKey, version: int, epoch: str) -> bytes:
    """Return the event that tells the change ``entry`` of ``key``, encoded once for all its readers."""
    event = ConfigChangeEvent(
        config_name=key.name,
        version=version,
        changed_by=entry.changed_by,
        timestamp=entry.timestamp,
        environment=key.environment,
        label=key.label,
        epoch=epoch,
        revision=entry.revision,
        deleted=entry.kind is ChangeKind.DELETED,
    )
    return _frame(CHANGED_EVENT, dump_change_event(event), Position(epoch, entry.revision))


def reset_frame(position: Position) -> bytes:
    """Return the event that tells a reader to fetch the config again, since what it missed cannot be replayed exactly.

    ``position`` is the present: a reader that fetches from here on and reconnects later has missed nothing before it.
    """
    return _frame(RESET_EVENT, "{}", position)


def state_frame(event: str, state: ConfigState) -> bytes:
    """Return the event named ``event`` that tells how a config stands. Without an id: positions are kept per config."""
    return _frame(event, dump_config_state(state))


class StateTemplate:
    """The event that tells of a running version, but for its payload: what is the same for every key, encoded once."""

    __slots__ = ("_after", "_before")

    def __init__(self, event: str, state: ConfigState) -> None:
        self._before, _, self._after = state_frame(event, state._replace(payload=_MARK)).partition(b64encode(_MARK))

    def fill(self, payload: bytes) -> bytes:
        """Return the event with ``payload`` in it."""
        return b"".join((self._before, b64encode(payload), self._after))


def synced_frame(position: Position) -> bytes:
    """Return the event that tells a reader that it has heard of everything up to ``position``."""
    return _frame(SYNCED_EVENT, dump_position(position))


def _frame(event: str, data: str, position: Position | None = None) -> bytes:
    lines = [] if position is None else [f"id: {position}"]
    return "\n".join((*lines, f"event: {event}", f"data: {data}", "", "")).encode()
