"""The composition root: start, readiness, lifespan, stop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config_service.app import create_app, opened, utc_now
from config_service.domain.errors import StoreCorruptError, StoreLockedError, UnauthenticatedError, WrongMasterKeyError
from config_service.settings import Settings

pytestmark = pytest.mark.anyio
CANARY = "canary-20c9"


async def test_a_wrong_master_key_is_refused_before_anything_is_served(service: Any, start: Any) -> None:
    """The store is closed again, untouched, and opens with the right key."""
    await service.publish("orders")
    entries = list(service.store.entries)
    wrong = Settings.load(master_key="00" * 32)
    app = create_app(wrong, service.store)
    with pytest.raises(WrongMasterKeyError):
        await app.start()
    assert service.store.opened == 0
    assert service.store.entries == entries
    assert not app.ready
    again = await start()
    assert again.app.ready


async def test_a_store_that_cannot_be_opened_is_told_as_it_is(store: Any, settings: Any) -> None:
    """Locked or damaged: the typed error passes."""
    store.fail_reads = StoreLockedError("another process holds it")
    with pytest.raises(StoreLockedError):
        await create_app(settings, store).start()


async def test_a_damaged_document_stops_the_start_and_closes_the_store(service: Any, settings: Any) -> None:
    """The config and version are named."""
    await service.publish("orders")
    (versions,) = service.store.held.values()
    versions[0] = replace(versions[0], document=b"damaged")
    with pytest.raises(StoreCorruptError, match=r"orders .* version 1"):
        await create_app(settings, service.store).start()
    assert service.store.opened == 0


async def test_health_and_readiness_follow_the_life_of_the_service(service: Any, settings: Any) -> None:
    """Alive all the time, ready between start and stop; other requests are 503 before the start."""
    http = service.client(service.admin)
    for method in ("GET", "HEAD"):
        for path in ("/healthz", "/readyz"):
            assert (await http.request(method, path)).status_code == 200
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    service.app.end_streams()
    assert (await http.get("/healthz")).status_code == 200
    stopping = await http.get("/readyz")
    assert (stopping.status_code, stopping.json()["error"]["code"]) == (503, "not_ready")
    service.app = create_app(settings, service.store)
    early = service.client(service.admin)
    for path, status in (("/healthz", 200), ("/readyz", 503), ("/api/v1/service/configs", 503)):
        response = await early.get(path)
        assert response.status_code == status
    assert response.headers["retry-after"]


async def test_a_stopping_service_answers_but_takes_no_streams(service: Any) -> None:
    """Requests under way are finished; a watcher is told to come back."""
    await service.publish("orders")
    subscription = service.operations.streams.subscribe(service.admin.token, "orders")
    service.app.end_streams()
    http = service.client(service.admin)
    assert subscription.ended is not None
    assert (await http.get("/api/v1/service/configs/orders")).status_code == 200
    watch = await http.get("/api/v1/service/configs/orders/watch")
    assert watch.status_code == 503
    assert watch.headers["retry-after"]


async def test_a_stop_sees_commits_through(service: Any) -> None:
    """The store is closed only when what was begun is durable."""
    service.store.gate.clear()
    service.store.held_up.clear()
    publishing = asyncio.create_task(service.publish("orders"))
    await service.store.held_up.wait()
    stopping = asyncio.create_task(service.app.stop())
    await asyncio.sleep(0)
    assert service.store.opened == 1
    service.store.gate.set()
    await stopping
    assert await publishing == 1
    assert service.store.opened == 0


class Host:
    """A server that speaks the lifespan protocol."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def tell(self, event: str) -> dict[str, Any]:
        await self.events.put({"type": event})
        return await asyncio.wait_for(self.answers.get(), 5)


async def test_other_servers_start_and_stop_it_by_lifespan(store: Any, settings: Any) -> None:
    """The ASGI lifespan protocol, in order."""
    app, host = create_app(settings, store), Host()
    living = asyncio.create_task(app({"type": "lifespan"}, host.events.get, host.answers.put))
    assert (await host.tell("lifespan.startup"))["type"] == "lifespan.startup.complete"
    assert app.ready
    assert (await host.tell("lifespan.shutdown"))["type"] == "lifespan.shutdown.complete"
    assert not app.ready
    await living


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (StoreLockedError("another process holds it"), "another process holds it"),
        (RuntimeError(CANARY), "RuntimeError"),
    ],
)
async def test_a_failed_start_is_told_by_lifespan(store: Any, settings: Any, failure: Exception, told: str) -> None:
    """The sentence of a typed error; of anything else only type and place."""
    store.fail_reads = failure
    host = Host()
    living = asyncio.create_task(create_app(settings, store)({"type": "lifespan"}, host.events.get, host.answers.put))
    answer = await host.tell("lifespan.startup")
    assert answer["type"] == "lifespan.startup.failed"
    assert told in answer["message"]
    assert CANARY not in answer["message"]
    await living


async def test_a_failed_stop_is_told_by_lifespan(store: Any, settings: Any) -> None:
    """By type and place."""
    app, host = create_app(settings, store), Host()
    living = asyncio.create_task(app({"type": "lifespan"}, host.events.get, host.answers.put))
    await host.tell("lifespan.startup")

    async def failing() -> None:
        raise RuntimeError(CANARY)

    store.close = failing
    answer = await host.tell("lifespan.shutdown")
    assert answer["type"] == "lifespan.shutdown.failed"
    assert CANARY not in answer["message"]
    await living


async def test_operations_can_be_opened_without_serving(tmp_path: Path) -> None:
    """On the real store of the settings, as `init` does; closed at the end."""
    settings = Settings.load(master_key="5a" * 32, store_url=f"sqlite:///{tmp_path / 'x.db'}")
    async with opened(settings) as operations:
        minted = await operations.tokens.bootstrap("admin")
    async with opened(settings) as operations:
        assert operations.authenticate(minted.secret).name == "admin"
        with pytest.raises(UnauthenticatedError):
            operations.authenticate("cst_other")


async def test_the_clock_is_aware_and_in_utc() -> None:
    """Timestamps of versions are compared across machines."""
    assert utc_now().utcoffset().total_seconds() == 0  # type: ignore[union-attr]
