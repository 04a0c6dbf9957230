"""Readiness tells why not, without a token and without a secret; it recovers by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from config_service.domain.errors import StoreError, StoreFullError
from config_service.readiness import PROBE_EVERY, WRITE_FAILURE_COUNTS, Readiness, StoreChecks
from config_service.telemetry.measured_store import StoreTally

pytestmark = pytest.mark.anyio
CANARY = "canary-77d0"


class Ticking:
    """Seconds, as the test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def reasons(service: Any) -> dict[str, str]:
    """What ``/readyz`` tells, by check."""
    answer = await service.client().get("/readyz")
    if answer.status_code == 200:
        assert answer.json() == {"status": "ok"}
        return {}
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    error = answer.json()["error"]
    assert error["code"] == "not_ready"
    assert CANARY not in answer.text
    told = {one["check"]: one["message"] for one in error["reasons"]}
    assert error["message"] == "the service is not ready: " + "; ".join(told.values())
    return told


async def test_a_store_that_cannot_be_read_is_a_reason_until_it_can(service: Any, monotonic: Ticking) -> None:
    """It is asked anew, but at most once a second."""
    service.app._store_checks._monotonic = monotonic
    assert await reasons(service) == {}
    service.store.position = failing(StoreError(CANARY))
    assert await reasons(service) == {}
    monotonic.now += PROBE_EVERY
    assert await reasons(service) == {"store": "the store of record cannot be read"}
    assert (await service.client().get("/healthz")).status_code == 200
    del service.store.position
    monotonic.now += PROBE_EVERY
    assert await reasons(service) == {}


async def test_a_full_disk_is_a_reason_until_a_commit_succeeds(service: Any) -> None:
    """Reads of the store go on meanwhile, and say nothing about it."""
    service.store.fail = StoreFullError(CANARY)
    with pytest.raises(StoreFullError):
        await service.publish("orders")
    assert await reasons(service) == {"commits": "the store of record had no space left for the latest change"}
    service.store.fail = StoreError(CANARY)
    with pytest.raises(StoreError):
        await service.publish("orders")
    assert await reasons(service) == {"commits": "the store of record failed at the latest change"}
    await service.publish("orders")
    assert await reasons(service) == {}


async def test_starting_and_stopping_are_reasons(service: Any, settings: Any, store: Any) -> None:
    """Each by its name."""
    from config_service.app import create_app

    service.app.end_streams()
    assert await reasons(service) == {"stop": "it is stopping"}
    service.app = create_app(settings, store)
    assert await reasons(service) == {"start": "it is starting"}


async def test_other_parts_add_checks_of_their_own(service: Any) -> None:
    """By name; the reasons are told in the order in which they were added."""
    told: list[str | None] = [None, "the log was not followed for 12 s"]
    service.app.readiness.add("log", lambda: told[1])
    service.app.readiness.add("none", lambda: told[0])
    assert await reasons(service) == {"log": "the log was not followed for 12 s"}
    told[1] = None
    assert await reasons(service) == {}


@pytest.fixture
def monotonic() -> Ticking:
    return Ticking()


def failing(error: Exception) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


async def test_a_failed_commit_counts_for_a_while_only(monotonic: Ticking) -> None:
    """Whoever is sent no requests makes no commit that could clear it."""
    tally = StoreTally(monotonic)
    checks = StoreChecks(failing(StoreError("x")), tally, monotonic)
    tally.note("commit_version", 0.1, StoreFullError("x"))
    tally.note("position", 0.1, None)
    assert checks.writable() is not None
    monotonic.now += WRITE_FAILURE_COUNTS
    assert checks.writable() is not None
    monotonic.now += 0.1
    assert checks.writable() is None


async def test_all_who_ask_at_once_wait_for_one_look(monotonic: Ticking) -> None:
    """A store that hangs is asked once, and who hangs up takes nobody with him."""
    asked, answered = [], asyncio.Event()

    async def ask() -> None:
        asked.append(1)
        await answered.wait()

    checks = StoreChecks(ask, StoreTally(monotonic), monotonic)
    readiness = Readiness()
    readiness.add("store", checks.reachable, checks.look)
    waiting = [asyncio.create_task(readiness.look()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    answered.set()
    assert await asyncio.gather(*waiting[1:]) == [{}, {}]
    assert asked == [1]
    assert await readiness.look() == {}
    assert asked == [1]


async def test_a_store_that_does_not_answer_cannot_be_read(monotonic: Ticking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness does not wait for it for ever."""
    monkeypatch.setattr("config_service.readiness.PROBE_TIMEOUT", 0.01)
    checks = StoreChecks(asyncio.Event().wait, StoreTally(monotonic), monotonic)
    await checks.look()
    assert checks.reachable() == "the store of record cannot be read"
    checks.close()
