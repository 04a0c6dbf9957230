"""The routes of the wire protocol on the in-memory service: a request in, an answer or a stream out.

Knows requests, versions and tokens. Does no I/O; its caller holds the lock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from ..crypto import key_id
from ..errors import ConfigClientError
from ..formats import DocumentError, render
from ..protocol import (
    BOUND_MEDIA_TYPE,
    CONFIGS_PATH,
    DEFAULT_LABEL,
    ENVIRONMENT_HEADER,
    EPOCH_HEADER,
    EVENT_STREAM_MEDIA_TYPE,
    HEARTBEAT_HEADER,
    KEY_IDS_HEADER,
    MIN_REVISION_HEADER,
    REPLAY_HEADER,
    REVISION_HEADER,
    SEALED_MEDIA_TYPE,
    TOKEN_HEADER,
    WATCH_PATH,
    Held,
    Metadata,
    Position,
    dump_config_list,
    etag,
    is_environment,
    is_label,
    is_name,
    metadata_headers,
    parse_watch_request,
)
from ..types import Format
from ._accounts import Account
from ._faults import Refusal
from ._http import Answer, Request
from ._memory import ConfigKey, Memory, Version
from ._paths import accepts, check_path, key_ids_of, matches_etag, minimum_of, parse_query, version_of
from ._streams import BaseStream, Frame, Sealed, StateStream, Stream, reset_frame

_ROUTE: Final = re.compile(
    re.escape(CONFIGS_PATH).encode() + rb"(?:/(?P<name>[^/]+)(?:/(?P<view>formatted|watch))?)?\Z"
)
_VARY: Final = (("Cache-Control", "no-store"), ("Vary", "Accept, X-Service-Token"))
_CONTENT_TYPE: Final[Mapping[Format, str]] = {
    Format.JSON: "application/json",
    Format.YAML: "application/yaml",
    Format.ENV: "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """An answer that is a stream: its headers, what it begins with, and who hears what comes."""

    headers: tuple[tuple[str, str], ...]
    frames: list[Frame]
    stream: Stream


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer, and the version that it hands over, if any."""

    answer: Answer
    version: Version | None = None


@dataclass(slots=True)
class Routes:
    """Answers requests from ``memory``. ``base_only``: as a service that knows the base protocol and no more."""

    memory: Memory
    heartbeat_interval: float
    watch_heartbeat_interval: float
    base_only: bool = False
    sealed: Sealed = field(default_factory=Sealed)

    def answer(self, request: Request) -> Answered | Opened:
        """Answer one request. Raises Refusal."""
        check_path(request.path, request.query)
        if request.path == WATCH_PATH.encode() and not self.base_only:
            _check_method(request, "POST")
            return self._watch_states(self._caller(request), request)
        route = _ROUTE.match(request.path)
        if route is None:
            raise Refusal(404, "there is no such route")
        _check_method(request, "GET", "HEAD")
        account = self._caller(request)
        if route["name"] is None:
            body = dump_config_list(self.memory.infos(account))
            return Answered(Answer(200, (("Content-Type", "application/json"), *_VARY), body))
        name = unquote_to_bytes(route["name"]).decode("utf-8", "replace")
        if route["view"] == b"watch":
            return self._watch_changes(account, name, request)
        return (self._formatted if route["view"] else self._sealed)(account, name, request)

    def _sealed(self, account: Account, name: str, request: Request) -> Answered:
        key = account.key_for(self._key_ids(request))
        version = self._find(account, "read", name, request)
        bound = not self.base_only and accepts(request.joined("accept"), BOUND_MEDIA_TYPE)
        encoding, media_type = (2, BOUND_MEDIA_TYPE) if bound else (1, SEALED_MEDIA_TYPE)
        headers = _describe(version, key_id(key), str(encoding))
        if matches_etag(request.header("if-none-match"), dict(headers)["ETag"]):
            return Answered(Answer(304, headers))
        payload = self.sealed.payload(version, key, encoding)
        return Answered(Answer(200, (("Content-Type", media_type), *headers), payload), version)

    def _formatted(self, account: Account, name: str, request: Request) -> Answered:
        text = parse_query(request.query).get("format", Format.JSON.value)
        if text not in {each.value for each in Format}:
            raise Refusal(400, "invalid format: json, yaml or env")
        fmt = Format(text)
        version = self._find(account, "export", name, request)
        headers = _describe(version, "plain", fmt.value)
        rendered = _render(version, fmt)
        if matches_etag(request.header("if-none-match"), dict(headers)["ETag"]):
            return Answered(Answer(304, headers))
        told = (("Content-Type", _CONTENT_TYPE[fmt]), ("X-Content-Type-Options", "nosniff"), *headers)
        return Answered(Answer(200, told, rendered), version)

    def _watch_changes(self, account: Account, name: str, request: Request) -> Answered | Opened:
        query = parse_query(request.query)
        environment = query.get("environment")
        key = _key(name, environment or account.environment, query.get("label", DEFAULT_LABEL))
        if environment is not None:
            _require(account, "read", key)
        elif not account.may_anywhere("read", name):
            raise _denied("read", "any environment")
        stream = BaseStream(account, name, key.label, environment)
        if not any(stream.covers(version.key) for version in self.memory.named(name)):
            raise Refusal(404, f"{name}: there is no config of that name and label that this token may watch")
        headers, frames = self._stream_headers(self.heartbeat_interval), []
        last_event_id = request.header("last-event-id")
        if last_event_id:
            replayed = stream.replay(self.memory, last_event_id)
            headers += ((REPLAY_HEADER, "reset" if replayed is None else "exact"),)
            frames = [reset_frame(self.memory.position)] if replayed is None else replayed
        if request.method == "HEAD":
            return Answered(Answer(200, headers))
        return Opened(headers, frames, stream)

    def _watch_states(self, account: Account, request: Request) -> Opened:
        key_ids, held = self._key_ids(request), parse_held(request)
        own = [one.position for one in held if one.position and one.position.epoch == self.memory.epoch]
        self._reach(max(own, default=None))
        stream = StateStream(account, held, key_ids)
        headers = (
            *self._stream_headers(self.watch_heartbeat_interval),
            (ENVIRONMENT_HEADER, account.environment),
        )
        return Opened(headers, stream.opening(self.memory, self.sealed), stream)

    def _stream_headers(self, heartbeat_interval: float) -> tuple[tuple[str, str], ...]:
        position = self.memory.position
        return (
            ("Content-Type", EVENT_STREAM_MEDIA_TYPE),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),
            (HEARTBEAT_HEADER, f"{heartbeat_interval:g}"),
            (EPOCH_HEADER, position.epoch),
            (REVISION_HEADER, str(position.revision)),
        )

    def _caller(self, request: Request) -> Account:
        secret = request.header(TOKEN_HEADER.lower())
        if not secret:
            raise Refusal(401, "the header X-Service-Token is missing; send the secret of a token in it")
        account = self.memory.authenticate(secret)
        if account is None:
            raise Refusal(
                401, "the token in X-Service-Token is unknown, expired or revoked; ask an operator for a new one"
            )
        return account

    def _find(self, account: Account, right: str, name: str, request: Request) -> Version:
        query = parse_query(request.query)
        key = _key(name, query.get("environment", account.environment), query.get("label", DEFAULT_LABEL))
        number, minimum = version_of(query), None
        if not self.base_only:
            minimum = minimum_of(request.header(MIN_REVISION_HEADER.lower()))
        _require(account, right, key)
        self._reach(minimum)
        version = self.memory.version(key, number)
        if version is None:
            what = "running version" if number is None else f"version {number}"
            raise Refusal(404, f"{key}: there is no {what}")
        return version

    def _key_ids(self, request: Request) -> frozenset[str] | None:
        return None if self.base_only else key_ids_of(request.header(KEY_IDS_HEADER.lower()))

    def _reach(self, wanted: Position | None) -> None:
        """Refuse what would be older than ``wanted``. There is nothing to wait for: what is here is the newest."""
        here = self.memory.position
        if wanted is not None and wanted > here:
            raise Refusal(
                503,
                f"this service has not come to revision {wanted.revision} yet; try again"
                if wanted.epoch == here.epoch
                else "this service follows an earlier history than the one asked for; try another one",
            )


def parse_held(request: Request) -> list[Held]:
    """Return what the body of ``POST /watch`` says that the client holds. Raises Refusal."""
    try:
        return parse_watch_request(request.body)
    except ValueError as error:
        message = str(error)
    raise Refusal(400, f"invalid watch: {message}")


def _check_method(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        names = ", ".join(allowed)
        raise Refusal(405, f"this route knows the methods {names}", headers={"Allow": names})


def _key(name: str, environment: str, label: str) -> ConfigKey:
    if not is_name(name):
        raise Refusal(
            400,
            "invalid config name: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..', "
            "and none of the reserved api, healthz, readyz, metrics, monitor, docs",
        )
    if not is_environment(environment):
        raise Refusal(
            400,
            "invalid environment: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..'",
        )
    if not is_label(label):
        raise Refusal(
            400,
            "invalid label: 1 to 128 of A-Z a-z 0-9 . _ - / beginning with a letter or digit, without '..' or '//'",
        )
    return ConfigKey(name, environment, label)


def _require(account: Account, right: str, key: ConfigKey) -> None:
    if not account.may(right, key.name, key.environment):
        raise _denied(right, f"environment {key.environment}")


def _denied(right: str, where: str) -> Refusal:
    return Refusal(
        403,
        f"the token's scopes do not grant {right} on this config in {where}; ask for a token with a scope that does",
    )


def _describe(version: Version, sealed_under: str, encoding: str) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell of a payload."""
    metadata = Metadata(
        version=version.number,
        position=version.position,
        environment=version.key.environment,
        label=version.key.label,
        changed_by=version.changed_by,
        timestamp=version.timestamp,
        etag=etag(version.position, sealed_under, encoding),
    )
    return (*metadata_headers(metadata).items(), *_VARY)


def _render(version: Version, fmt: Format) -> bytes:
    try:
        return render(version.content or b"", fmt)
    except DocumentError as error:
        refusal = Refusal(422, str(error), pointer=error.path)
    except ConfigClientError as error:
        # PyYAML is missing where the test runs; a real service always has it.
        refusal = Refusal(500, str(error))
    raise refusal
