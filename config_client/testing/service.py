"""``InMemoryService``: a config service inside the test, on a real loopback socket, with every fault at hand.

What a test may ask for, and how that is spelled; the work is done in ``_server.py``. All of it is safe from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ..options import Options
from ..protocol import DEFAULT_LABEL, is_environment
from ._accounts import SERVICE_SCOPES, Account, Credentials
from ._failures import Route, failure
from ._faults import MisuseError
from ._journal import RecordedRequest
from ._memory import Backup, ConfigKey
from ._published import config_key, content_of
from ._server import Server

__all__ = ["InMemoryService", "RecordedRequest", "Route"]

_QUICK: Final[Mapping[str, object]] = {
    "request_timeout": 5.0,
    "retry_delay": 0.02,
    "max_retry_delay": 0.2,
    "poll_interval": 0.5,
    "cache": False,
}


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
        self._server = Server(heartbeat_interval, watch_heartbeat_interval)
        self._default = self._server.memory.mint(environment, SERVICE_SCOPES).id

    def __repr__(self) -> str:
        return f"InMemoryService({self.url if self._server.started else 'not started'})"

    def __enter__(self) -> InMemoryService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Running

    def start(self) -> None:
        """Accept connections: at the first call on a free port, after ``stop`` on the same one. Idempotent."""
        self._server.start()

    def stop(self) -> None:
        """End every connection and refuse new ones, as while a service is down; what is held stays. Idempotent.

        The port stays reserved until ``start`` or ``close``.
        """
        self._server.stop()

    def close(self) -> None:
        """Stop for good and release the port. Idempotent."""
        self._server.close()

    # Reaching it

    @property
    def url(self) -> str:
        """Where the service listens, or will again after ``stop``. Raises MisuseError before the first start."""
        return self._server.url

    @property
    def credentials(self) -> Credentials:
        """The token that the service begins with, which may read and export everything, and its newest key."""
        with self._server.lock:
            return self._server.memory.account(self._default).credentials

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
        content = content_of(document, check=check)
        key = self._key(name, environment, label)
        with self._server.changing() as memory:
            return self._server.tell(*memory.publish(key, content, changed_by))

    def delete(self, name: str, *, environment: str = "", label: str = "", changed_by: int = 1) -> int:
        """Delete the config and return the version of its tombstone."""
        key = self._key(name, environment, label)
        with self._server.changing() as memory:
            return self._server.tell(memory.delete(key, changed_by))

    def rollback(self, name: str, version: int, *, environment: str = "", label: str = "", changed_by: int = 1) -> int:
        """Publish the document of ``version`` again and return the new version."""
        key = self._key(name, environment, label)
        with self._server.changing() as memory:
            return self._server.tell(*memory.roll_back(key, version, changed_by))

    # Tokens

    def mint(self, *, environment: str = "", scopes: Sequence[str] = SERVICE_SCOPES) -> Credentials:
        """Return the credentials of a new token; scopes are spelled ``configs@environments:right,right``."""
        if isinstance(scopes, str):
            raise MisuseError("scopes: a sequence of texts, such as ('orders-*@prod:read',)")
        if environment and not is_environment(environment):
            raise MisuseError("environment: 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit")
        with self._server.changing() as memory:
            home = environment or memory.account(self._default).environment
            return memory.mint(home, scopes).credentials

    def rotate_key(self, credentials: Credentials | None = None, *, overlap: bool = True) -> Credentials:
        """Give the token (without one: the first) a fresh key and return it; open streams go on.

        ``overlap``: the keys before it stay valid, and are what is sealed under for clients that hold no newer one,
        until ``retire_keys`` or a rotation without overlap.
        """
        with self._server.changing() as memory:
            return memory.put(self._find(credentials).rekeyed(overlap=overlap)).credentials

    def retire_keys(self, credentials: Credentials | None = None) -> None:
        """End the overlap: only the newest key of the token stays valid."""
        with self._server.changing() as memory:
            memory.put(self._find(credentials).retired())

    def revoke(self, credentials: Credentials | None = None) -> None:
        """Revoke the token (without one: the first): it is refused with 401, and its streams end."""
        with self._server.changing() as memory:
            account = self._find(credentials)
            memory.revoke(account)
            self._server.end(lambda stream: stream.account.id == account.id)

    # Trouble

    @property
    def base_only(self) -> bool:
        """Whether only the base protocol is spoken; may be set, and counts for later requests.

        Then there is no state-first watch (404), no sealed format 2 and no minimum revision.
        """
        return self._server.routes.base_only

    @base_only.setter
    def base_only(self, value: bool) -> None:
        with self._server.lock:
            self._server.routes.base_only = value

    def fail(
        self,
        status: int | None,
        *,
        times: int | None = None,
        for_: Route | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Refuse requests with ``status`` from now on, the next ``times`` only if given; None: no longer.

        ``for_``: only those that open a stream ("watch"), or only the others ("get"). ``retry_after``: whole
        seconds for the header of that name. A later call replaces an earlier one. Streams that are open stay open; see
        ``cut``.
        """
        asked = failure(status, times, for_, retry_after)
        with self._server.changing():
            self._server.failure = asked

    def cut(self) -> None:
        """Reset every connection, streams and others, and return when they are gone. New ones are accepted."""
        with self._server.lock:
            self._server.cut()

    def backup(self) -> Backup:
        """Return everything that is held now, for ``restore``."""
        with self._server.lock:
            return self._server.memory.backup()

    def restore(self, backup: Backup) -> None:
        """Hold what ``backup`` holds again, under a new epoch, as after a disaster; every stream ends.

        Tokens and keys are those of the backup too.
        """
        with self._server.changing() as memory:
            memory.restore(backup)
            self._server.journal.forget_sent()
            self._server.end(lambda stream: True)

    # Looking

    @property
    def requests(self) -> list[RecordedRequest]:
        """What was asked, in order, and how it was answered: the newest 10,000."""
        with self._server.lock:
            return list(self._server.journal.requests)

    @property
    def epoch(self) -> str:
        """The epoch of the service's history: another one after each ``restore``."""
        with self._server.lock:
            return self._server.memory.epoch

    @property
    def revision(self) -> int:
        """The newest revision."""
        with self._server.lock:
            return self._server.memory.revision

    @property
    def watchers(self) -> int:
        """How many streams are open."""
        with self._server.lock:
            return len(self._server.streams)

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
        key, sent = self._key(name, environment, label), self._server.journal.sent
        self.wait_until(
            lambda: (sent(key) or 0) >= version,
            timeout,
            lambda: f"{key}: version {sent(key) or 'none'} is the newest that was sent, not {version}",
        )

    def wait_until(
        self, condition: Callable[[], bool], timeout: float = 5.0, explain: Callable[[], str] | None = None
    ) -> None:
        """Wait until ``condition`` holds; it is looked at after everything that happens at the service.

        Raises TimeoutError with what ``explain`` says.
        """
        with self._server.lock:
            if not self._server.lock.wait_for(condition, timeout):
                raise TimeoutError(
                    f"after {timeout:g} s {explain() if explain else 'what was waited for has not happened'}; "
                    f"{len(self._server.journal.requests)} requests came so far"
                )

    def _find(self, credentials: Credentials | None) -> Account:
        memory = self._server.memory
        if credentials is None:
            account: Account | None = memory.account(self._default)
        else:
            account = memory.authenticate(credentials.token)
        if account is None or account.revoked:
            raise MisuseError("these credentials are of no valid token of this service: unknown, or revoked already")
        return account

    def _key(self, name: str, environment: str, label: str) -> ConfigKey:
        with self._server.lock:
            home = self._server.memory.account(self._default).environment
        return config_key(name, environment or home, label or DEFAULT_LABEL)
