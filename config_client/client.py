"""``ConfigClient``: the composition of transport, keyring, decoding and watching. Thin; no rule stands here."""

from __future__ import annotations

import builtins
import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import httpx

from ._forks import survive_forks
from ._horizon import Horizon
from ._opening import Opener
from ._requests import (
    Reading,
    check_callback,
    check_export,
    check_name,
    check_timeout,
    format_query,
    keyring_of,
    options_from_env,
    watchable,
)
from .errors import ConfigClientError, UnmarshalError
from .options import GetOptions, Options
from .protocol import CONFIGS_PATH, config_path, formatted_path, parse_config_list
from .transport import Transport

if TYPE_CHECKING:
    from ._threads import ThreadSession
    from .snapshot import Snapshot
    from .status import Status
    from .subscription import Subscription
    from .types import ConfigChangeEvent, ConfigInfo, Format

__all__ = ["ConfigChangeEvent", "ConfigClient", "ConfigInfo", "Format", "GetOptions", "Options", "Snapshot"]

T = TypeVar("T")


def __getattr__(name: str) -> object:
    """Import what may be had from here too, but what this module does not need to run, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    value: object = getattr(import_module(__package__), name)
    globals()[name] = value
    return value


class ConfigClient:
    """A client of one service as one token. Safe to share between threads, and to carry over a fork.

        with ConfigClient.from_env() as client:
            config = client.get("orders", OrdersConfig)
            live = client.subscribe("orders", OrdersConfig)

    Every method raises ClosedError after ``close``, except the watches, which return. All of them may raise
    UnauthorizedError, ForbiddenError, NotFoundError, InvalidResponseError and ConnectionError. A client with
    subscriptions keeps its thread and its connection until it is closed, also when nothing else refers to it.
    """

    def __init__(self, opts: Options) -> None:
        if isinstance(opts.http_client, httpx.AsyncClient):
            raise ConfigClientError("http_client is an AsyncClient: give an httpx.Client, or use AsyncConfigClient")
        self._options = opts
        self._keyring = keyring_of(opts)
        self._opener = Opener(self._keyring, require_bound=opts.require_bound)
        self._horizon = Horizon()
        self._transport = Transport(
            opts.host, opts.service_token, opts.request_timeout, opts.retry_count, opts.retry_delay, opts.http_client
        )
        self._session: ThreadSession | None = None
        self._making = threading.Lock()
        survive_forks(self)

    @classmethod
    def from_env(
        cls,
        *,
        on_error: Callable[[Exception], object] | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> ConfigClient:
        """Return a client for ``CONFIG_SERVICE_HOST``, ``CONFIG_SERVICE_TOKEN`` and ``CONFIG_SERVICE_KEY``.

        ``CONFIG_SERVICE_CACHE=off`` keeps nothing on disk; ``CONFIG_SERVICE_CACHE_DIR`` says where else to. The
        callbacks are those of ``Options``. Raises ConfigClientError, which names what is missing.
        """
        return cls(options_from_env(on_error, on_change))

    def __repr__(self) -> str:
        return f"ConfigClient({self._options.host!r})"

    def __enter__(self) -> ConfigClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every watch, subscription and request, within 100 ms, and close what this client owns. Idempotent."""
        self._transport.close()
        if self._session is not None:
            self._session.close()

    @property
    def status(self) -> Status:
        """How the connection of the subscriptions stands; INITIALIZING as long as there was none."""
        return self._shared().status

    def get(self, config_name: str, target_type: type[T], opts: GetOptions | None = None) -> T:
        """Return the config decoded into ``target_type``: ``dict``, a dataclass or a pydantic model.

        Raises DecryptionError, and UnmarshalError when the document does not fit or the type is not supported.
        """
        from .decode import attempt, decoder  # noqa: PLC0415 - loaded by those who decode

        value = attempt(decoder(target_type), self.get_bytes(config_name, opts))
        if isinstance(value, UnmarshalError):
            raise value
        return value

    def get_raw(self, config_name: str, opts: GetOptions | None = None) -> dict[str, object]:
        """Return the config as the dict that its JSON object spells. Raises DecryptionError and UnmarshalError."""
        return self.get(config_name, dict, opts)

    def get_bytes(self, config_name: str, opts: GetOptions | None = None) -> bytes:
        """Return the JSON bytes exactly as they were published, not parsed. Raises DecryptionError.

        The answer is never older than what this client has seen of the config before.
        """
        reading = Reading(self._opener, self._horizon, config_name, opts)
        response = self._transport.fetch(config_path(config_name), reading.query, reading.headers)
        return reading.document(response.headers, response.content)

    def get_formatted(self, config_name: str, fmt: Format, opts: GetOptions | None = None) -> bytes:
        """Return the config in plaintext, rendered by the service; the token needs the right ``export``.

        Raises InvalidResponseError when the document has no faithful form in ``fmt``.
        """
        check_name(config_name)
        response = self._transport.fetch(formatted_path(config_name), format_query(fmt, opts))
        check_export(config_name, response.headers.get("Content-Type", ""))
        return response.content

    def list(self) -> builtins.list[ConfigInfo]:
        """Return a row for every config that the token may read."""
        return parse_config_list(self._transport.fetch(CONFIGS_PATH).content)

    def subscribe(
        self,
        config_name: str,
        target_type: type[T],
        opts: GetOptions | None = None,
        *,
        timeout: float = 10.0,
        required: bool = True,
        allow_stale: bool = True,
        default: T | None = None,
        pre_apply: Callable[[T], object] | None = None,
        snapshot: Snapshot[T] | None = None,
    ) -> Subscription[T]:
        """Keep a config current in the background; return as soon as its first value is there.

        All subscriptions share one daemon thread and one stream, which each new one opens anew: to subscribe to
        hundreds, do so with ``timeout=0, required=False``, and wait for the snapshots then.

        ``timeout``: seconds to wait for the first value; 0 does not wait. While the service cannot be reached, the last
        good value from the disk serves, unless ``allow_stale`` is False. With ``default`` that value is in place until
        there is another; with ``required`` False the subscription may begin empty, and a config that was never
        published may come later. Either way an error that is final, such as a 401, is not raised but ends the
        subscription: its status is STOPPED, with the error.

        ``pre_apply(value)`` is called before each swap, on the watching thread; when it raises or returns False, the
        old value stays, and the status says why. ``snapshot``: one of your own to keep current.

        Raises UnmarshalError at once when ``target_type`` is not supported; without a first value, the error that
        says why: UnauthorizedError, ForbiddenError, NotFoundError, DecryptionError, UnmarshalError, RefusedError, or
        ConnectionError.
        """
        from ._subscribing import subscribe  # noqa: PLC0415 - loaded by those who watch

        check_timeout(timeout)
        if inspect.iscoroutinefunction(pre_apply):
            raise ConfigClientError("pre_apply is asynchronous: use AsyncConfigClient, or a plain function")
        query = watchable(config_name, opts)
        patient = not required or default is not None
        session = self._shared()
        return subscribe(
            session,
            session.keep(config_name, query, target_type, snapshot, pre_apply, patient=patient),
            timeout=timeout,
            required=required,
            allow_stale=allow_stale,
            default=default,
        )

    def watch(
        self,
        config_name: str,
        callback: Callable[[ConfigChangeEvent], object],
        opts: GetOptions | None = None,
    ) -> None:
        """Block, and call ``callback`` for every change of the config; return after ``close``.

        Without an environment in ``opts`` the changes of every environment count that the token may read. Changes
        that happen while the connection is down are told of after it is up again. A callback that raises is logged by
        type, and the watch goes on. Raises the error that is final (``Options.final_errors``).
        """
        query = watchable(config_name, opts)
        check_callback(callback)
        from ._watches import tell_changes  # noqa: PLC0415 - loaded by those who watch

        tell_changes(self._options, self._transport, self._opener, config_name, query, callback)

    def watch_and_decode(
        self, config_name: str, target_type: type[T], snapshot: Snapshot[T], opts: GetOptions | None = None
    ) -> None:
        """Block, and keep ``snapshot`` current: filled at once, then swapped at every change; return after ``close``.

        This is ``subscribe`` for a thread that has nothing else to do. A document that cannot be opened or decoded
        leaves the value in place and goes to ``on_error``; so does a deletion. Raises the error that is final
        (``Options.final_errors``), and UnmarshalError at once when the type is not supported.
        """
        query = watchable(config_name, opts)
        if self._transport.closed:
            return
        from ._subscribing import follow  # noqa: PLC0415 - loaded by those who watch

        session = self._shared()
        follow(session, session.keep(config_name, query, target_type, snapshot, None, patient=False))

    def _shared(self) -> ThreadSession:
        """Return the session of all subscriptions."""
        if self._session is None:
            from ._subscribing import thread_session  # noqa: PLC0415 - loaded by those who watch

            session = thread_session(self._options, self._transport, self._opener, self._keyring, self._horizon)
            with self._making:
                if self._session is None:
                    self._session = session
            if self._transport.closed:
                self._session.close()
        return self._session

    def _go_on_in_child(self) -> None:
        """Begin anew in a forked child: no connection, thread or lock of the parent is touched."""
        self._making = threading.Lock()
        self._transport.abandon()
        if self._session is not None and not self._transport.closed:
            self._session.go_on_in_child()
