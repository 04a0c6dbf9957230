"""``AsyncConfigClient``: what ``ConfigClient`` is, on an event loop of asyncio. Thin; no rule stands here."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import TypeVar

import httpx

from ._aio_driver import TaskDriver
from ._aio_subscribing import follow, subscribe
from ._aio_transport import AsyncTransport
from ._desk import EventDesk
from ._first_value import Terms
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
from ._session import cache_of, policy_of
from ._tasks import TaskSession
from .decode import attempt, decoder
from .errors import ConfigClientError, UnmarshalError
from .options import GetOptions, Options
from .protocol import CONFIGS_PATH, config_path, formatted_path, parse_config_list
from .snapshot import Snapshot
from .status import Status
from .subscription import Subscription
from .types import ConfigChangeEvent, ConfigInfo, Format
from .watching import EventWatch

__all__ = ["AsyncConfigClient"]

T = TypeVar("T")


class AsyncConfigClient:
    """A client of one service as one token, on one event loop of asyncio.

        async with AsyncConfigClient.from_env() as client:
            config = await client.get("orders", OrdersConfig)
            live = await client.subscribe("orders", OrdersConfig)

    The names, arguments, errors and rules are those of ConfigClient. In a forked child the values stay as they are,
    and the stream goes on with the next method that is awaited there, ``resume`` for one.
    """

    def __init__(self, opts: Options) -> None:
        if isinstance(opts.http_client, httpx.Client):
            raise ConfigClientError("http_client is a Client: give an httpx.AsyncClient, or use ConfigClient")
        self._options = opts
        self._keyring = keyring_of(opts)
        self._opener = Opener(self._keyring, require_bound=opts.require_bound)
        self._horizon = Horizon()
        client = opts.http_client if isinstance(opts.http_client, httpx.AsyncClient) else None
        self._transport = AsyncTransport(
            opts.host, opts.service_token, opts.request_timeout, opts.retry_count, opts.retry_delay, client
        )
        cache = cache_of(opts, self._keyring)
        self._session = TaskSession(opts, self._transport, self._opener, cache, self._horizon)
        self._forked = False
        survive_forks(self)

    @classmethod
    def from_env(
        cls,
        *,
        on_error: Callable[[Exception], object] | None = None,
        on_change: Callable[[str], object] | None = None,
    ) -> AsyncConfigClient:
        """Return a client for the variables that ``ConfigClient.from_env`` reads. Raises ConfigClientError."""
        return cls(options_from_env(on_error, on_change))

    def __repr__(self) -> str:
        return f"AsyncConfigClient({self._options.host!r})"

    async def __aenter__(self) -> AsyncConfigClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every watch, subscription and request, within 100 ms, and close what this client owns. Idempotent."""
        await self._transport.aclose()
        self._session.close()
        await self._session.settle()

    async def resume(self) -> None:
        """Go on in a forked child: open the stream of the subscriptions anew. Does nothing anywhere else."""
        self._present()

    @property
    def status(self) -> Status:
        """How the connection of the subscriptions stands; INITIALIZING as long as there was none."""
        return self._session.status

    async def get(self, config_name: str, target_type: type[T], opts: GetOptions | None = None) -> T:
        """As ``ConfigClient.get``."""
        value = attempt(decoder(target_type), await self.get_bytes(config_name, opts))
        if isinstance(value, UnmarshalError):
            raise value
        return value

    async def get_raw(self, config_name: str, opts: GetOptions | None = None) -> dict[str, object]:
        """As ``ConfigClient.get_raw``."""
        return await self.get(config_name, dict, opts)

    async def get_bytes(self, config_name: str, opts: GetOptions | None = None) -> bytes:
        """As ``ConfigClient.get_bytes``."""
        reading = Reading(self._opener, self._horizon, config_name, opts)
        response = await self._present().fetch(config_path(config_name), reading.query, reading.headers)
        return reading.document(response.headers, response.content)

    async def get_formatted(self, config_name: str, fmt: Format, opts: GetOptions | None = None) -> bytes:
        """As ``ConfigClient.get_formatted``."""
        check_name(config_name)
        response = await self._present().fetch(formatted_path(config_name), format_query(fmt, opts))
        check_export(config_name, response.headers.get("Content-Type", ""))
        return response.content

    async def list(self) -> builtins.list[ConfigInfo]:
        """As ``ConfigClient.list``."""
        return parse_config_list((await self._present().fetch(CONFIGS_PATH)).content)

    async def subscribe(
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
        """As ``ConfigClient.subscribe``; all subscriptions share one task, and ``pre_apply`` may be asynchronous.

        Call nothing that blocks in the callbacks of the snapshot: they run on the event loop.
        """
        query = watchable(config_name, opts)
        check_timeout(timeout)
        self._present()
        keeper = self._session.keep(
            config_name, query, target_type, snapshot, pre_apply, patient=not required or default is not None
        )
        terms = Terms(timeout, required and default is None, allow_stale, default)
        return await subscribe(self._session, keeper, terms)

    async def watch(
        self,
        config_name: str,
        callback: Callable[[ConfigChangeEvent], object],
        opts: GetOptions | None = None,
    ) -> None:
        """As ``ConfigClient.watch``; returns after ``close``, or when its task is cancelled."""
        query = watchable(config_name, opts)
        check_callback(callback)
        watch = EventWatch(policy_of(self._options), config_name, everywhere="environment" not in query)
        desk = EventDesk(self._options, config_name, query, callback)
        transport = self._present()
        await TaskDriver(transport, self._opener, desk, self._options.heartbeat_interval).run(watch.run())

    async def watch_and_decode(
        self, config_name: str, target_type: type[T], snapshot: Snapshot[T], opts: GetOptions | None = None
    ) -> None:
        """As ``ConfigClient.watch_and_decode``; returns after ``close``, or when its task is cancelled."""
        query = watchable(config_name, opts)
        if self._present().closed:
            return
        await follow(self._session, self._session.keep(config_name, query, target_type, snapshot, None, patient=False))

    def _present(self) -> AsyncTransport:
        """Return the transport of this process, going on with the subscriptions if it was forked."""
        if self._forked:
            self._forked = False
            self._session.go_on_in_child()
        return self._transport

    def _go_on_in_child(self) -> None:
        """Let go of what is the parent's; no event loop runs here yet on which to go on."""
        self._transport.abandon()
        self._forked = not self._transport.closed
