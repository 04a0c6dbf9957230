"""The routes of the wire protocol as OpenAPI describes them; ``docs/PROTOCOL.md`` says what is in them, to the byte.

Plain data. Knows the protocol's names. What every operation has, ``description`` adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from config_client.protocol import (
    BOUND_MEDIA_TYPE,
    CONFIGS_PATH,
    EVENT_STREAM_MEDIA_TYPE,
    KEY_IDS_HEADER,
    MIN_REVISION_HEADER,
    SEALED_MEDIA_TYPE,
    WATCH_PATH,
)

Described = dict[str, Any]
"""A part of an OpenAPI document."""

_TIME: Final = "2026-11-20T10:00:00.123456+00:00"
_POSITION: Final = "0192f3a4b5c6d7e8f9a0b1c2-42"
_BINARY: Final[Described] = {"type": "string", "format": "binary"}


def _parameter(name: str, where: str, description: str, example: str, **schema: object) -> Described:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string", **schema},
        "example": example,
    }


_NAME: Final = _parameter("name", "path", "The name of a config.", "orders")
_ENVIRONMENT: Final = _parameter("environment", "query", "Without it: the token's default environment.", "prod")
_ANY_ENVIRONMENT: Final = _parameter(
    "environment", "query", "Without it: every environment that the token may read.", "prod"
)
_LABEL: Final = _parameter("label", "query", "Without it: main.", "main")
_VERSION: Final = _parameter("version", "query", "An older version. Without it: the running one.", "3")
_FORMAT: Final = _parameter("format", "query", "Without it: json.", "yaml", enum=["json", "yaml", "env"])
_KEY_IDS: Final = _parameter(KEY_IDS_HEADER, "header", "The ids of the keys that the client holds.", "630dcd2966c43366")
_AT_LEAST: Final = _parameter(MIN_REVISION_HEADER, "header", "A position that the answer is not older than.", _POSITION)
_IF_NONE_MATCH: Final = _parameter(
    "If-None-Match", "header", "The ETag of what the client has.", f'"{_POSITION}-630dcd2966c43366-2"'
)
_LAST_EVENT: Final = _parameter("Last-Event-ID", "header", "The id of the last event that the client saw.", _POSITION)

_CONFIG_ROW: Final[Described] = {
    "type": "object",
    "required": ["name", "is_valid", "valid_from", "updated_at"],
    "properties": {
        "name": {"type": "string", "examples": ["orders"]},
        "is_valid": {"type": "boolean", "examples": [True]},
        "valid_from": {"type": ["string", "null"], "examples": [_TIME]},
        "updated_at": {"type": ["string", "null"], "examples": [_TIME]},
    },
}
_CONFIG_ROWS: Final[Described] = {"type": "array", "items": _CONFIG_ROW}
_HELD: Final[Described] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "examples": ["orders"]},
        "environment": {"type": "string", "examples": ["prod"]},
        "label": {"type": "string", "examples": ["main"]},
        "epoch": {"type": "string", "pattern": "^[0-9a-f]{24}$", "examples": ["0192f3a4b5c6d7e8f9a0b1c2"]},
        "revision": {"type": "integer", "minimum": 0, "examples": [41]},
    },
}
_NOT_MODIFIED: Final[Described] = {"description": "What If-None-Match names is what would be answered."}
_EVENTS: Final = (
    f"id: {_POSITION}\n"
    "event: config_changed\n"
    f'data: {{"config_name":"orders","version":7,"changed_by":3,"timestamp":"{_TIME}"}}\n\n'
)
_STATES: Final = (
    "event: config_state\n"
    'data: {"config_name":"billing","environment":"default","label":"main","state":"missing"}\n\n'
    "event: synced\n"
    'data: {"epoch":"0192f3a4b5c6d7e8f9a0b1c2","revision":42}\n\n'
)


def _answer(description: str, **content: Any) -> Described:
    return {"description": description, "content": content}


def _operation(name: str, summary: str, description: str, parameters: list[Described], **more: Any) -> Described:
    return {
        "tags": ["service"],
        "summary": summary,
        "description": description,
        "operationId": name,
        "parameters": parameters,
        **more,
    }


SERVICE_PATHS: Final[Mapping[str, Described]] = {
    CONFIGS_PATH: {
        "get": _operation(
            "list_names",
            "List Names",
            "List the names of all configs that the token may read in some environment.",
            [],
            responses={"200": _answer("A row for every name.", **{"application/json": {"schema": _CONFIG_ROWS}})},
        )
    },
    f"{CONFIGS_PATH}/{{name}}": {
        "get": _operation(
            "read_config",
            "Read Config",
            "Return the running version of a config, or an older one, sealed under a key of the token. By "
            f"`Accept: {BOUND_MEDIA_TYPE}` in sealed format 2, which is bound to what it is.",
            [_NAME, _ENVIRONMENT, _LABEL, _VERSION, _KEY_IDS, _AT_LEAST, _IF_NONE_MATCH],
            responses={
                "200": _answer(
                    "The sealed document.",
                    **{
                        SEALED_MEDIA_TYPE: {"schema": _BINARY, "example": "nonce ‖ ciphertext ‖ tag"},
                        BOUND_MEDIA_TYPE: {"schema": _BINARY, "example": "header ‖ ciphertext ‖ tag"},
                    },
                ),
                "304": _NOT_MODIFIED,
                "404": {},
                "503": {},
            },
        )
    },
    f"{CONFIGS_PATH}/{{name}}/formatted": {
        "get": _operation(
            "export_config",
            "Export Config",
            "Return a version of a config in plaintext; needs the right `export`.",
            [_NAME, _ENVIRONMENT, _LABEL, _VERSION, _FORMAT, _AT_LEAST, _IF_NONE_MATCH],
            responses={
                "200": _answer(
                    "The document in the format asked for.",
                    **{
                        "application/json": {"schema": {"type": "object"}, "example": {"db": {"host": "db1"}}},
                        "application/yaml": {"schema": {"type": "string"}, "example": "db:\n  host: db1\n"},
                        "text/plain": {"schema": {"type": "string"}, "example": "DB_HOST=db1\n"},
                    },
                ),
                "304": _NOT_MODIFIED,
                "404": {},
                "422": {},
            },
        )
    },
    f"{CONFIGS_PATH}/{{name}}/watch": {
        "get": _operation(
            "watch_config",
            "Watch Config",
            "Open the base stream of a config: an event for every change, and a heartbeat in between.",
            [_NAME, _ANY_ENVIRONMENT, _LABEL, _LAST_EVENT],
            responses={
                "200": _answer(
                    "A stream of events that does not end by itself.",
                    **{EVENT_STREAM_MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EVENTS}},
                ),
                "404": {},
            },
        )
    },
    WATCH_PATH: {
        "post": _operation(
            "watch_states",
            "Watch States",
            "Open one stream for many configs: first the state of each that the client does not hold, then every "
            "change, payloads included.",
            [_KEY_IDS],
            requestBody={
                "required": True,
                "description": "What the client holds of each config.",
                "content": {
                    "application/json": {
                        "schema": {"type": "array", "items": _HELD, "minItems": 1, "maxItems": 10_000},
                    }
                },
            },
            responses={
                "200": _answer(
                    "A stream of events that does not end by itself.",
                    **{EVENT_STREAM_MEDIA_TYPE: {"schema": {"type": "string"}, "example": _STATES}},
                ),
                "413": {},
            },
        )
    },
}
"""Every route of the wire protocol but HEAD, which is answered like GET. An answer without anything is a refusal."""
