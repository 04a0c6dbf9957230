"""The management API as data: its routes, and the rows of its answers as text.

Does no I/O. A field that an older or newer service does not send is shown as a dash: a command that only shows things
must not fail over one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Final
from urllib.parse import quote

from config_client.protocol import parse_timestamp

from .exits import CommandError, ExitCode

MANAGE_PATH: Final = "/api/v1/manage"
CONFIGS_ROUTE: Final = f"{MANAGE_PATH}/configs"
DRAFTS_PUBLISH_ROUTE: Final = f"{MANAGE_PATH}/drafts/publish"
ARCHIVE_ROUTE: Final = f"{MANAGE_PATH}/archive"
CANDIDATES_ROUTE: Final = f"{ARCHIVE_ROUTE}/candidates"
SCHEDULES_ROUTE: Final = f"{MANAGE_PATH}/schedules"
TOKENS_ROUTE: Final = f"{MANAGE_PATH}/tokens"
WATCHERS_ROUTE: Final = f"{MANAGE_PATH}/watchers"
EXPORT_ROUTE: Final = f"{MANAGE_PATH}/export"
BACKUP_ROUTE: Final = f"{MANAGE_PATH}/backup"

CONFIG_COLUMNS: Final = ("NAME", "ENVIRONMENT", "LABEL", "VERSION", "STATE", "CHANGED BY", "AT")
VERSION_COLUMNS: Final = ("VERSION", "STATE", "KIND", "FROM", "BY", "AT", "REVISION", "NAMES")
SAVEPOINT_COLUMNS: Final = ("SAVEPOINT", "VERSION", "CHANGED BY", "AT", "REVISION")
ARCHIVE_COLUMNS: Final = ("NAME", "ENVIRONMENT", "LABEL", "VERSIONS", "REVISION")
SCHEDULE_COLUMNS: Final = ("NAME", "ENVIRONMENT", "LABEL", "VERSION", "RUNS FROM", "CHANGED BY", "AT")
DRAFT_COLUMNS: Final = ("NAME", "ENVIRONMENT", "LABEL", "BASE", "STATE", "CHANGED BY", "AT")
SCHEMA_COLUMNS: Final = ("SCHEMA", "STATE", "CHANGED BY", "AT", "REVISION")
DIFFERENCE_COLUMNS: Final = ("OP", "PATH", "OLD", "NEW")
TOKEN_COLUMNS: Final = ("ID", "NAME", "ENVIRONMENT", "SCOPES", "STATE", "CREATED", "EXPIRES")


KEYS_ROUTE: Final = f"{MANAGE_PATH}/keys"
AUDIT_ROUTE: Final = f"{MANAGE_PATH}/audit"
DATA_KEY_COLUMNS: Final = ("ID", "USE", "VALUES", "MASTER KEY", "CREATED")
AUDIT_COLUMNS: Final = ("REVISION", "AT", "KIND", "WHAT", "BY", "TOKEN", "PEER", "REQUEST")
FINDING_COLUMNS: Final = ("REVISION", "WHAT")


def data_key_row(row: Mapping[str, object], ring: Mapping[str, object]) -> list[str]:
    """Return the cells of DATA_KEY_COLUMNS; a master key is ``current`` or ``previous``."""
    master = "current" if row.get("master_key") == ring.get("master_key") else "previous"
    return [text(row, "id"), text(row, "use"), text(row, "values"), master, text(row, "created_at")]


def audit_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of AUDIT_COLUMNS; what an entry is about is a config with its version, a schema or a token."""
    detail = row.get("detail")
    told = detail if isinstance(detail, dict) else {}
    what = "-"
    if row.get("name") is not None:
        number = f" schema {text(row, 'schema_version')}" if row.get("version") is None else f" {text(row, 'version')}"
        what = described(row) + number
    elif row.get("token_id") is not None:
        what = f"token {text(row, 'token_id')} {text(told, 'name')}"
    first = [text(row, field) for field in ("revision", "timestamp", "kind")]
    return [*first, what, text(row, "changed_by"), *(text(told, field) for field in ("token", "peer", "request"))]


def finding_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of FINDING_COLUMNS."""
    return [text(row, "revision"), text(row, "what")]


def config_route(name: str, action: str = "") -> str:
    """Return the path of a config, or of an action below it."""
    return f"{CONFIGS_ROUTE}/{quote(name, safe='')}" + (f"/{action}" if action else "")


def rows_of(answer: Mapping[str, object], field: str) -> list[Mapping[str, object]]:
    """Return the list of objects in ``field`` of an answer. Raises CommandError when it is not one."""
    rows = answer.get(field)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CommandError(f"the answer has no list {field!r}; is it the service that answers?", ExitCode.UNAVAILABLE)
    return rows


def text(row: Mapping[str, object], field: str) -> str:
    """Return one field for people: a dash for nothing, lists separated by spaces."""
    value = row.get(field)
    if value is None:
        return "-"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def config_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of CONFIG_COLUMNS."""
    name, environment, label, version = (text(row, field) for field in ("name", "environment", "label", "version"))
    state = "deleted" if row.get("deleted") is True else "running"
    return [name, environment, label, version, state, text(row, "changed_by"), text(row, "timestamp")]


def version_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of VERSION_COLUMNS. The state of an archived version is ``archived``."""
    fields = ("kind", "source_version", "changed_by", "timestamp", "revision")
    state = "archived" if row.get("archived") is True else text(row, "state")
    names = text(row, "savepoints") if row.get("savepoints") else "-"
    return [text(row, "version"), state, *(text(row, field) for field in fields), names]


def savepoint_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of SAVEPOINT_COLUMNS."""
    return [text(row, field) for field in ("savepoint", "version", "changed_by", "timestamp", "revision")]


def archive_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of ARCHIVE_COLUMNS."""
    return [text(row, field) for field in ("name", "environment", "label", "versions", "revision")]


def schedule_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of SCHEDULE_COLUMNS."""
    fields = ("name", "environment", "label", "version", "valid_from", "changed_by", "timestamp")
    return [text(row, field) for field in fields]


def draft_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of DRAFT_COLUMNS; the state is ``current``, or ``outdated`` when another version came since."""
    name, environment, label, base = (text(row, field) for field in ("name", "environment", "label", "base"))
    state = "outdated" if row.get("outdated") is True else "current"
    return [name, environment, label, base, state, text(row, "changed_by"), text(row, "timestamp")]


def schema_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of SCHEMA_COLUMNS; the state is ``set`` or ``removed``."""
    state = "removed" if row.get("removed") is True else "set"
    return [text(row, "number"), state, text(row, "changed_by"), text(row, "timestamp"), text(row, "revision")]


def difference_row(row: Mapping[str, object]) -> list[str]:
    """Return the cells of DIFFERENCE_COLUMNS: values as JSON, a dash for the one that is not there."""
    values = [json.dumps(row[side], ensure_ascii=False) if side in row else "-" for side in ("old", "new")]
    return [text(row, "op"), text(row, "path"), *values]


def violation_lines(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Return one line per place at which a document does not fit its schema."""
    return [f"{row.get('path') or 'the document'}: {text(row, 'keyword')}" for row in rows]


def token_row(row: Mapping[str, object], now: datetime) -> list[str]:
    """Return the cells of TOKEN_COLUMNS; the state is ``active``, ``expired`` at ``now``, or ``revoked``."""
    id_, name, environment, scopes = (text(row, field) for field in ("id", "name", "environment", "scopes"))
    state = "revoked" if row.get("revoked_at") is not None else "expired" if _is_past(row, now) else "active"
    return [id_, name, environment, scopes, state, text(row, "created_at"), text(row, "expires_at")]


def retirements(row: Mapping[str, object]) -> list[str]:
    """Return one line per key of a token that is to retire, or one that says that no older key is left."""
    keys = row.get("keys")
    ends = [key for key in keys if isinstance(key, dict) and key.get("retires_at")] if isinstance(keys, list) else []
    if not ends and isinstance(keys, list):
        return ["No older key is valid any more."]
    return [f"key {text(key, 'id')} stays valid until {text(key, 'retires_at')}" for key in ends]


def described(row: Mapping[str, object]) -> str:
    """Return ``name (environment, label)`` for the row of a config."""
    return f"{text(row, 'name')} ({text(row, 'environment')}, {text(row, 'label')})"


def _is_past(row: Mapping[str, object], now: datetime) -> bool:
    expires = row.get("expires_at")
    try:
        return isinstance(expires, str) and parse_timestamp(expires) <= now.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return False
