"""The wire protocol as data: routes, headers, media types, and JSON ↔ the values of ``types``.

Does no I/O and knows neither httpx nor any server. Client and service both import it, so that a fact of the protocol
stands once. ``docs/PROTOCOL.md`` is its prose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from ._wire import (
    DEFAULT_ENVIRONMENT,
    DEFAULT_LABEL,
    MAX_NAME_LENGTH,
    RESERVED_NAMES,
    Position,
    format_timestamp,
    is_environment,
    is_host,
    is_integer,
    is_label,
    is_name,
    is_token,
    load_json,
    parse_timestamp,
    timestamp_or_none,
)
from .errors import InvalidResponseError

if TYPE_CHECKING:
    from ._states import (
        MAX_WATCHED,
        STATE_EVENT,
        SYNCED_EVENT,
        ConfigState,
        Held,
        Standing,
        dump_config_state,
        dump_position,
        dump_watch_request,
        parse_config_state,
        parse_position,
        parse_watch_request,
    )
    from .types import ConfigChangeEvent, ConfigInfo

__all__ = [
    "BOUND_MEDIA_TYPE",
    "CHANGED_BY_HEADER",
    "CHANGED_EVENT",
    "CONFIGS_PATH",
    "DEFAULT_ENVIRONMENT",
    "DEFAULT_LABEL",
    "ENVIRONMENT_HEADER",
    "EPOCH_HEADER",
    "EVENT_STREAM_MEDIA_TYPE",
    "HEARTBEAT_HEADER",
    "KEY_IDS_HEADER",
    "LABEL_HEADER",
    "MAX_NAME_LENGTH",
    "MAX_WATCHED",
    "MIN_REVISION_HEADER",
    "REPLAY_HEADER",
    "RESERVED_NAMES",
    "RESET_EVENT",
    "REVISION_HEADER",
    "SEALED_MEDIA_TYPE",
    "SERVICE_PATH",
    "STATE_EVENT",
    "SYNCED_EVENT",
    "TIMESTAMP_HEADER",
    "TOKEN_HEADER",
    "VERSION_HEADER",
    "WATCH_PATH",
    "ConfigState",
    "Held",
    "Metadata",
    "Position",
    "Standing",
    "config_path",
    "dump_change_event",
    "dump_config_list",
    "dump_config_state",
    "dump_position",
    "dump_watch_request",
    "error_body",
    "etag",
    "format_timestamp",
    "formatted_path",
    "is_environment",
    "is_host",
    "is_label",
    "is_name",
    "is_token",
    "lowered",
    "metadata_headers",
    "metadata_of",
    "parse_change_event",
    "parse_config_list",
    "parse_config_state",
    "parse_metadata",
    "parse_position",
    "parse_timestamp",
    "parse_watch_request",
    "read_metadata",
    "watch_path",
]

SERVICE_PATH: Final = "/api/v1/service"
CONFIGS_PATH: Final = f"{SERVICE_PATH}/configs"
WATCH_PATH: Final = f"{SERVICE_PATH}/watch"
"""The state-first watch: a POST that is answered with an event stream."""

TOKEN_HEADER: Final = "X-Service-Token"  # noqa: S105 - the name of a header
VERSION_HEADER: Final = "X-Config-Version"
REVISION_HEADER: Final = "X-Config-Revision"
EPOCH_HEADER: Final = "X-Config-Epoch"
ENVIRONMENT_HEADER: Final = "X-Config-Environment"
LABEL_HEADER: Final = "X-Config-Label"
CHANGED_BY_HEADER: Final = "X-Config-Changed-By"
TIMESTAMP_HEADER: Final = "X-Config-Timestamp"
HEARTBEAT_HEADER: Final = "X-Config-Heartbeat"
"""On a stream: seconds between two heartbeats."""
REPLAY_HEADER: Final = "X-Config-Replay"
"""On a stream opened with ``Last-Event-ID``: ``exact`` when every missed event follows, else ``reset``."""
MIN_REVISION_HEADER: Final = "X-Config-Min-Revision"
"""On a request: the position, ``epoch-revision``, that the answer must not be older than."""
KEY_IDS_HEADER: Final = "X-Config-Key-Ids"
"""On a request: the ids of the keys that the client holds, comma-separated; the newest of them is sealed under."""

SEALED_MEDIA_TYPE: Final = "application/octet-stream"
"""Sealed format 1."""
BOUND_MEDIA_TYPE: Final = "application/vnd.config-service.sealed; format=2"
"""Sealed format 2, asked for by ``Accept``."""
EVENT_STREAM_MEDIA_TYPE: Final = "text/event-stream"

CHANGED_EVENT: Final = "config_changed"
RESET_EVENT: Final = "reset"

_VERSION: Final = VERSION_HEADER.lower()
_REVISION: Final = REVISION_HEADER.lower()
_EPOCH: Final = EPOCH_HEADER.lower()
_ENVIRONMENT: Final = ENVIRONMENT_HEADER.lower()
_LABEL: Final = LABEL_HEADER.lower()
_CHANGED_BY: Final = CHANGED_BY_HEADER.lower()
_TIMESTAMP: Final = TIMESTAMP_HEADER.lower()
# Text, compiled when the first answer arrives: the import of this package is not to wait for it.
_ETAG: Final = r"[\x21-\x7e]{1,512}\Z"


def __getattr__(name: str) -> object:
    """Import the words of the state-first watch when one is asked for: a program that only reads needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _states  # noqa: PLC0415

    value: object = getattr(_states, name)
    globals()[name] = value
    return value


class Metadata(NamedTuple):
    """What the headers of a config response tell; None for whatever a foreign service leaves out."""

    version: int | None = None
    position: Position | None = None
    environment: str | None = None
    label: str | None = None
    changed_by: int | None = None
    timestamp: datetime | None = None
    etag: str | None = None


def config_path(name: str) -> str:
    """Return the path of the sealed config."""
    return f"{CONFIGS_PATH}/{quote(name, safe='')}"


def formatted_path(name: str) -> str:
    """Return the path of the plaintext export."""
    return f"{config_path(name)}/formatted"


def watch_path(name: str) -> str:
    """Return the path of the base stream of changes."""
    return f"{config_path(name)}/watch"


def etag(position: Position, key_id: str, encoding: str) -> str:
    """Return the entity tag of a config response, quotes included. It names a place in history, never the content."""
    return f'"{position}-{key_id}-{encoding}"'


def parse_metadata(headers: Mapping[str, str]) -> Metadata:
    """Return what the headers of a config response tell. Absent or malformed headers count as not sent."""
    return read_metadata(lowered(headers))


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Return ``headers`` by their names in lower case. One pass: an HTTP library looks through all for each name."""
    return {name.lower(): value for name, value in headers.items()}


def read_metadata(told: Mapping[str, str]) -> Metadata:
    """Return what ``parse_metadata`` does, of headers whose names are in lower case."""
    epoch, revision, tag = told.get(_EPOCH), told.get(_REVISION), told.get("etag")
    return Metadata(
        version=_natural(told.get(_VERSION)),
        position=Position.parse(f"{epoch}-{revision}") if epoch and revision else None,
        environment=told.get(_ENVIRONMENT),
        label=told.get(_LABEL),
        changed_by=_natural(told.get(_CHANGED_BY)),
        timestamp=timestamp_or_none(told.get(_TIMESTAMP)),
        etag=tag if tag and re.match(_ETAG, tag) else None,
    )


def metadata_of(state: ConfigState) -> Metadata:
    """Return what a state tells beside its payload."""
    return Metadata(
        version=state.version,
        position=state.position,
        environment=state.environment,
        label=state.label,
        changed_by=state.changed_by,
        timestamp=state.timestamp,
    )


def metadata_headers(metadata: Metadata) -> dict[str, str]:
    """Return the headers that tell ``metadata``; the inverse of ``parse_metadata``."""
    position = metadata.position
    values = {
        VERSION_HEADER: metadata.version,
        REVISION_HEADER: position.revision if position else None,
        EPOCH_HEADER: position.epoch if position else None,
        ENVIRONMENT_HEADER: metadata.environment,
        LABEL_HEADER: metadata.label,
        CHANGED_BY_HEADER: metadata.changed_by,
        TIMESTAMP_HEADER: format_timestamp(metadata.timestamp) if metadata.timestamp else None,
        "ETag": metadata.etag,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def dump_change_event(event: ConfigChangeEvent) -> str:
    """Return the ``data`` of a ``config_changed`` event: JSON on one line."""
    fields: dict[str, object] = {
        "config_name": event.config_name,
        "version": event.version,
        "changed_by": event.changed_by,
        "timestamp": format_timestamp(event.timestamp),
    }
    extra = {
        "environment": event.environment,
        "label": event.label,
        "epoch": event.epoch,
        "revision": event.revision,
        "deleted": event.deleted or None,
    }
    fields.update((name, value) for name, value in extra.items() if value is not None)
    return json.dumps(fields, separators=(",", ":"))


def parse_change_event(data: str) -> ConfigChangeEvent:
    """Return the change that the ``data`` of a ``config_changed`` event tells.

    Raises InvalidResponseError, which names the fault and not the content.
    """
    fields = load_json(data, "a change event")
    event = _read_change(fields) if isinstance(fields, dict) else None
    if event is None:
        raise InvalidResponseError(
            "a change event must be a JSON object with config_name (text), version and changed_by (integers) "
            "and timestamp (RFC 3339)"
        )
    return event


def dump_config_list(infos: Iterable[ConfigInfo]) -> bytes:
    """Return the body of ``GET /configs``."""
    rows = [
        {
            "name": info.name,
            "is_valid": info.is_valid,
            "valid_from": format_timestamp(info.valid_from),
            "updated_at": format_timestamp(info.updated_at),
        }
        for info in infos
    ]
    return json.dumps(rows, separators=(",", ":")).encode()


def parse_config_list(body: bytes) -> list[ConfigInfo]:
    """Return the rows of ``GET /configs``. Raises InvalidResponseError."""
    rows = load_json(body, "the list of configs")
    infos = [_read_info(row) for row in rows] if isinstance(rows, list) else [None]
    complete = [info for info in infos if info is not None]
    if len(complete) != len(infos):
        raise InvalidResponseError(
            "the list of configs must be a JSON array of {name, is_valid, valid_from, updated_at}; is host the service?"
        )
    return complete


def error_body(code: str, message: str) -> bytes:
    """Return the JSON body of an error answer."""
    return json.dumps({"error": {"code": code, "message": message}}).encode()


def _read_change(fields: Mapping[object, object]) -> ConfigChangeEvent | None:
    name, version, changed_by = (fields.get(field) for field in ("config_name", "version", "changed_by"))
    timestamp = timestamp_or_none(fields.get("timestamp"))
    if not isinstance(name, str) or not is_integer(version) or not is_integer(changed_by) or timestamp is None:
        return None
    from .types import ConfigChangeEvent  # noqa: PLC0415 - loaded by those who watch

    environment, label, epoch, revision = (fields.get(field) for field in ("environment", "label", "epoch", "revision"))
    return ConfigChangeEvent(
        config_name=name,
        version=version,
        changed_by=changed_by,
        timestamp=timestamp,
        environment=environment if isinstance(environment, str) else None,
        label=label if isinstance(label, str) else None,
        epoch=epoch if isinstance(epoch, str) else None,
        revision=revision if is_integer(revision) else None,
        deleted=fields.get("deleted") is True,
    )


def _read_info(row: object) -> ConfigInfo | None:
    if not isinstance(row, dict):
        return None
    name, is_valid = row.get("name"), row.get("is_valid")
    valid_from, updated_at = timestamp_or_none(row.get("valid_from")), timestamp_or_none(row.get("updated_at"))
    if not isinstance(name, str) or not isinstance(is_valid, bool) or valid_from is None or updated_at is None:
        return None
    from .types import ConfigInfo  # noqa: PLC0415 - loaded by those who list

    return ConfigInfo(name=name, is_valid=is_valid, valid_from=valid_from, updated_at=updated_at)


def _natural(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None
