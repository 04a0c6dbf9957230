"""What the service's tests share: a store in memory that fails on demand, a clock to set, and a whole application.

Async tests run under anyio's own pytest plugin: fixtures and test share one event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from config_client.protocol import Position
from config_service.app import Application, create_app
from config_service.domain.archiving import archivable
from config_service.domain.keys import ConfigKey
from config_service.domain.records import (
    Activation,
    BesideLog,
    ChangeKind,
    Draft,
    Head,
    KeyRotation,
    Link,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    Record,
    Savepoint,
    SchemaInfo,
    SealCheck,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
    WrappedKey,
)
from config_service.domain.scopes import SERVICE_SCOPES, Scope
from config_service.domain.sealing import NewKeys, Resealed, SealedKind, SealedPlace, SealedValue, data_key_id
from config_service.operations import Operations
from config_service.security.tokens import MintedToken
from config_service.server import build_server, listen
from config_service.settings import Settings
from config_service.store.protocol import (
    DraftConflictError,
    KeyConflictError,
    KeysConflictError,
    RunningConflictError,
    SavepointConflictError,
    ScheduleConflictError,
    SchemaConflictError,
    StoreNotEmptyError,
    VersionConflictError,
    check_distinct,
)

EPOCH = "0123456789ab0123456789ab"
MASTER_KEY = "5a" * 32
ORDERS = ConfigKey("orders")
WATCH = "/api/v1/service/configs/orders/watch"


class MemoryStore:
    """A store of record that forgets. ``fail`` makes the next commit raise; ``gate``, while cleared, holds it up.

    ``held_up`` is set when a commit has come as far as the gate.
    """

    def __init__(self) -> None:
        self.shared = False
        self.epoch = EPOCH
        self.entries: list[LogEntry] = []
        self.held: dict[ConfigKey, list[Version]] = {}
        self.held_drafts: dict[ConfigKey, Draft] = {}
        self.held_schemas: dict[ConfigKey, list[StoredSchema]] = {}
        self.held_savepoints: dict[ConfigKey, dict[str, Savepoint]] = {}
        self.held_tokens: list[StoredToken] = []
        self.held_keys: tuple[WrappedKey, ...] = ()
        self.newest_link: bytes | None = None
        self.check: bytes | None = None
        self.opened = 0
        self.fail: Exception | None = None
        self.fail_reads: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.held_up = asyncio.Event()

    async def changed(self, timeout: float) -> None:
        await asyncio.sleep(timeout)

    async def open(self) -> None:
        self._raise(self.fail_reads)
        self.opened += 1

    async def close(self) -> None:
        self.opened = 0

    async def position(self) -> Position:
        return Position(self.epoch, len(self.entries))

    async def head(self) -> Head:
        return Head(self.epoch, len(self.entries), self.newest_link)

    async def beside_log(self) -> BesideLog:
        named = frozenset(key for key, held in self.held_savepoints.items() if held)
        return BesideLog(len(self.held_tokens), self.check, named)

    async def seal_check(self, candidate: bytes) -> bytes:
        self.check = self.check or candidate
        return self.check

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        (version,) = await self.commit_versions([change], link)
        return version

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        check_distinct(changes)
        await self._pass()
        for change in changes:
            newest = len(self.held.get(change.key, []))
            if change.base != newest:
                raise VersionConflictError(change.key, change.base, newest)
            if change.running is not None:
                runs = await self.running_version(change.key)
                if change.running != (runs.version if runs else 0):
                    raise RunningConflictError(change.key, change.running, runs.version if runs else 0)
            if change.schema is not None:
                self._require_schema(change.key, change.schema)
            if change.draft is not None:
                self._require_draft(change.key, change.draft)
        return [self._append(change, link) for change in changes]

    def _append(self, change: NewVersion, link: Link | None) -> Version:
        versions = self.held.setdefault(change.key, [])
        if change.draft is not None:
            del self.held_drafts[change.key]
        version = Version(
            key=change.key,
            version=change.version,
            revision=len(self.entries) + 1,
            kind=change.kind,
            changed_by=change.changed_by,
            timestamp=change.timestamp,
            document=change.document,
            source_version=change.source_version,
            valid_from=change.valid_from,
        )
        versions.append(version)
        self._log(change.kind, change.changed_by, change.timestamp, key=change.key, version=change.version, link=link)
        return version

    async def activate_version(self, key: ConfigKey, number: int, at: datetime, link: Link | None = None) -> Version:
        await self._pass()
        version = self._awaited(key, number)
        entry = self._log(ChangeKind.ACTIVATED, version.changed_by, at, key=key, version=number, link=link)
        self.held[key][-1] = dataclasses.replace(version, activation=Activation(entry.revision, at))
        return self.held[key][-1]

    async def cancel_schedule(
        self, key: ConfigKey, number: int, cancelled_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry:
        await self._pass()
        version = self._awaited(key, number)
        entry = self._log(ChangeKind.SCHEDULE_CANCELLED, cancelled_by, at, key=key, version=number, link=link)
        self.held[key][-1] = dataclasses.replace(version, cancelled=entry.revision)
        return entry

    def _awaited(self, key: ConfigKey, number: int) -> Version:
        versions = self.held.get(key, [])
        if not versions or number != len(versions) or not versions[-1].awaited:
            raise ScheduleConflictError(key, number)
        return versions[-1]

    async def running_version(self, key: ConfigKey) -> Version | None:
        return next((one for one in reversed(self.held.get(key, [])) if one.served), None)

    async def commit_savepoint(self, change: NewSavepoint, link: Link | None = None) -> LogEntry:
        await self._pass()
        named = self.held_savepoints.setdefault(change.key, {})
        found = named[change.name].version if change.name in named else 0
        version = await self.version(change.key, change.base if change.version is None else change.version)
        if found != change.base or version is None or version.document is None:
            raise SavepointConflictError(change.key, change.name, found)
        entry = self._log(
            change.kind,
            change.changed_by,
            change.timestamp,
            key=change.key,
            version=change.entry_version,
            link=link,
            savepoint=change.name,
        )
        named.pop(change.name, None)
        if change.version is not None:
            named[change.name] = Savepoint.of(entry)
        return entry

    async def savepoints(self, key: ConfigKey) -> list[Savepoint]:
        self._raise(self.fail_reads)
        named = self.held_savepoints.get(key, {})
        return [named[name] for name in sorted(named)]

    async def archive_versions(self, change: NewArchive, link: Link | None = None) -> LogEntry | None:
        await self._pass()
        key, versions = change.key, self.held.get(change.key, [])
        may_go = archivable(
            [one.info for one in versions], await self.savepoints(key), self.held_drafts.get(key), change.before
        )
        going = tuple(one.version for one in may_go if one.version in change.versions)
        if not going:
            return None
        kind, by, at = ChangeKind.ARCHIVED, change.archived_by, change.timestamp
        entry = self._log(kind, by, at, key=key, link=link, archived=going)
        for number in going:
            versions[number - 1] = dataclasses.replace(versions[number - 1], document=None, archived=entry.revision)
        return entry

    async def commit_schema(self, change: NewSchema, link: Link | None = None) -> StoredSchema:
        await self._pass()
        self._require_schema(change.key, change.base)
        entry = self._log(
            change.kind, change.changed_by, change.timestamp, key=change.key, schema=change.number, link=link
        )
        schema = StoredSchema(
            change.key, change.number, entry.revision, change.changed_by, change.timestamp, change.schema
        )
        self.held_schemas.setdefault(change.key, []).append(schema)
        return schema

    async def draft(self, key: ConfigKey) -> Draft | None:
        self._raise(self.fail_reads)
        return self.held_drafts.get(key)

    async def drafts(self) -> AsyncIterator[Draft]:
        for key in sorted(self.held_drafts):
            yield self.held_drafts[key]

    async def restore(self, records: AsyncIterator[Record], epoch: str) -> Position:
        if self.entries or self.held_drafts:
            raise StoreNotEmptyError
        taken = [record async for record in records]
        self.epoch = epoch
        for record in taken:
            if isinstance(record, SealCheck):
                self.check = record.sealed
            elif isinstance(record, Draft):
                self.held_drafts[record.key] = record
            elif isinstance(record, LogEntry):
                self.entries.append(record)
                self.newest_link = record.link or self.newest_link
            elif isinstance(record, Version):
                self.held.setdefault(record.key, []).append(record)
            elif isinstance(record, WrappedKey):
                self.held_keys += (record,)
            elif isinstance(record, StoredSchema):
                self.held_schemas.setdefault(record.key, []).append(record)
            else:
                self.held_tokens.append(record)
        return await self.position()

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        await self._pass()
        self._require_draft(key, before)
        self.held_drafts.pop(key, None)
        if after is not None:
            self.held_drafts[key] = after

    async def commit_token(self, token: NewToken, link: Link | None = None) -> tuple[StoredToken, LogEntry]:
        await self._pass()
        fields = {name.name: getattr(token, name.name) for name in dataclasses.fields(token)}
        stored = StoredToken(id=len(self.held_tokens) + 1, **fields)
        self.held_tokens.append(stored)
        entry = self._log(ChangeKind.TOKEN_CREATED, token.created_by, token.created_at, token_id=stored.id, link=link)
        return stored, entry

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        await self._pass()
        for index, token in enumerate(self.held_tokens):
            if token.id == rotation.token_id and token.revoked_at is None:
                if token.keys != rotation.base:
                    raise KeyConflictError(token.id)
                self.held_tokens[index] = dataclasses.replace(token, keys=rotation.keys)
                entry = self._log(
                    ChangeKind.TOKEN_REKEYED, rotation.rotated_by, rotation.rotated_at, token_id=token.id, link=link
                )
                return self.held_tokens[index], entry
        return None

    async def revoke_token(
        self, token_id: int, revoked_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry | None:
        await self._pass()
        for index, token in enumerate(self.held_tokens):
            if token.id == token_id and token.revoked_at is None:
                self.held_tokens[index] = dataclasses.replace(token, revoked_at=at)
                return self._log(ChangeKind.TOKEN_REVOKED, revoked_by, at, token_id=token_id, link=link)
        return None

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        self._raise(self.fail_reads)
        await asyncio.sleep(0)
        return self.entries[after : after + limit]

    async def newest_versions(self) -> AsyncIterator[Version]:
        for versions in list(self.held.values()):
            yield versions[-1]

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        self._raise(self.fail_reads)
        return [version.info for version in self.held.get(key, [])]

    async def version(self, key: ConfigKey, number: int) -> Version | None:
        self._raise(self.fail_reads)
        return next((one for one in self.held.get(key, []) if one.version == number), None)

    async def newest_schemas(self) -> AsyncIterator[StoredSchema]:
        for schemas in list(self.held_schemas.values()):
            yield schemas[-1]

    async def schemas(self, key: ConfigKey) -> list[SchemaInfo]:
        self._raise(self.fail_reads)
        return [schema.info for schema in self.held_schemas.get(key, [])]

    async def schema(self, key: ConfigKey, number: int) -> StoredSchema | None:
        self._raise(self.fail_reads)
        return next((one for one in self.held_schemas.get(key, []) if one.number == number), None)

    async def tokens(self) -> list[StoredToken]:
        return list(self.held_tokens)

    async def token(self, token_id: int) -> StoredToken | None:
        self._raise(self.fail_reads)
        return next((token for token in self.held_tokens if token.id == token_id), None)

    def _require_schema(self, key: ConfigKey, number: int) -> None:
        newest = len(self.held_schemas.get(key, []))
        if newest != number:
            raise SchemaConflictError(key, number, newest)

    def _require_draft(self, key: ConfigKey, sealed: bytes | None) -> None:
        held = self.held_drafts.get(key)
        if (None if held is None else held.document) != sealed:
            raise DraftConflictError(key)

    async def keys(self) -> tuple[WrappedKey, ...]:
        self._raise(self.fail_reads)
        return self.held_keys

    async def commit_keys(self, change: NewKeys, link: Link | None = None) -> LogEntry | None:
        if change.kind is not None:
            await self._pass()
        if change.base != self.held_keys:
            raise KeysConflictError
        self.held_keys = change.keys
        self.check = change.check or self.check
        return change.kind and self._log(change.kind, change.changed_by, change.timestamp, link=link)

    async def sealed_values(self, after: SealedPlace | None, limit: int) -> list[SealedValue]:
        """Tell all of them at once; resealing itself is tested on a store that does it."""
        if after is not None:
            return []
        return [
            SealedValue(SealedPlace(SealedKind.DOCUMENT, key, version.version), version.document)
            for key, versions in sorted(self.held.items())
            for version in versions
            if version.document is not None
        ]

    async def sealed_counts(self) -> dict[int, int]:
        return dict(Counter(data_key_id(value.sealed) for value in await self.sealed_values(None, 1)))

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        for change in changes:
            assert change.place.key is not None
            versions, place = self.held[change.place.key], change.place.number - 1
            versions[place] = dataclasses.replace(versions[place], document=change.after)
        return len(changes)

    async def _pass(self) -> None:
        self.held_up.set()
        await self.gate.wait()
        failure, self.fail = self.fail, None
        self._raise(failure)

    @staticmethod
    def _raise(failure: Exception | None) -> None:
        if failure is not None:
            raise failure

    def _log(
        self,
        kind: ChangeKind,
        changed_by: int,
        timestamp: datetime,
        key: ConfigKey | None = None,
        version: int | None = None,
        token_id: int | None = None,
        schema: int | None = None,
        link: Link | None = None,
        savepoint: str | None = None,
        archived: tuple[int, ...] | None = None,
    ) -> LogEntry:
        entry = LogEntry(len(self.entries) + 1, kind, changed_by, timestamp, key, version, token_id, schema)
        entry = dataclasses.replace(entry, savepoint=savepoint, archived=archived)
        if link is not None:
            entry = link(entry, self.newest_link)
            self.newest_link = entry.link
        self.entries.append(entry)
        return entry


class Clock:
    """The present, as the test sets it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, 0, 0, 250, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class RawAnswer:
    """What a request without any client in between was answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, dict[str, str]]:
        parsed: dict[str, dict[str, str]] = json.loads(self.body)
        return parsed


@dataclass
class Service:
    """A started application with an admin token, and ways to talk to it."""

    app: Application
    store: MemoryStore
    clock: Clock
    admin: MintedToken
    _clients: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def operations(self) -> Operations:
        return self.app.operations

    async def mint(self, *scopes: str, environment: str = "default", expires_at: datetime | None = None) -> MintedToken:
        granted = [Scope.parse(scope) for scope in scopes] or SERVICE_SCOPES
        return await self.operations.tokens.create(
            self.admin.token, "test", environment=environment, scopes=granted, expires_at=expires_at
        )

    async def publish(
        self, name: str, content: bytes = b"{}", environment: str = "default", label: str = "main"
    ) -> int:
        key = ConfigKey.of(name, environment, label)
        outcome = await self.operations.publish(self.admin.token, key, content)
        return outcome.document.version

    def client(self, minted: MintedToken | None = None, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
        """Return an HTTP client on this very loop; without ``minted`` it sends no token."""
        token = {"X-Service-Token": minted.secret} if minted else {}
        transport = httpx.ASGITransport(app=self.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://service", headers=token | (headers or {}))
        self._clients.append(client)
        return client

    async def raw(
        self,
        raw_path: bytes,
        *,
        method: str = "GET",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        query: bytes = b"",
        body: tuple[dict[str, object], ...] = ({"type": "http.request", "body": b"", "more_body": False},),
        keep: bool = False,
    ) -> RawAnswer:
        """Call the application with exactly these bytes, which no client would send.

        The client hangs up behind ``body``, unless it is to ``keep`` the connection.
        """
        sent: list[dict[str, Any]] = []
        messages = iter(body)

        async def receive() -> dict[str, object]:
            message = next(messages, None)
            if message is None and keep:
                await asyncio.Event().wait()
            return message or {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": list(headers),
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        await self.app(scope, receive, send)
        told: dict[str, str] = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return RawAnswer(sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:]))

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        await self.app.stop()


class LiveService:
    """A service on a thread and a socket, its address, an admin token and one that may read and export."""

    def __init__(self, store_url: str, send_buffer: int | None = None, **options: Any) -> None:
        self.settings = Settings.load(master_key=MASTER_KEY, store_url=store_url, port=0, **options)
        self.app = create_app(self.settings)
        self.listener = listen("127.0.0.1", 0)
        if send_buffer is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.admin: MintedToken
        self.reader: MintedToken
        self._accepting = threading.Event()
        self.server = build_server(self.settings, self.app, prepare=self._prepare, announce=self._accepting.set)
        self._thread = threading.Thread(target=lambda: self.server.run(sockets=[self.listener]))

    async def _prepare(self, operations: Operations) -> None:
        self.loop = asyncio.get_running_loop()
        self.admin = await operations.tokens.bootstrap("admin")
        self.reader = await operations.tokens.bootstrap("reader", SERVICE_SCOPES)

    def start(self) -> LiveService:
        self._thread.start()
        assert self._accepting.wait(60)
        return self

    def stop(self) -> None:
        self.server.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def call(self, work: Any) -> Any:
        """Return the result of a coroutine that runs where the service runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def publish(self, content: bytes, key: ConfigKey = ORDERS) -> int:
        outcome = self.call(self.app.operations.publish(self.admin.token, key, content))
        version: int = outcome.document.version
        return version

    def open_stream(
        self, path: str = WATCH, minted: MintedToken | None = None, *, buffer: int | None = None, **headers: str
    ) -> RawStream:
        fields = {"X-Service-Token": (minted or self.reader).secret} | headers
        return RawStream(self.address, RawStream.get(path, fields), buffer)


class RawStream:
    """An event stream as bytes on a socket, without any client that could hide something."""

    def __init__(self, address: tuple[str, int], request: bytes, buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(20)
        self.socket.connect(address)
        self.socket.sendall(request)
        raw = b""
        while b"\r\n\r\n" not in raw:
            received = self.socket.recv(65536)
            assert received, "the connection was closed"
            raw += received
        self.head, _, self.body = raw.partition(b"\r\n\r\n")
        self.status = int(self.head.split(b" ")[1])
        self.headers = {
            name.strip().decode().lower(): value.strip().decode()
            for name, _, value in (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        }

    @staticmethod
    def get(path: str, headers: dict[str, str]) -> bytes:
        """Return the bytes of a request."""
        lines = [f"GET {path} HTTP/1.1", "Host: service", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    def read(self) -> bytes:
        """Return what comes next, and add it to the body; empty at the end."""
        received = self.socket.recv(65536)
        self.body += received
        return received

    def until(self, mark: bytes) -> bytes:
        """Read until the body so far holds ``mark``; return the body."""
        while mark not in self.body:
            assert self.read(), "the stream ended"
        return self.body

    def ends(self) -> bool:
        """Read on to the end; tell whether it came in good order."""
        try:
            while self.read():
                pass
        except ConnectionError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"


@pytest.fixture
def epoch() -> str:
    return EPOCH


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(anyio_backend: str) -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def settings() -> Settings:
    return Settings.load(master_key=MASTER_KEY, store_url="sqlite:///unused.db", max_document_bytes=4096)


@pytest.fixture
async def start(store: MemoryStore, clock: Clock, settings: Settings) -> AsyncIterator[Callable[..., Any]]:
    """Start an application on a store; each call starts a further one, as a restart does."""
    services: list[Service] = []

    async def begin(**changes: object) -> Service:
        app = create_app(settings.model_copy(update=changes), store, clock)
        await app.start()
        admin = await app.operations.tokens.bootstrap("admin")
        services.append(Service(app, store, clock, admin))
        return services[-1]

    yield begin
    for service in services:
        await service.close()


@pytest.fixture
async def service(start: Callable[..., Any]) -> Service:
    """A started application with an admin token."""
    begun: Service = await start()
    return begun


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'config.db'}"


@pytest.fixture(scope="session")
def live_service() -> type[LiveService]:
    """What ``begin`` starts, for fixtures of a wider scope."""
    return LiveService


@pytest.fixture
def begin(store_url: str) -> Iterator[Callable[..., LiveService]]:
    """Start services on sockets, and stop those that are left at the end."""
    services: list[LiveService] = []

    def make(**options: Any) -> LiveService:
        services.append(LiveService(store_url, **options).start())
        return services[-1]

    yield make
    for one in services:
        one.stop()


@pytest.fixture
def open_raw() -> Iterator[Callable[..., RawStream]]:
    """Send exactly these bytes, or a GET of a path with headers, and close the connection at the end."""
    streams: list[RawStream] = []

    def connect(address: tuple[str, int], request: bytes | str, buffer: int | None = None, **headers: str) -> RawStream:
        raw = RawStream.get(request, headers) if isinstance(request, str) else request
        streams.append(RawStream(address, raw, buffer))
        return streams[-1]

    yield connect
    for one in streams:
        one.close()
