"""The routes of the wire protocol under ``/api/v1/service``, as plain ASGI: this is where every client comes.

Knows routes, headers and operations. Answers reads from memory, without a framework in between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from config_client.protocol import (
    BOUND_MEDIA_TYPE,
    CHANGED_BY_HEADER,
    CONFIGS_PATH,
    DEFAULT_LABEL,
    ENVIRONMENT_HEADER,
    EPOCH_HEADER,
    EVENT_STREAM_MEDIA_TYPE,
    HEARTBEAT_HEADER,
    LABEL_HEADER,
    REPLAY_HEADER,
    REVISION_HEADER,
    SEALED_MEDIA_TYPE,
    SERVICE_PATH,
    TIMESTAMP_HEADER,
    VERSION_HEADER,
    WATCH_PATH,
    Position,
    dump_config_list,
    etag,
    format_timestamp,
)
from config_client.types import Format

from ..delivery.sealed import BOUND_ENCODING, PLAIN_KEY_ID, SEALED_ENCODING
from ..delivery.subscription import Beat, End, QueuedReader, Replay
from ..domain.documents import Document
from ..domain.errors import InvalidRequestError
from ..domain.keys import ConfigKey
from ..operations import Operations
from ..security.tokens import Token
from .answers import (
    JSON,
    NO_SNIFF,
    NO_STORE,
    Answer,
    EncodedAnswer,
    Headers,
    Receive,
    Scope,
    Send,
    encoded,
    send_answer,
)
from .callers import authenticate
from .errors import method_not_allowed, not_found
from .exchange import note_error, note_route, note_token
from .requests import (
    accepts_bound,
    environment_of,
    header,
    key_ids_of,
    key_of,
    matches_etag,
    min_revision_of,
    parse_query,
    read_body,
    secret_of,
    version_of,
    watched_of,
)
from .streams import reader_of, stream

PREFIX: Final = SERVICE_PATH.encode()
_ROUTE: Final = re.compile(
    re.escape(CONFIGS_PATH).encode() + rb"(?:/(?P<name>[^/]+)(?:/(?P<view>formatted|watch))?)?\Z"
)
CONFIG_ROUTE: Final = f"{CONFIGS_PATH}/{{name}}"
_TEMPLATES: Final[Mapping[tuple[bool, bytes | None], str]] = {
    (False, None): CONFIGS_PATH,
    (True, None): CONFIG_ROUTE,
    (True, b"formatted"): f"{CONFIG_ROUTE}/formatted",
    (True, b"watch"): f"{CONFIG_ROUTE}/watch",
}
"""What a route is called in logs and metrics, by whether it names a config and what it wants of it."""
ROUTES: Final = frozenset(
    {(method, template) for template in _TEMPLATES.values() for method in ("GET", "HEAD")} | {("POST", WATCH_PATH)}
)
"""Every route here, by method and template."""
_WATCH_ROUTE: Final = WATCH_PATH.encode()
_METHODS: Final = "GET, HEAD"
MAX_WATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes that the body of a state-first watch may take."""
_VARY: Final = (b"vary", b"Accept, X-Service-Token")
_CONTENT_TYPE: Final[Mapping[Format, bytes]] = {
    Format.JSON: b"application/json",
    Format.YAML: b"application/yaml",
    Format.ENV: b"text/plain; charset=utf-8",
}
_SEALED: Final = (b"content-type", SEALED_MEDIA_TYPE.encode())
_BOUND: Final = (b"content-type", BOUND_MEDIA_TYPE.encode())
_STREAM_HEADERS: Final[Headers] = [
    (b"content-type", EVENT_STREAM_MEDIA_TYPE.encode()),
    NO_STORE,
    # Buffering proxies would hold events back until a buffer is full.
    (b"x-accel-buffering", b"no"),
]
_METADATA_LINES: Final = b"".join(
    name.lower().encode() + b": %" + kind + b"\r\n"
    for name, kind in (
        (VERSION_HEADER, b"d"),
        (REVISION_HEADER, b"d"),
        (EPOCH_HEADER, b"b"),
        (ENVIRONMENT_HEADER, b"b"),
        (LABEL_HEADER, b"b"),
        (CHANGED_BY_HEADER, b"d"),
        (TIMESTAMP_HEADER, b"b"),
        ("ETag", b"b"),
    )
)
_COMMON_LINES: Final = encoded([NO_STORE, _VARY])
_MEDIA_LINES: Final = {line: encoded([line]) for line in (_SEALED, _BOUND)}
_REMEMBERED: Final = 4096
"""Payloads whose headers are kept encoded."""


@dataclass(frozen=True, slots=True)
class _Described:
    """The entity tag of a payload, and all headers that tell of it, the tag included, as they are sent."""

    etag: str
    lines: bytes

    @property
    def headers(self) -> Headers:
        """The same, one by one."""
        pairs = (line.partition(b": ") for line in self.lines.split(b"\r\n")[:-1])
        return [(name, value) for name, _, value in pairs]


class ServiceApi:
    """The routes of the wire protocol as an ASGI application. Raises ServiceError, which its caller answers."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._described: dict[tuple[int, str, str], _Described] = {}
        self._stream_headers = {
            kind: [*_STREAM_HEADERS, (HEARTBEAT_HEADER.lower().encode(), b"%g" % seconds)]
            for kind, seconds in operations.streams.heartbeats.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. ``scope["raw_path"]`` has passed the guard."""
        head = scope["method"] == "HEAD"
        if scope["raw_path"] == _WATCH_ROUTE:
            return await self._watch_states(scope, receive, send)
        route = _ROUTE.match(scope["raw_path"])
        if route is None:
            note_error(scope, "not_found")
            return await send_answer(not_found(), send, head=head)
        note_route(scope, _TEMPLATES[route["name"] is not None, route["view"]])
        if not head and scope["method"] != "GET":
            note_error(scope, "method_not_allowed")
            return await send_answer(method_not_allowed(_METHODS), send)
        token = authenticate(self._operations, scope)
        segment, view = route["name"], route["view"]
        if segment is None:
            return await send_answer(self._list(token), send, head=head)
        name = _name(segment)
        if view == b"watch":
            return await self._watch(token, name, scope, receive, send)
        answer = await (self._formatted if view else self._sealed)(token, name, scope)
        return await send_answer(answer, send, head=head)

    def _list(self, token: Token) -> Answer:
        body = dump_config_list(self._operations.list_infos(token))
        return Answer(200, [JSON, NO_STORE, _VARY], body)

    def answer_at_once(self, scope: Scope) -> EncodedAnswer | None:
        """Return what ``__call__`` answers to a GET of a running config, or None for every other request.

        Such a read needs nothing but memory, so it needs no task either. Raises ServiceError where it is refused; the
        request may then be asked again by ``__call__``, which counts it.
        """
        route = _ROUTE.match(scope["raw_path"])
        headers = scope["headers"]
        if scope["method"] != "GET" or route is None or route["name"] is None or route["view"]:
            return None
        query = parse_query(scope["query_string"])
        if version_of(query) is not None or min_revision_of(headers) is not None:
            return None
        note_route(scope, CONFIG_ROUTE)
        token = self._operations.recognise(secret_of(headers))
        note_token(scope, token.id)
        # A key that is not valid has no config, so it need not be checked to find one.
        environment, label = query.get("environment", token.default_environment), query.get("label", DEFAULT_LABEL)
        document = self._operations.read_running(token, ConfigKey(_name(route["name"]), environment, label))
        told, media_type, payload = self._seal(token, document, headers)
        self._operations.count(token)
        if payload is None:
            return EncodedAnswer(304, told.lines, b"")
        length = b"content-length: %d\r\n" % len(payload)
        return EncodedAnswer(200, _MEDIA_LINES[media_type] + told.lines + length, payload)

    async def _sealed(self, token: Token, name: str, scope: Scope) -> Answer:
        query, headers = parse_query(scope["query_string"]), scope["headers"]
        at_least = min_revision_of(headers)
        document = await self._operations.read(token, key_of(name, query, token), version_of(query), at_least)
        told, media_type, payload = self._seal(token, document, headers)
        if payload is None:
            return Answer(304, told.headers)
        return Answer(200, [media_type, *told.headers], payload)

    def _seal(
        self, token: Token, document: Document, headers: Headers
    ) -> tuple[_Described, tuple[bytes, bytes], bytes | None]:
        """Return what tells of ``document``, its media type, and the payload, which is None if the client has it."""
        key, bound = self._operations.key_for(token, key_ids_of(headers)), accepts_bound(headers)
        told = self._describe(document, key.id, BOUND_ENCODING if bound else SEALED_ENCODING)
        media_type = _BOUND if bound else _SEALED
        if matches_etag(header(headers, b"if-none-match"), told.etag):
            return told, media_type, None
        seal = self._operations.seal_bound if bound else self._operations.seal
        return told, media_type, seal(document, key)

    async def _formatted(self, token: Token, name: str, scope: Scope) -> Answer:
        query = parse_query(scope["query_string"])
        fmt = _format(query)
        key, at_least = key_of(name, query, token), min_revision_of(scope["headers"])
        exported = await self._operations.export(token, key, fmt, version_of(query), at_least)
        told = self._describe(exported.document, PLAIN_KEY_ID, fmt.value)
        if matches_etag(header(scope["headers"], b"if-none-match"), told.etag):
            return Answer(304, told.headers)
        return Answer(200, [(b"content-type", _CONTENT_TYPE[fmt]), NO_SNIFF, *told.headers], exported.payload)

    async def _watch(self, token: Token, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_query(scope["query_string"])
        environment, label = environment_of(query), query.get("label", DEFAULT_LABEL)
        ConfigKey.of(name, environment or token.default_environment, label)
        last_event_id = header(scope["headers"], b"last-event-id")
        head = scope["method"] == "HEAD"
        subscription = self._operations.streams.subscribe(
            token,
            name,
            environment=environment,
            label=label,
            last_event_id=last_event_id,
            reader=QueuedReader if head else reader_of(scope),
        )
        headers = self._open_stream(Beat.BASE, self._operations.position)
        if subscription.replay is not Replay.NOT_ASKED:
            headers.append((REPLAY_HEADER.lower().encode(), subscription.replay.value.encode()))
        if head:
            subscription.end(End.READER_GONE)
            return await send_answer(Answer(200, headers), send, head=True)
        return await stream(subscription, headers, scope, receive, send)

    async def _watch_states(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a state-first watch."""
        note_route(scope, WATCH_PATH)
        if scope["method"] != "POST":
            note_error(scope, "method_not_allowed")
            return await send_answer(method_not_allowed("POST"), send, head=scope["method"] == "HEAD")
        token = authenticate(self._operations, scope)
        held = key_ids_of(scope["headers"])
        rows = await watched_of(await read_body(receive, scope["headers"], MAX_WATCH_BYTES))
        watch = await self._operations.streams.watch(token, rows, held, reader_of(scope))
        headers = self._open_stream(Beat.STATE, watch.position)
        headers.append((ENVIRONMENT_HEADER.lower().encode(), token.default_environment.encode()))
        return await stream(watch.stream, headers, scope, receive, send)

    def _open_stream(self, kind: Beat, here: Position) -> Headers:
        """Return the headers of a stream that begins at ``here``: every later change follows on it."""
        return [
            *self._stream_headers[kind],
            (EPOCH_HEADER.lower().encode(), here.epoch.encode()),
            (REVISION_HEADER.lower().encode(), b"%d" % here.revision),
        ]

    def _describe(self, document: Document, key_id: str, encoding: str) -> _Described:
        """Return what the headers tell of a payload; made once, because a version never changes."""
        wanted = (document.revision, key_id, encoding)
        told = self._described.get(wanted)
        if told is None:
            position = Position(self._operations.position.epoch, document.revision)
            tag = etag(position, key_id, encoding)
            told = _Described(tag, describe(document, position, tag) + _COMMON_LINES)
            if len(self._described) >= _REMEMBERED:
                self._described.clear()
            self._described[wanted] = told
        return told


def describe(document: Document, position: Position, tag: str) -> bytes:
    """Return the lines of ``metadata_headers``, made without a detour: many configs are described once each."""
    key = document.key
    return _METADATA_LINES % (
        document.version,
        position.revision,
        position.epoch.encode(),
        key.environment.encode(),
        key.label.encode(),
        document.changed_by,
        format_timestamp(document.timestamp).encode(),
        tag.encode(),
    )


def _name(segment: bytes) -> str:
    if b"%" not in segment:
        return segment.decode("ascii", "replace")
    # What is not UTF-8 becomes a character that no name has, and is refused with the names' rule.
    return unquote_to_bytes(segment).decode("utf-8", "replace")


def _format(query: Mapping[str, str]) -> Format:
    text = query.get("format", Format.JSON.value)
    if text not in {fmt.value for fmt in Format}:
        raise InvalidRequestError("invalid format: json, yaml or env")
    return Format(text)
