"""Waiting on a subscription: by threads and by tasks, for a version, for the end, and never for oneself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from config_client import AsyncConfigClient, Change, ConfigClient, ConfigClientError, Snapshot, Subscription
from config_client.testing import InMemoryService

pytestmark = pytest.mark.integration

PATIENCE = 60.0

End = Callable[[InMemoryService, ConfigClient, Subscription[Any]], None]
ENDS: list[End] = [
    lambda service, client, subscription: subscription.close(),
    lambda service, client, subscription: client.close(),
    lambda service, client, subscription: service.revoke(),
]


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _published(config_server: InMemoryService) -> None:
    config_server.publish("orders", {"n": 1})


def waiting_in_thread(subscription: Subscription[Any], *arguments: Any) -> tuple[threading.Thread, list[bool]]:
    """Wait on a thread; return it when it waits, and what it will have been told."""
    told: list[bool] = []
    thread = threading.Thread(target=lambda: told.append(subscription.wait_for(*arguments)), daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not subscription.snapshot._waiters:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return thread, told


@pytest.mark.parametrize("end", ENDS, ids=["subscription", "client", "revoked"])
def test_a_wait_without_end_ends_with_its_subscription(config_server: InMemoryService, end: End) -> None:
    """A program that stops leaves no thread behind that waits for a version that cannot come any more."""
    with ConfigClient(config_server.options()) as client:
        orders = client.subscribe("orders", dict)
        thread, told = waiting_in_thread(orders, 2)
        end(config_server, client, orders)
        thread.join(PATIENCE)
        assert told == [False]
        assert orders.wait_for(2) is False
        assert orders.wait_for(1) is True


def test_the_end_of_a_subscription_ends_no_wait_on_a_snapshot_of_ones_own(config_server: InMemoryService) -> None:
    """Somebody else may go on to store there, so those who wait for the snapshot itself do wait."""
    snapshot: Snapshot[Any] = Snapshot()
    told: list[bool] = []
    with ConfigClient(config_server.options()) as client:
        orders = client.subscribe("orders", dict, snapshot=snapshot)
        thread = threading.Thread(target=lambda: told.append(snapshot.wait_for(2, PATIENCE)), daemon=True)
        thread.start()
        waiting, ended = waiting_in_thread(orders, 2, PATIENCE)
        orders.close()
        waiting.join(PATIENCE)
    assert ended == [False]
    assert told == []
    snapshot.store({"n": 2}, version=2)
    thread.join(PATIENCE)
    assert told == [True]


def test_a_callback_that_waits_for_the_next_version_is_told_that_it_cannot(config_server: InMemoryService) -> None:
    """It runs on the thread that brings the versions; what is there already needs no wait."""
    told: list[object] = []
    done = threading.Event()

    def note(change: Change[dict[str, Any]]) -> None:
        told.append(orders.wait_for(2))
        try:
            orders.wait_for(3)
        except ConfigClientError as error:
            told.append(str(error))
        done.set()

    with ConfigClient(config_server.options()) as client:
        orders = client.subscribe("orders", dict)
        orders.on_change(note)
        config_server.publish("orders", {"n": 2})
        assert done.wait(PATIENCE)
    assert told[0] is True
    assert "another thread" in str(told[1])


@pytest.mark.anyio
async def test_a_task_waits_without_blocking_its_loop(config_server: InMemoryService) -> None:
    """``until`` is ``wait_for`` for tasks; that one refuses to freeze the loop that brings the value."""
    async with AsyncConfigClient(config_server.options()) as client:
        orders = await client.subscribe("orders", dict)
        assert await orders.until()
        assert await orders.until(1, timeout=0)
        assert not await orders.until(2, timeout=0)
        assert not await orders.until(2, timeout=0.01)
        assert orders.wait_for(1)
        assert not orders.wait_for(2, timeout=0)
        with pytest.raises(ConfigClientError, match=r"until\(\)"):
            orders.wait_for(2)
        waiting = [asyncio.ensure_future(orders.until(version)) for version in (2, 3)]
        await asyncio.sleep(0)
        for number in (2, 3):
            config_server.publish("orders", {"n": number})
        assert await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE) == [True, True]
        assert orders.snapshot._waiters == []


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["subscription", "client", "revoked", "cancelled"])
async def test_a_task_that_waits_ends_with_its_subscription(config_server: InMemoryService, end: str) -> None:
    """As a thread does; and it may be cancelled, as anything that is awaited."""
    async with AsyncConfigClient(config_server.options()) as client:
        orders = await client.subscribe("orders", dict)
        waiting = asyncio.ensure_future(orders.until(2))
        await asyncio.sleep(0)
        match end:
            case "subscription":
                orders.close()
            case "client":
                await client.close()
            case "revoked":
                config_server.revoke()
            case _:
                waiting.cancel()
        await asyncio.wait({waiting}, timeout=PATIENCE)
        assert waiting.cancelled() if end == "cancelled" else waiting.result() is False
        assert orders.snapshot._waiters == []


@pytest.mark.anyio
async def test_a_snapshot_is_awaited_whoever_stores() -> None:
    """Another thread, for one; and a store long after the loop of a waiter has ended harms nobody."""
    snapshot: Snapshot[int] = Snapshot()
    waiting = asyncio.ensure_future(snapshot.until(2, PATIENCE))
    await asyncio.sleep(0)
    await asyncio.to_thread(snapshot.store, 1, version=1)
    assert not waiting.done()
    await asyncio.to_thread(snapshot.store, 2, version=2)
    assert await waiting

    def begin_and_leave() -> None:
        loop = asyncio.new_event_loop()
        abandoned = loop.create_task(snapshot.until(9))
        loop.run_until_complete(asyncio.sleep(0))
        kept.append(abandoned)
        loop.close()

    kept: list[asyncio.Task[bool]] = []
    await asyncio.to_thread(begin_and_leave)
    assert len(snapshot._waiters) == 1
    snapshot.store(9, version=9)
    kept[0]._log_destroy_pending = False  # type: ignore[attr-defined] # that it is never done is the point
