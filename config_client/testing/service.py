"""``InMemoryService``: a config service inside the test, on a real loopback socket, with every fault at hand.

Composes memory, routes and sockets. Everything it can be asked for is safe from any thread.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from weakref import WeakSet

from ..errors import ConfigClientError
from ..formats import DocumentError, parse_json_object
from ..options import Options
from ..protocol import DEFAULT_LABEL, WATCH_PATH, Held, is_environment, is_label, is_name
from ._accounts import SERVICE_SCOPES, Account, Credentials
from ._faults import MisuseError, Refusal
from ._http import Request, dump_stream_head, error_answer
from ._loop import Connection, Loop
from ._memory import Backup, ConfigKey, Memory, Version
from ._paths import parse_query
from ._routes import Opened, Routes, parse_held
from ._streams import HEARTBEAT, BaseStream, Frame, StateStream, Stream, change_frame, state_frame

__all__ = ["InMemoryService", "RecordedRequest", "Route"]

Route = Literal["get", "watch"]
"""What a failure is for: everything that is answered at once, or the streams."""

REMEMBERED: Final = 10_000
"""Requests that are kept in ``InMemoryService.requests``, the newest ones."""
_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024
_QUICK: Final[Mapping[str, object]] = {
    "request_timeout": 5.0,
    "retry_delay": 0.02,
    "max_retry_delay": 0.2,
    "poll_interval": 0.5,
    "cache": False,
}


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that was answered; it never tells the token.

    ``watched``: what a state-first watch said that it holds.
    """

    method: str
    path: str
    query: Mapping[str, str]
    status: int
    watched: tuple[Held, ...] = field(default=())


@dataclass(slots=True)
class _Failure:
    """How requests are refused; ``left`` None: until told otherwise."""

    status: int
    left: int | None
    route: Route | None
    retry_after: float | None


class InMemoryService:
    """A config service for unit tests. It speaks the whole wire protocol on a loopback port.

        with InMemoryService() as service:
            service.publish("orders", {"db": {"host": "db1"}})
            with ConfigClient(service.options()) as client:
                assert client.get_raw("orders") == {"db": {"host": "db1"}}

    It runs on one daemon thread. What is published, deleted or rolled back has been written to every open stream when
    the call returns. Clients may be of this process, of others, and of other languages. A child made by ``fork`` may
    connect, but the service itself stays with the process that made it.

    ``environment``: the default one of its tokens. ``heartbeat_interval`` and ``watch_heartbeat_interval``: seconds
    between heartbeats of base streams and of state-first ones.

    Every method that changes something raises MisuseError for what cannot be.
    """

    def __init__(
        self,
        *,
        environment: str = "default",
        heartbeat_interval: float = 5.0,
        watch_heartbeat_interval: float = 15.0,
    ) -> None:
        if not is_environment(environment):
            raise MisuseError("environment: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit")
        if min(heartbeat_interval, watch_heartbeat_interval) <= 0:
            raise MisuseError("the heartbeat intervals must be above 0 seconds")
        self._lock = threading.Condition(threading.RLock())
        self._switch = threading.RLock()
        self._memory = Memory()
        self._routes = Routes(self._memory, heartbeat_interval, watch_heartbeat_interval)
        self._default = self._memory.mint(environment, SERVICE_SCOPES).id
        self._failure: _Failure | None = None
        self._requests: deque[RecordedRequest] = deque(maxlen=REMEMBERED)
        self._sent: dict[ConfigKey, int] = {}
        self._loop: Loop | None = None
        self._reserved: socket.socket | None = None
        self._port = 0
        self._abandoned = False
        _services.add(self)

    def __repr__(self) -> str:
        return f"InMemoryService({self.url if self._port else 'not started'})"

    def __enter__(self) -> InMemoryService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Running

    def start(self) -> None:
        """Accept connections: at the first call on a free port, after ``stop`` on the same one. Idempotent."""
        with self._switch, self._lock:
            self._check_owner()
            if self._loop is not None:
                return
            listener = self._reserved or _bind(0)
            self._reserved = None
            listener.listen(_BACKLOG)
            self._port = listener.getsockname()[1]
            beats: dict[type[Stream], float] = {
                BaseStream: self._routes.heartbeat_interval,
                StateStream: self._routes.watch_heartbeat_interval,
            }
            self._loop = Loop(listener, self._lock, answer=self._answer, sent=self._note, beats=beats)

    def stop(self) -> None:
        """End every connection and refuse new ones, as while a service is down; what is held stays. Idempotent.

        The port stays reserved until ``start`` or ``close``.
        """
        with self._switch:
            with self._lock:
                loop, self._loop = self._loop, None
            if loop is not None:
                loop.stop()
                # Bound and not listening: connections are refused, and nobody else is given the port meanwhile.
                self._reserved = _bind(self._port)

    def close(self) -> None:
        """Stop for good and release the port. Idempotent."""
        with self._switch:
            self.stop()
            if self._reserved is not None:
                self._reserved.close()
                self._reserved = None

    # Reaching it

    @property
    def url(self) -> str:
        """Where the service listens, or will again after ``stop``. Raises MisuseError before the first start."""
        if not self._port:
            raise MisuseError("the service was not started: use it as a context manager, or call start()")
        return f"http://{_HOST}:{self._port}"

    @property
    def credentials(self) -> Credentials:
        """The token that the service begins with, which may read and export everything, and its newest key."""
        with self._lock:
            return self._memory.account(self._default).credentials

    @property
    def key(self) -> str:
        """The newest key of that token, as 64 hex characters; fit for ``Options(reload_keys=lambda: service.key)``."""
        return self.credentials.key

    @property
    def environ(self) -> dict[str, str]:
        """The variables that ``ConfigClient.from_env`` reads, for this service; also for child processes.

        They also keep the client from leaving values on the disk.
        """
        credentials = self.credentials
        return {
            "CONFIG_SERVICE_HOST": self.url,
            "CONFIG_SERVICE_TOKEN": credentials.token,
            "CONFIG_SERVICE_KEY": credentials.key,
            "CONFIG_SERVICE_CACHE": "off",
        }

    def options(self, credentials: Credentials | None = None, **overrides: object) -> Options:
        """Return the options of a client of this service; ``overrides`` are fields of ``Options``.

        For tests they are impatient (pauses of at most 0.2 s) and keep nothing on disk.
        """
        own = credentials or self.credentials
        fields = {
            "host": self.url,
            "service_token": own.token,
            "encryption_key": own.key,
            **_QUICK,
            **overrides,
        }
        return Options(**fields)  # type: ignore[arg-type] # Options checks each of them

    # Configs

    def publish(
        self,
        name: str,
        document: Mapping[str, object] | bytes | str,
        *,
        environment: str = "",
        label: str = "",
        changed_by: int = 1,
        check: bool = True,
    ) -> int:
        """Publish ``document`` and return its version; what is running already makes no new one.

        A mapping is dumped as JSON; bytes and text are served as they are. ``check=False`` also takes what a real
        service would refuse to publish. Without environment and label: the default environment, and ``main``.
        """
        content = document if isinstance(document, bytes) else _dump(document)
        if check:
            _check(content)
        key = self._key(name, environment, label)
        with self._lock:
            self._check_owner()
            return self._tell(*self._memory.publish(key, content, changed_by))

    def delete(self, name: str, *, environment: str = "", label: str = "", changed_by: int = 1) -> int:
        """Delete the config and return the version of its tombstone."""
        key = self._key(name, environment, label)
        with self._lock:
            self._check_owner()
            return self._tell(self._memory.delete(key, changed_by), True)

    def rollback(self, name: str, version: int, *, environment: str = "", label: str = "", changed_by: int = 1) -> int:
        """Publish the document of ``version`` again and return the new version."""
        key = self._key(name, environment, label)
        with self._lock:
            self._check_owner()
            return self._tell(*self._memory.roll_back(key, version, changed_by))

    # Tokens

    def mint(self, *, environment: str = "", scopes: Sequence[str] = SERVICE_SCOPES) -> Credentials:
        """Return the credentials of a new token; scopes are spelled ``configs@environments:right,right``."""
        if isinstance(scopes, str):
            raise MisuseError("scopes: a sequence of texts, such as ('orders-*@prod:read',)")
        if environment and not is_environment(environment):
            raise MisuseError("environment: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit")
        with self._lock:
            self._check_owner()
            home = environment or self._memory.account(self._default).environment
            return self._memory.mint(home, scopes).credentials

    def rotate_key(self, credentials: Credentials | None = None, *, overlap: bool = True) -> Credentials:
        """Give the token (without one: the first) a fresh key and return it; open streams go on.

        ``overlap``: the keys before it stay valid, and are what is sealed under for clients that hold no newer one,
        until ``retire_keys`` or a rotation without overlap.
        """
        with self._lock:
            return self._memory.put(self._find(credentials).rekeyed(overlap=overlap)).credentials

    def retire_keys(self, credentials: Credentials | None = None) -> None:
        """End the overlap: only the newest key of the token stays valid."""
        with self._lock:
            self._memory.put(self._find(credentials).retired())

    def revoke(self, credentials: Credentials | None = None) -> None:
        """Revoke the token (without one: the first): it is refused with 401, and its streams end."""
        with self._lock:
            account = self._find(credentials)
            self._memory.revoke(account)
            self._end(lambda stream: stream.account.id == account.id)

    # Trouble

    @property
    def base_only(self) -> bool:
        """Whether only the base protocol is spoken; may be set, and counts for later requests.

        Then there is no state-first watch (404), no sealed format 2 and no minimum revision.
        """
        return self._routes.base_only

    @base_only.setter
    def base_only(self, value: bool) -> None:
        with self._lock:
            self._routes.base_only = value

    def fail(
        self,
        status: int | None,
        *,
        times: int | None = None,
        for_: Route | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Refuse requests with ``status`` from now on, the next ``times`` only if given; None: no longer.

        ``for_``: only those that open a stream ("watch"), or only the others ("get"). ``retry_after``: seconds for the
        header of that name. A later call replaces an earlier one. Streams that are open stay open; see ``cut``.
        """
        if status is not None and not 400 <= status <= 599:
            raise MisuseError(f"status {status}: a failure is 400 to 599, or None for no failure any more")
        if times is not None and times < 1:
            raise MisuseError(f"times {times}: 1 or more, or None for every request until fail(None)")
        if for_ not in {None, "get", "watch"}:
            raise MisuseError(f'for_ {for_!r}: "get", "watch" or None for both')
        with self._lock:
            self._check_owner()
            self._failure = None if status is None else _Failure(status, times, for_, retry_after)

    def cut(self) -> None:
        """Reset every connection, streams and others, and return when they are gone. New ones are accepted."""
        with self._lock:
            if self._loop is not None:
                self._loop.cut()

    def backup(self) -> Backup:
        """Return everything that is held now, for ``restore``."""
        with self._lock:
            return self._memory.backup()

    def restore(self, backup: Backup) -> None:
        """Hold what ``backup`` holds again, under a new epoch, as after a disaster; every stream ends.

        Tokens and keys are those of the backup too.
        """
        with self._lock:
            self._check_owner()
            self._memory.restore(backup)
            self._sent.clear()
            self._end(lambda stream: True)

    # Looking

    @property
    def requests(self) -> list[RecordedRequest]:
        """What was asked, in order, and how it was answered: the newest 10,000."""
        with self._lock:
            return list(self._requests)

    @property
    def epoch(self) -> str:
        """The epoch of the service's history: another one after each ``restore``."""
        with self._lock:
            return self._memory.epoch

    @property
    def revision(self) -> int:
        """The newest revision."""
        with self._lock:
            return self._memory.revision

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        with self._lock:
            return len(self._loop.streams) if self._loop else 0

    def wait_for_watchers(self, count: int, timeout: float = 5.0) -> None:
        """Wait until at least ``count`` streams are open; 0: until none is. Raises TimeoutError."""
        self.wait_until(
            lambda: self.watchers >= count if count else not self.watchers,
            timeout,
            lambda: f"{self.watchers} streams are open, not {count}",
        )

    def wait_for_version(
        self, name: str, version: int, timeout: float = 5.0, *, environment: str = "", label: str = ""
    ) -> None:
        """Wait until some client has been sent ``version``, or a later one, in an answer or on a stream.

        A change that a base stream merely announces does not count, until it is fetched. That it was sent does not
        mean that it is in place: for that, wait on the client. Raises TimeoutError.
        """
        key = self._key(name, environment, label)
        self.wait_until(
            lambda: self._sent.get(key, 0) >= version,
            timeout,
            lambda: f"{key}: version {self._sent.get(key, 'none')} is the newest that was sent, not {version}",
        )

    def wait_until(
        self, condition: Callable[[], bool], timeout: float = 5.0, explain: Callable[[], str] | None = None
    ) -> None:
        """Wait until ``condition`` holds; it is looked at after everything that happens at the service.

        Raises TimeoutError with what ``explain`` says.
        """
        with self._lock:
            if not self._lock.wait_for(condition, timeout):
                raise TimeoutError(
                    f"after {timeout:g} s {explain() if explain else 'what was waited for has not happened'}; "
                    f"{len(self._requests)} requests came so far"
                )

    # Under the lock, mostly on the loop's thread

    def _answer(self, connection: Connection, request: Request) -> None:
        """Answer ``request`` on ``connection``, or make a stream of it."""
        head = request.method == "HEAD"
        try:
            self._refuse(request)
            outcome = self._routes.answer(request)
        except Refusal as refusal:
            self._record(request, refusal.status)
            frame = Frame(error_answer(refusal).dump(head=head, keep_alive=request.keep_alive))
        else:
            if isinstance(outcome, Opened):
                self._record(request, 200)
                # Some clients and proxies report a stream as open with its first byte of body.
                connection.send(Frame(dump_stream_head(outcome.headers) + HEARTBEAT), *outcome.frames)
                connection.stream = None if connection.gone else outcome.stream
                self._lock.notify_all()
                return
            self._record(request, outcome.answer.status)
            data = outcome.answer.dump(head=head, keep_alive=request.keep_alive)
            frame = Frame(data, None if head else outcome.version)
        connection.send(frame)
        if not request.keep_alive:
            connection.end()

    def _refuse(self, request: Request) -> None:
        failure = self._failure
        watches = request.path == WATCH_PATH.encode() or request.path.endswith(b"/watch")
        if failure is None or failure.route not in {None, "watch" if watches else "get"}:
            return
        if failure.left is not None:
            failure.left -= 1
            if failure.left <= 0:
                self._failure = None
        headers = {} if failure.retry_after is None else {"Retry-After": f"{failure.retry_after:g}"}
        raise Refusal(failure.status, "the test asked the in-memory service to fail", headers=headers)

    def _record(self, request: Request, status: int) -> None:
        try:
            query = parse_query(request.query)
        except Refusal:
            query = {}
        watched: tuple[Held, ...] = ()
        if request.path == WATCH_PATH.encode() and status == 200:
            watched = tuple(parse_held(request))
        path = request.path.decode("ascii", "backslashreplace")
        self._requests.append(RecordedRequest(request.method, path, query, status, watched))
        self._lock.notify_all()

    def _note(self, frame: Frame) -> None:
        version = frame.version
        if version is not None and version.position.epoch == self._memory.epoch:
            self._sent[version.key] = max(version.number, self._sent.get(version.key, 0))
            self._lock.notify_all()

    def _tell(self, version: Version, changed: bool) -> int:
        """Write ``version`` to every stream that is to hear of it; return its number."""
        # One frame for all streams that are sealed under the same key, and one for all base streams.
        frames: dict[bytes | None, Frame] = {}
        for connection, stream in self._loop.streams if changed and self._loop else ():
            if not stream.covers(version.key):
                continue
            key = stream.key(self._memory) if isinstance(stream, StateStream) else None
            frame = frames.get(key)
            if frame is None:
                frame = change_frame(version) if key is None else state_frame(version, key, self._routes.sealed)
                frames[key] = frame
            connection.send(frame, bounded=True)
        self._lock.notify_all()
        return version.number

    def _end(self, which: Callable[[Stream], bool]) -> None:
        for connection, stream in self._loop.streams if self._loop else ():
            if which(stream):
                connection.end()
        self._lock.notify_all()

    def _find(self, credentials: Credentials | None) -> Account:
        self._check_owner()
        if credentials is None:
            account: Account | None = self._memory.account(self._default)
        else:
            account = self._memory.authenticate(credentials.token)
        if account is None or account.revoked:
            raise MisuseError("these credentials are of no valid token of this service: unknown, or revoked already")
        return account

    def _key(self, name: str, environment: str, label: str) -> ConfigKey:
        if not is_name(name):
            raise MisuseError(f"config name {name!r}: 1 to 128 of A-Z a-z 0-9 . _ - without '..', not reserved")
        if environment and not is_environment(environment):
            raise MisuseError(f"environment {environment!r}: 1 to 128 of A-Z a-z 0-9 . _ - without '..'")
        if label and not is_label(label):
            raise MisuseError(f"label {label!r}: 1 to 128 of A-Z a-z 0-9 . _ - / without '..' or '//'")
        with self._lock:
            home = self._memory.account(self._default).environment
        return ConfigKey(name, environment or home, label or DEFAULT_LABEL)

    def _check_owner(self) -> None:
        if self._abandoned:
            raise MisuseError(
                "this process is a child of the one that runs the service: it may connect, but only the parent can "
                "change what is served"
            )

    def _abandon(self) -> None:
        """Let go, in a child made by fork: another thread of the parent may have held the lock."""
        self._lock = threading.Condition(threading.RLock())
        self._switch = threading.RLock()
        loop, self._loop, self._abandoned = self._loop, None, True
        reserved, self._reserved = self._reserved, None
        if loop is not None:
            loop.abandon()
        if reserved is not None:
            reserved.close()


_services: Final[WeakSet[InMemoryService]] = WeakSet()


def _abandon_all() -> None:
    for service in tuple(_services):
        service._abandon()


# Otherwise the port would stay open in the child when the service stops.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _bind(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((_HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _dump(document: Mapping[str, object] | str) -> bytes:
    if isinstance(document, str):
        return document.encode()
    if not isinstance(document, Mapping):
        raise MisuseError(f"document: a mapping, bytes or text, not {type(document).__name__}")
    try:
        return json.dumps(dict(document)).encode()
    except (TypeError, ValueError, RecursionError):
        pass
    raise MisuseError("document: a mapping of what JSON can hold; give bytes for anything else")


def _check(content: bytes) -> None:
    try:
        parse_json_object(content, strict=True)
    except DocumentError as error:
        fault: ConfigClientError = error
    else:
        return
    raise MisuseError(
        f"the service would refuse this document: {fault}; publish(…, check=False) serves it all the same"
    )
