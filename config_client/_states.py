"""The state-first watch on the wire: what a client holds, and what the service states.

Data only; ``docs/PROTOCOL.md`` is its prose. ``protocol`` hands these names on, and both ends of the wire import them
from there.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, b64encode
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple

from ._wire import (
    DEFAULT_LABEL,
    Position,
    format_timestamp,
    is_environment,
    is_integer,
    is_label,
    is_name,
    load_json,
    timestamp_or_none,
)
from .errors import InvalidResponseError

STATE_EVENT: Final = "config_state"
SYNCED_EVENT: Final = "synced"
MAX_WATCHED: Final = 10_000
"""Configs on one stream."""

_MALFORMED: Final = (
    "the body must be a JSON array of {name, environment, label, epoch, revision}, of which only name is required, and "
    "epoch and revision come together"
)


class Standing(str, Enum):
    """How a watched config stands."""

    RUNNING = "running"
    """A version is served; its payload comes along."""
    DELETED = "deleted"
    """The newest version is a tombstone."""
    MISSING = "missing"
    """Nothing was ever published."""
    REFUSED = "refused"
    """The token's scopes do not cover it."""


class Held(NamedTuple):
    """A config to watch, and the newest state of it that the client has seen (None: nothing yet).

    ``environment`` and ``label`` None: the token's default environment, and ``main``.
    """

    name: str
    environment: str | None = None
    label: str | None = None
    position: Position | None = None


class ConfigState(NamedTuple):
    """How one config stands: the data of ``config_state`` and, on a state-first stream, of ``config_changed``.

    ``position``, ``version``, ``changed_by`` and ``timestamp`` are None for what is missing or refused. ``payload`` is
    the sealed document, in sealed format ``encoding``; empty unless the config is running.
    """

    name: str
    environment: str
    label: str
    standing: Standing
    position: Position | None = None
    version: int | None = None
    changed_by: int | None = None
    timestamp: datetime | None = None
    payload: bytes = b""
    encoding: int = 2


def dump_watch_request(held: Iterable[Held]) -> bytes:
    """Return the body of ``POST /watch``."""
    rows: list[dict[str, object]] = []
    for one in held:
        row: dict[str, object] = {"name": one.name}
        if one.environment is not None:
            row["environment"] = one.environment
        if one.label is not None:
            row["label"] = one.label
        if one.position is not None:
            row["epoch"], row["revision"] = one.position
        rows.append(row)
    return json.dumps(rows, separators=(",", ":")).encode()


def parse_watch_request(body: bytes) -> list[Held]:
    """Return what the body of ``POST /watch`` asks for, labels filled in; fields that are not known are ignored.

    Raises ValueError with a text that names the rule and repeats nothing of the body.
    """
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise ValueError(_MALFORMED)
    if not 1 <= len(rows) <= MAX_WATCHED:
        raise ValueError(f"one stream watches 1 to {MAX_WATCHED} configs")
    held = [_read_held(row) for row in rows]
    known = [one for one in held if one is not None]
    if len(known) != len(held):
        raise ValueError(_MALFORMED)
    return known


def dump_config_state(state: ConfigState) -> str:
    """Return the ``data`` of an event that states how a config stands: JSON on one line."""
    fields: dict[str, object] = {
        "config_name": state.name,
        "environment": state.environment,
        "label": state.label,
        "state": state.standing.value,
    }
    if state.version is not None:
        fields["version"] = state.version
    if state.position is not None:
        fields["epoch"], fields["revision"] = state.position
    if state.changed_by is not None:
        fields["changed_by"] = state.changed_by
    if state.timestamp is not None:
        fields["timestamp"] = format_timestamp(state.timestamp)
    if state.standing is Standing.RUNNING:
        fields["format"] = state.encoding
        fields["payload"] = b64encode(state.payload).decode("ascii")
    return json.dumps(fields, separators=(",", ":"))


def parse_config_state(data: str) -> ConfigState:
    """Return what the ``data`` of a stating event tells. Raises InvalidResponseError, which repeats nothing of it."""
    fields = load_json(data, "a config state")
    state = _read_state(fields) if isinstance(fields, dict) else None
    if state is None:
        raise InvalidResponseError(
            "a config state must be a JSON object with config_name, environment, label, state, and, when running, "
            "version, epoch, revision, format and payload (base64)"
        )
    return state


def dump_position(position: Position) -> str:
    """Return the ``data`` of ``synced``: the position of the service when it subscribed the stream."""
    return json.dumps({"epoch": position.epoch, "revision": position.revision}, separators=(",", ":"))


def parse_position(data: str) -> Position | None:
    """Return what the ``data`` of ``synced`` tells, or None."""
    try:
        fields = load_json(data, "a position")
    except InvalidResponseError:
        return None
    return _read_position(fields.get("epoch"), fields.get("revision")) if isinstance(fields, dict) else None


def _read_held(row: object) -> Held | None:
    if not isinstance(row, dict):
        return None
    name, environment, label = row.get("name"), row.get("environment"), row.get("label")
    epoch, revision = row.get("epoch"), row.get("revision")
    if not isinstance(name, str) or not is_name(name):
        return None
    if environment is not None and not (isinstance(environment, str) and is_environment(environment)):
        return None
    if label is not None and not (isinstance(label, str) and is_label(label)):
        return None
    position = _read_position(epoch, revision)
    if position is None and (epoch is not None or revision is not None):
        return None
    return Held(name, environment, label or DEFAULT_LABEL, position)


def _read_state(fields: dict[object, object]) -> ConfigState | None:
    name, environment, label = (fields.get(field) for field in ("config_name", "environment", "label"))
    if not isinstance(name, str) or not isinstance(environment, str) or not isinstance(label, str):
        return None
    try:
        standing = Standing(fields.get("state"))
    except ValueError:
        return None
    position = _read_position(fields.get("epoch"), fields.get("revision"))
    version, changed_by, encoding = fields.get("version"), fields.get("changed_by"), fields.get("format")
    payload = b""
    if standing is Standing.RUNNING:
        text = fields.get("payload")
        if position is None or not is_integer(version) or not is_integer(encoding) or not isinstance(text, str):
            return None
        try:
            payload = b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
    return ConfigState(
        name=name,
        environment=environment,
        label=label,
        standing=standing,
        position=position,
        version=version if is_integer(version) else None,
        changed_by=changed_by if is_integer(changed_by) else None,
        timestamp=timestamp_or_none(fields.get("timestamp")),
        payload=payload,
        encoding=encoding if is_integer(encoding) else 2,
    )


def _read_position(epoch: object, revision: object) -> Position | None:
    if not isinstance(epoch, str) or not is_integer(revision):
        return None
    return Position.parse(f"{epoch}-{revision}")
