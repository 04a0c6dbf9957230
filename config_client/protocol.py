"""The wire protocol as data: routes, headers, media types, and JSON ↔ the values of ``types``.

Does no I/O and knows neither httpx nor any server. Client and service both import it, so that a fact of the protocol
stands once. ``docs/PROTOCOL.md`` is its prose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Final, NamedTuple, TypeGuard
from urllib.parse import quote, urlsplit

from .errors import InvalidResponseError
from .types import ConfigChangeEvent, ConfigInfo

SERVICE_PATH: Final = "/api/v1/service"
CONFIGS_PATH: Final = f"{SERVICE_PATH}/configs"

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

SEALED_MEDIA_TYPE: Final = "application/octet-stream"
EVENT_STREAM_MEDIA_TYPE: Final = "text/event-stream"

CHANGED_EVENT: Final = "config_changed"
RESET_EVENT: Final = "reset"

DEFAULT_ENVIRONMENT: Final = "default"
DEFAULT_LABEL: Final = "main"
MAX_NAME_LENGTH: Final = 128
RESERVED_NAMES: Final = frozenset({"api", "healthz", "readyz", "metrics", "monitor", "docs"})

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")
_POSITION: Final = re.compile(r"([0-9a-f]{24})-([0-9]{1,18})\Z")
_HOST: Final = re.compile(r"https?://[^\s/?#@\\\x00-\x1f\x7f]+(/[^\s?#@\\\x00-\x1f\x7f]*)?\Z", re.IGNORECASE)
# RFC 9110 §5.5: what a header can carry; anything else would end up in the error of an HTTP library.
_TOKEN: Final = re.compile(r"[\x21-\x7e]+\Z")
_ETAG: Final = re.compile(r"[\x21-\x7e]{1,512}\Z")
# Text, compiled when the first timestamp arrives: the import of this package is not to wait for it.
_TIMESTAMP: Final = r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?(?:[Zz]|([+-]\d\d)(?::?(\d\d))?)?)?"


# Named tuples, not dataclasses, where nothing else speaks against it: a tenth of the cost at import.
class Position(NamedTuple):
    """A place in the history of a store: its epoch, then the revision within it.

    An epoch is 24 hex characters that begin with its creation time, so positions order as text and number do.
    """

    epoch: str
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.revision}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that ``text`` (an event id) spells, or None when it is not one."""
        match = _POSITION.match(text)
        return cls(match[1], int(match[2])) if match else None


class Metadata(NamedTuple):
    """What the headers of a config response tell; None for whatever a foreign service leaves out."""

    version: int | None = None
    position: Position | None = None
    environment: str | None = None
    label: str | None = None
    changed_by: int | None = None
    timestamp: datetime | None = None
    etag: str | None = None


def is_name(text: str) -> bool:
    """Tell whether ``text`` may name a config: a slug of at most 128 characters, without ``..``, not reserved."""
    return _NAME.match(text) is not None and ".." not in text and text.lower() not in RESERVED_NAMES


def is_environment(text: str) -> bool:
    """Tell whether ``text`` may name an environment: a slug of at most 128 characters, without ``..``."""
    return _NAME.match(text) is not None and ".." not in text


def is_label(text: str) -> bool:
    """Tell whether ``text`` may be a label: a slug that may contain single inner slashes, without ``..``."""
    return _LABEL.match(text) is not None and ".." not in text and "//" not in text and not text.endswith("/")


def is_host(text: str) -> bool:
    """Tell whether ``text`` may be the URL of a service: http(s), a host, optionally a port and a path, no user."""
    if not _HOST.match(text):
        return False
    try:
        # Resolvers take a port modulo 65536, and the token would go to another one.
        return urlsplit(text).port != 0
    except ValueError:
        return False


def is_token(text: str) -> bool:
    """Tell whether ``text`` may be a token's secret: printable ASCII without spaces, as a header can carry it."""
    return _TOKEN.match(text) is not None


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


def format_timestamp(moment: datetime) -> str:
    """Return ``moment`` as RFC 3339 with ``+00:00`` and 0 or 6 fraction digits. A naive time counts as UTC."""
    return _as_utc(moment).isoformat()


def parse_timestamp(text: str) -> datetime:
    """Return the aware UTC datetime that ``text`` spells: ``Z`` or an offset, any number of fraction digits.

    A time without an offset counts as UTC. Raises ValueError. (Python 3.10's ``fromisoformat`` reads neither ``Z``
    nor ``+0000`` nor other than 3 or 6 fraction digits, so the text is put into the one form that all versions read.)
    """
    match = re.fullmatch(_TIMESTAMP, text.strip(), re.ASCII)
    if match is None:
        raise ValueError("not a date and time as in RFC 3339")
    date, clock, fraction, hours, minutes = match.groups()
    clock = clock or "00:00"
    seconds = clock if clock.count(":") == 2 else clock + ":00"
    offset = f"{hours}:{minutes or '00'}" if hours else "+00:00"
    moment = datetime.fromisoformat(f"{date}T{seconds}.{(fraction or '')[:6].ljust(6, '0')}{offset}")
    try:
        return _as_utc(moment)
    except OverflowError:
        pass
    raise ValueError("a time that in UTC lies outside the years 1 to 9999")


def parse_metadata(headers: Mapping[str, str]) -> Metadata:
    """Return what the headers of a config response tell. Absent or malformed headers count as not sent."""
    epoch, revision, tag = headers.get(EPOCH_HEADER), headers.get(REVISION_HEADER), headers.get("ETag")
    return Metadata(
        version=_natural(headers.get(VERSION_HEADER)),
        position=Position.parse(f"{epoch}-{revision}") if epoch and revision else None,
        environment=headers.get(ENVIRONMENT_HEADER),
        label=headers.get(LABEL_HEADER),
        changed_by=_natural(headers.get(CHANGED_BY_HEADER)),
        timestamp=_timestamp_or_none(headers.get(TIMESTAMP_HEADER)),
        etag=tag if tag and _ETAG.match(tag) else None,
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
    fields = _load_json(data, "a change event")
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
    rows = _load_json(body, "the list of configs")
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
    timestamp = _timestamp_or_none(fields.get("timestamp"))
    if not isinstance(name, str) or not _is_integer(version) or not _is_integer(changed_by) or timestamp is None:
        return None
    environment, label, epoch, revision = (fields.get(field) for field in ("environment", "label", "epoch", "revision"))
    return ConfigChangeEvent(
        config_name=name,
        version=version,
        changed_by=changed_by,
        timestamp=timestamp,
        environment=environment if isinstance(environment, str) else None,
        label=label if isinstance(label, str) else None,
        epoch=epoch if isinstance(epoch, str) else None,
        revision=revision if _is_integer(revision) else None,
        deleted=fields.get("deleted") is True,
    )


def _read_info(row: object) -> ConfigInfo | None:
    if not isinstance(row, dict):
        return None
    name, is_valid = row.get("name"), row.get("is_valid")
    valid_from, updated_at = _timestamp_or_none(row.get("valid_from")), _timestamp_or_none(row.get("updated_at"))
    if not isinstance(name, str) or not isinstance(is_valid, bool) or valid_from is None or updated_at is None:
        return None
    return ConfigInfo(name=name, is_valid=is_valid, valid_from=valid_from, updated_at=updated_at)


def _load_json(text: str | bytes, what: str) -> object:
    """Parse JSON, raising outside the handler: a JSONDecodeError carries the whole document."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return value
    raise InvalidResponseError(f"{what} is not JSON; is host the service?")


def _as_utc(moment: datetime) -> datetime:
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _natural(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None


def _timestamp_or_none(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return parse_timestamp(text)
    except ValueError:
        return None
