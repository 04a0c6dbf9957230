"""Two applications on one shared store: whoever asks one of them is answered with what was done through the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from config_service.delivery import following
from config_service.domain.errors import PreconditionFailedError, StoreError
from config_service.domain.keys import ConfigKey
from config_service.domain.preconditions import Precondition

pytestmark = pytest.mark.anyio
ORDERS = ConfigKey("orders")
PATH = "/api/v1/service/configs/orders"


def on(version: int) -> Precondition:
    return Precondition(versions=frozenset({version}))


class Pair:
    """Two services, of which neither looks at the log before it has to."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first, self.second = first, second


@pytest.fixture
async def pair(start: Callable[..., Any], store: Any) -> Pair:
    store.shared = True
    first = await start(poll_interval=60)
    second = await start(poll_interval=60)
    await first.operations.hear()
    # Both have had their first look, and wait for the next one.
    await asyncio.sleep(0)
    return Pair(first, second)


async def test_an_operator_sees_what_was_done_elsewhere(pair: Pair) -> None:
    """A list, a condition and a version are of the moment at which they are asked for."""
    await pair.first.publish("orders", b'{"n": 1}')
    http = pair.second.client(pair.second.admin)
    listed = await http.get("/api/v1/manage/configs")
    assert [row["name"] for row in listed.json()["configs"]] == ["orders"]
    await pair.first.publish("orders", b'{"n": 2}')
    assert (await http.get("/api/v1/manage/configs/orders")).json()["version"] == 2


async def test_what_runs_already_is_judged_by_what_runs_everywhere(pair: Pair) -> None:
    """Publishing old bytes again through the process that still serves them is a change, and is made."""
    await pair.first.publish("orders", b'{"n": 1}')
    await pair.second.operations.hear()
    await pair.first.publish("orders", b'{"n": 2}')
    assert await pair.second.publish("orders", b'{"n": 1}') == 3
    await pair.first.publish("orders", b'{"n": 4}')
    with pytest.raises(PreconditionFailedError):
        await pair.second.operations.publish(pair.second.admin.token, ORDERS, b"{}", on(3))
    outcome = await pair.second.operations.publish(pair.second.admin.token, ORDERS, b"{}", on(4))
    assert outcome.document.version == 5


async def test_a_token_of_a_moment_ago_is_known(pair: Pair) -> None:
    """It was created through the other one, and nobody has waited."""
    await pair.first.publish("orders", b"{}")
    await pair.second.operations.hear()
    minted = await pair.first.mint()
    assert (await pair.second.client(minted).get(PATH)).status_code == 200


@pytest.mark.parametrize("path", [PATH, f"{PATH}/formatted?format=json"])
async def test_a_config_of_a_moment_ago_is_found(pair: Pair, path: str) -> None:
    """And what is really missing is 404."""
    minted = await pair.first.mint()
    http = pair.second.client(minted)
    assert (await http.get(path)).status_code == 404
    await pair.first.publish("orders", b"{}")
    assert (await http.get(path)).status_code == 200


async def test_reads_need_no_store(pair: Pair, store: Any) -> None:
    """While it fails, what is known is served, what is not known is 404, and changes are refused."""
    await pair.first.publish("orders", b"{}")
    minted = await pair.first.mint()
    http = pair.second.client(minted)
    assert (await http.get(PATH)).status_code == 200
    store.fail_reads = StoreError("gone")
    assert (await http.get(PATH)).status_code == 200
    assert (await http.get("/api/v1/service/configs/unknown")).status_code == 404
    admin = pair.second.client(pair.second.admin)
    assert (await admin.get("/api/v1/manage/configs/orders")).status_code == 200
    assert (await admin.put("/api/v1/manage/configs/orders", content=b'{"n": 1}')).status_code == 503
    store.fail_reads = None


async def test_another_history_is_not_served(start: Callable[..., Any], store: Any) -> None:
    """Streams end, requests are 503, and whoever runs the application is told once, with the reason."""
    store.shared = True
    service = await start(poll_interval=0.01)
    await service.publish("orders", b"{}")
    minted = await service.mint()
    told = asyncio.Event()
    service.app.when_replaced = told.set
    stream = service.operations.streams.subscribe(minted.token, "orders")
    store.epoch = "f" * 24
    await asyncio.wait_for(told.wait(), 5)
    assert stream.ended is not None
    assert "was replaced" in str(service.app.replaced)
    http = service.client(minted)
    assert (await http.get(PATH)).status_code == 503
    assert (await http.get("/healthz")).status_code == 200
    ready = await http.get("/readyz")
    assert ready.status_code == 503
    assert "another history" in ready.text


async def test_who_may_be_far_behind_is_not_ready(
    start: Callable[..., Any], store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has not looked at the log for seconds says so, and serves what it has."""
    store.shared = True
    service = await start(poll_interval=60)
    await service.publish("orders", b"{}")
    http = service.client(await service.mint())
    assert (await http.get("/readyz")).status_code == 200
    monkeypatch.setattr(following, "STALE_AFTER", 0.0)
    ready = await http.get("/readyz")
    assert ready.status_code == 503
    assert "what other processes committed has not been read for" in ready.text
    assert (await http.get(PATH)).status_code == 200
