"""Changes as bytes of an event stream (WHATWG HTML, section 9.2). Knows no stream, no reader and no HTTP."""

from __future__ import annotations

from typing import Final

from config_client.protocol import CHANGED_EVENT, RESET_EVENT, Position, dump_change_event
from config_client.types import ConfigChangeEvent

from ..domain.keys import ConfigKey
from ..domain.records import ChangeKind, LogEntry

HEARTBEAT: Final = b":\n"
"""A comment of one line. No blank line follows: some decoders dispatch an empty event at each one after an id."""
RESET: Final = f"event: {RESET_EVENT}\ndata: {{}}\n\n".encode()
"""Tells a reader that the changes it missed cannot be replayed exactly: fetch the config again."""


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
    lines = (f"id: {Position(epoch, entry.revision)}", f"event: {CHANGED_EVENT}", f"data: {dump_change_event(event)}")
    return "\n".join((*lines, "", "")).encode()
