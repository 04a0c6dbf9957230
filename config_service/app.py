"""The composition root: settings in, an ASGI application out. Knows every part by its concrete class, and does no work.

``create_app`` is for any ASGI server; ``server.run`` is the one that the service is operated with.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Final

from .activation import Activator
from .api.access import log_access
from .api.answers import Answer, EncodedAnswer, Receive, Scope, Send
from .api.freshness import refresh_for
from .api.guard import Guard, RequestLimits
from .api.peers import Peers
from .api.service import PREFIX, ServiceApi
from .api.tally import RequestTally
from .auditing import Auditor
from .build import service_version
from .commits import Commits
from .delivery.feed import Feed
from .delivery.following import Follower
from .delivery.hub import Hub
from .delivery.reaching import Reaching
from .delivery.running import Running
from .delivery.schemas import Schemas
from .delivery.sealed import Payloads
from .delivery.states import StateFrames
from .domain.errors import HistoryReplacedError, NotFoundError, ServiceError, UnavailableError
from .logs import describe_failure, log_event
from .operations import Operations
from .readiness import Readiness, StoreChecks
from .security.admission import Admission
from .security.at_rest import Vault
from .security.tokens import TokenRegistry
from .settings import Settings
from .store.protocol import ConfigStore
from .store.urls import create_store
from .telemetry.measured_store import StoreTally, measured
from .telemetry.metrics import ChangeTally, Metrics
from .telemetry.tracing import find_tracing
from .unlocking import KeyHolder

if TYPE_CHECKING:
    from fastapi import FastAPI

_HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""What is answered whether or not the service can serve."""
_logger = logging.getLogger("config_service")


def utc_now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(timezone.utc)


def create_app(
    settings: Settings,
    store: ConfigStore | None = None,
    clock: Callable[[], datetime] = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
) -> Application:
    """Return the service as an ASGI application; nothing is opened before it starts.

    ``store`` replaces the store that ``settings.store_url`` names. ``clock`` tells the time of day, ``monotonic``
    counts seconds.
    """
    return Application(settings, store or create_store(settings.store_url), clock, monotonic)


def is_shared(settings: Settings) -> bool:
    """Tell whether several processes may serve the store of ``settings``. Raises StoreError when there is none."""
    return create_store(settings.store_url).shared


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Operations]:
    """Open the store of ``settings`` without serving it, for ``init`` and repairs. Raises what ``start`` raises."""
    application = create_app(settings)
    await application.start()
    try:
        yield application.operations
    finally:
        await application.stop()


class Application:
    """The whole service on one event loop. Its life: ``start``, requests, ``end_streams``, ``stop``."""

    def __init__(
        self,
        settings: Settings,
        store: ConfigStore,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        vault = Vault(*settings.all_master_keys())
        running, schemas, registry = Running(), Schemas(), TokenRegistry()
        store_tally = StoreTally(monotonic)
        tracing = find_tracing()
        # Waiting for a change is no work of the store, and would look like much of it.
        followed, store = store, measured(store, store_tally, tracing)
        self._store = store
        self._vault = vault
        payloads = Payloads()
        self._hub = Hub(
            clock=clock,
            queue_frames=settings.queue_frames,
            heartbeat_interval=settings.heartbeat_interval,
            watch_heartbeat_interval=settings.watch_heartbeat_interval,
            spans=tracing,
        )
        self._keys = KeyHolder(store, vault, clock)
        changes = ChangeTally(clock)
        self._feed = Feed(
            store=store,
            vault=vault,
            keys=self._keys,
            running=running,
            schemas=schemas,
            tokens=registry,
            hub=self._hub,
            observe=changes,
        )
        self._reaching = Reaching(self._feed)
        auditor = Auditor(vault=vault, registry=registry, epoch=lambda: self._feed.position.epoch)
        self._commits = Commits(store, self._feed, auditor, self._keys)
        self.activator = Activator(schedules=running.schedules, commits=self._commits, feed=self._feed, clock=clock)
        """Makes versions run when their moment has come."""
        self._follower = (
            Follower(followed, self._feed, interval=settings.poll_interval, monotonic=monotonic)
            if followed.shared
            else None
        )
        self.operations = Operations(
            store=store,
            vault=vault,
            running=running,
            schemas=schemas,
            registry=registry,
            admission=Admission(
                registry=registry,
                clock=clock,
                monotonic=monotonic,
                rate=settings.rate_limit,
                burst=settings.rate_burst,
                failures=settings.auth_failures,
            ),
            payloads=payloads,
            feed=self._feed,
            keys=self._keys,
            commits=self._commits,
            hub=self._hub,
            reaching=self._reaching,
            states=StateFrames(payloads=payloads, registry=registry, clock=clock),
            clock=clock,
            max_document_bytes=settings.max_document_bytes,
        )
        self._service = ServiceApi(self.operations)
        self.readiness: Final = Readiness()
        """Why requests should go elsewhere; further parts of the service may add checks of their own."""
        self._store_checks = StoreChecks(self._ask_store, store_tally, monotonic)
        self._add_checks()
        requests = RequestTally()
        self.metrics: Final = Metrics(
            requests=requests,
            store=store_tally,
            changes=changes,
            hub=self._hub,
            feed=self._feed,
            running=running,
            payloads=payloads,
            tokens=registry,
            log_age=lambda: 0.0 if self._follower is None else self._follower.behind,
            reasons=self.readiness.reasons,
            clock=clock,
        )
        """What the service measures of itself."""
        self._metrics_token = settings.metrics_token
        limits = RequestLimits(settings.max_target_bytes, settings.max_header_bytes, settings.max_headers)
        self._guard = Guard(
            self._dispatch,
            Peers(settings.trusted_networks()),
            limits,
            self._answer_at_once,
            observers=(log_access, requests),
            tracing=tracing,
        )
        self._heartbeats: asyncio.Task[None] | None = None
        self._activations: asyncio.Task[None] | None = None
        self._stopping = False
        self._following: asyncio.Task[None] | None = None
        self.ready = False
        """Whether configs are served now."""
        self.replaced: HistoryReplacedError | None = None
        """Set once the store holds another history than the one that is served: this application has to end."""
        self.when_replaced: Callable[[], None] = _do_nothing
        """Called at that moment."""

    @property
    def staleness(self) -> str | None:
        """Why what is served may be old, in a sentence; None while it is what the store says."""
        if self.replaced is not None:
            return "the store holds another history than the one served here"
        return None if self._follower is None else self._follower.problem

    def _add_checks(self) -> None:
        checks = self._store_checks
        self.readiness.add("start", lambda: "it is starting" if self._heartbeats is None else None)
        self.readiness.add("stop", lambda: "it is stopping" if self._stopping else None)
        self.readiness.add("store", checks.reachable, self._look_at_store)
        self.readiness.add("commits", checks.writable)
        self.readiness.add("history", lambda: self.staleness)

    async def _ask_store(self) -> None:
        await self._store.position()

    async def _look_at_store(self) -> None:
        if self.ready:
            await self._store_checks.look()

    @cached_property
    def web(self) -> FastAPI:
        """The management API, health and metrics, made when first asked for: by servers at once, by repairs never.

        The framework takes a third of a start.
        """
        from .api.web import build_web  # noqa: PLC0415

        return build_web(self.operations, self.readiness, self.metrics.render, self._metrics_token)

    async def start(self) -> None:
        """Open the store, check the master key and load what is served.

        Raises WrongMasterKeyError or another StoreError; then the store is closed again.
        """
        try:
            await self._store.open()
            await self._keys.unlock()
            await self._feed.start()
            # What came due while no process was there; a store that takes no changes is served as it is.
            await self.activator.activate_due()
        except BaseException:
            await self._store.close()
            raise
        self._heartbeats = asyncio.create_task(self._hub.beat_forever())
        self._activations = asyncio.create_task(self.activator.run_forever())
        self.ready, self._stopping = True, False
        if self._follower is not None:
            self._following = asyncio.create_task(self._follow(self._follower))
        here = self._feed.position
        log_event(
            _logger,
            logging.INFO,
            "ready",
            "version %s serves revision %d of epoch %s",
            service_version(),
            here.revision,
            here.epoch,
            version=service_version(),
            epoch=here.epoch,
            revision=here.revision,
        )

    def count_streams(self) -> int:
        """Return how many streams are open."""
        return len(self._hub)

    def end_streams(self) -> None:
        """End every stream at once and take no more; other requests are still answered."""
        if self.ready:
            log_event(
                _logger, logging.INFO, "stopping", "stopping; %d streams end", len(self._hub), streams=len(self._hub)
            )
        self.ready, self._stopping = False, True
        self._hub.close()

    async def stop(self) -> None:
        """End what is left, see every commit through, and close the store."""
        self.end_streams()
        for task in (self._heartbeats, self._activations):
            if task is not None:
                task.cancel()
        self._reaching.close()
        self._store_checks.close()
        await self._commits.drain()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        await self._store.close()
        log_event(_logger, logging.INFO, "stopped", "stopped")

    async def _follow(self, follower: Follower) -> None:
        try:
            await follower.run()
        except HistoryReplacedError as error:
            _logger.critical("%s", error)
            self.replaced = error
            self.end_streams()
            self.when_replaced()

    def answer_at_once(self, scope: Scope) -> EncodedAnswer | None:
        """Return what a call would answer, with all headers, if that takes no waiting; else None: nothing has happened.

        For servers that can write an answer where they have read the request: no task, no messages.
        """
        return self._guard.answer_at_once(scope)

    def note_refusal(self, error: ServiceError, answer: Answer, client: tuple[str, int] | None) -> tuple[bytes, bytes]:
        """Log and count ``answer``, by which the server refused what never became a request.

        Returns the header that names its id.
        """
        return self._guard.note_refusal(error, answer, client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through a server's lifespan (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._guard(scope, receive, send)

    def _answer_at_once(self, scope: Scope) -> EncodedAnswer | None:
        serves = self._heartbeats is not None and self.replaced is None
        return self._service.answer_at_once(scope) if serves else None

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes = scope["raw_path"]
        if self._heartbeats is None and scope["path"] not in _HEALTH_PATHS:
            raise UnavailableError("the service is starting")
        if self.replaced is not None and scope["path"] not in _HEALTH_PATHS:
            raise UnavailableError("the service has to start again")
        if self._follower is not None and scope["path"] not in _HEALTH_PATHS:
            await refresh_for(self.operations, scope)
        if raw.startswith(PREFIX) and raw[len(PREFIX) : len(PREFIX) + 1] in {b"", b"/"}:
            await self._serve(scope, receive, send)
        else:
            await self.web(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._service(scope, receive, send)
        except NotFoundError:
            # Nothing was sent. Another process may have published it a moment ago.
            if self._follower is None or not await self.operations.hear():
                raise
            await self._service(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
            _ = self.web
        except ServiceError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        except Exception as error:
            # Not raised: a server would log its text, which may hold a secret.
            await send({"type": "lifespan.startup.failed", "message": describe_failure(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self.stop()
        except Exception as error:
            await send({"type": "lifespan.shutdown.failed", "message": describe_failure(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def _do_nothing() -> None:
    """Nobody is to be told."""
