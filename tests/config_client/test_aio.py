"""Watching on an event loop: the driver's wakes and cancellations, and that nothing is left behind.

What both kinds of client have in common is shown in ``tests/behaviour``; here stands what only tasks can do.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from stopwatch import stopwatch

from config_client import (
    AsyncConfigClient,
    ClosedError,
    ConfigClient,
    ConfigClientError,
    ForbiddenError,
    GetOptions,
    NotFoundError,
    RefusedError,
    Snapshot,
    State,
    UnmarshalError,
)
from config_client import _state_watch as state_watch_module
from config_client._aio_driver import TaskDriver
from config_client._aio_transport import AsyncTransport
from config_client._desk import EventDesk
from config_client._opening import Opener
from config_client._states import Held
from config_client._steps import Command, OpenStates, Outcome, Read
from config_client.cache import Cache, CachedValue
from config_client.crypto import Keyring
from config_client.options import Options
from config_client.testing import InMemoryService

pytestmark = pytest.mark.anyio

KEY = "c0ffee" * 10 + "abcd"
CANARY = "canary-of-the-document"
ORDERS = "/api/v1/service/configs/orders"
PATIENCE = 60.0
CLOSE_SECONDS = 0.1


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
async def _nothing_is_left() -> AsyncIterator[None]:
    """No task outlives its test."""
    before = asyncio.all_tasks()
    yield
    # pytest's own runner makes a task for every step of a test.
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert [task for task in left if "TestRunner" not in repr(task)] == []


@pytest.fixture
async def stalling() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A service that takes a request and says nothing: its URL, and whether one came."""
    asked, released = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await released.wait()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        released.set()
        await eventually(lambda: not any("handle" in repr(task) for task in asyncio.all_tasks()))


@pytest.fixture
def unused_host() -> Iterator[str]:
    """Return the URL of a port at which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what no event of the loop announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def until(ready: Callable[[], bool], snapshot: Snapshot[Any]) -> None:
    """Wait until a change has made ``ready`` true."""
    changed = asyncio.Event()
    end = snapshot.on_change(lambda _: changed.set())
    try:
        while not ready():
            await asyncio.wait_for(changed.wait(), PATIENCE)
            changed.clear()
    finally:
        end()


# The driver


def driver() -> TaskDriver:
    options = Options("http://127.0.0.1:1", "cst_token", KEY)
    transport = AsyncTransport(options.host, options.service_token)
    return TaskDriver(transport, None, EventDesk(options, "orders", {}, print), 5.0)  # type: ignore[arg-type]


async def test_a_wake_ends_the_wait_under_way_or_the_next_one() -> None:
    """And only one: the wait after it is a whole one again."""
    each = driver()
    never = asyncio.Event()
    waiting = asyncio.ensure_future(each._unless_woken(never.wait()))
    await asyncio.sleep(0)
    each.wake()
    assert await asyncio.wait_for(waiting, PATIENCE) is None
    each.wake()
    assert await asyncio.wait_for(each._unless_woken(never.wait()), PATIENCE) is None
    never.set()
    assert await asyncio.wait_for(each._unless_woken(never.wait()), PATIENCE) is True


async def test_a_wait_that_is_cancelled_and_woken_at_once_is_cancelled() -> None:
    """A loop that shuts down while a subscription joins must not wait for the watch for ever."""
    each = driver()
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    waiting = asyncio.ensure_future(each._unless_woken(work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    each.wake()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


async def test_what_was_done_when_the_wake_came_is_not_lost() -> None:
    """A chunk that has arrived is an event of the stream, and the wake ends the next read."""
    each = driver()

    async def work() -> str:
        each.wake()
        return "chunk"

    assert await each._unless_woken(work()) == "chunk"
    assert await each._unless_woken(work()) is None


async def test_what_fails_while_it_is_waited_for_fails_as_it_is() -> None:
    """The error of the work reaches the driver."""
    each = driver()

    async def work() -> None:
        raise ConfigClientError("down")

    with pytest.raises(ConfigClientError, match="down"):
        await each._unless_woken(work())


@pytest.mark.integration
async def test_a_watch_that_ends_between_two_reads_ends_its_stream_itself(config_server: InMemoryService) -> None:
    """The garbage collector would end it in a task of its own, which nobody waits for."""
    config_server.publish("orders", {"n": 1})
    options = config_server.options()
    async with AsyncTransport(options.host, options.service_token) as transport:
        opener = Opener(Keyring([bytes.fromhex(options.encryption_key)]), require_bound=False)
        each = TaskDriver(transport, opener, EventDesk(options, "orders", {}, print), 5.0)

        def steps() -> Generator[Command, Outcome, None]:
            yield OpenStates((Held("orders"),))
            yield Read()
            each.stop()
            yield Read()

        await each.run(steps())
        assert isinstance(each._chunks, AsyncGenerator)
        assert each._chunks.ag_frame is None


# Clients of the wrong kind


async def test_a_client_of_httpx_of_the_other_kind_is_refused_by_name() -> None:
    """It would fail at the first request, in a place that says nothing."""
    async with httpx.AsyncClient() as http_client:
        with pytest.raises(ConfigClientError, match="AsyncConfigClient"):
            ConfigClient(Options("http://127.0.0.1:1", "cst_token", KEY, http_client))
    with httpx.Client() as other, pytest.raises(ConfigClientError, match="use ConfigClient"):
        AsyncConfigClient(Options("http://127.0.0.1:1", "cst_token", KEY, other))


async def test_a_blocking_client_refuses_an_asynchronous_proof_at_once() -> None:
    """It could never be awaited."""

    async def proof(value: object) -> bool:
        return True

    client = ConfigClient(Options("http://127.0.0.1:1", "cst_token", KEY))
    with client, pytest.raises(ConfigClientError, match="pre_apply is asynchronous"):
        client.subscribe("orders", dict, pre_apply=proof)


# On a real service


@pytest.mark.integration
async def test_subscriptions_come_and_go_on_one_task(config_server: InMemoryService) -> None:
    """Each is filled when subscribe returns, follows changes, and the task ends with the last of them."""
    before = asyncio.all_tasks()
    for name in ("orders", "billing"):
        config_server.publish(name, {"n": 1})
    async with AsyncConfigClient(config_server.options()) as client:
        orders = await client.subscribe("orders", dict)
        billing = await client.subscribe("billing", dict)
        assert (orders.load(), billing.load()) == ({"n": 1}, {"n": 1})
        assert len(asyncio.all_tasks() - before) <= 3
        config_server.publish("orders", {"n": 2})
        await until(lambda: orders.load() == {"n": 2}, orders.snapshot)
        orders.close()
        config_server.publish("billing", {"n": 2})
        await until(lambda: billing.load() == {"n": 2}, billing.snapshot)
        assert orders.status.state is State.STOPPED
        billing.close()
        await eventually(lambda: asyncio.all_tasks() == before)
        again = await client.subscribe("orders", dict)
        assert again.load() == {"n": 2}


@pytest.mark.integration
async def test_a_proof_may_await_and_refuse(config_server: InMemoryService) -> None:
    """The old value stays, the status says why, and the next version is taken."""
    config_server.publish("orders", {"n": 1})
    refused = asyncio.Event()

    async def proof(value: dict[str, Any]) -> bool:
        await asyncio.sleep(0)
        return value["n"] != 2

    options = config_server.options(on_error=lambda error: refused.set())
    async with AsyncConfigClient(options) as client:
        orders = await client.subscribe("orders", dict, pre_apply=proof)
        config_server.publish("orders", {"n": 2})
        await asyncio.wait_for(refused.wait(), PATIENCE)
        await eventually(lambda: orders.status.state is State.STALE)
        assert orders.load() == {"n": 1}
        assert isinstance(orders.error, RefusedError)
        config_server.publish("orders", {"n": 3})
        await until(lambda: orders.load() == {"n": 3}, orders.snapshot)
        assert orders.status.state is State.LIVE


@pytest.mark.integration
async def test_cancelling_subscribe_gives_up_its_subscription(stalling: tuple[str, asyncio.Event]) -> None:
    """The wait for a first value ends at once, and nothing is kept current for nobody."""
    url, asked = stalling
    async with AsyncConfigClient(Options(url, "cst_token", KEY, cache=False)) as client:
        waiting = asyncio.ensure_future(client.subscribe("orders", dict, GetOptions(environment="prod")))
        await asyncio.wait_for(asked.wait(), PATIENCE)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not client._session._keepers


@pytest.mark.integration
async def test_close_ends_a_subscribe_that_waits(stalling: tuple[str, asyncio.Event]) -> None:
    """It raises that the client was closed, long before its own time is over."""
    url, asked = stalling
    client = AsyncConfigClient(Options(url, "cst_token", KEY, cache=False))
    waiting = asyncio.ensure_future(client.subscribe("orders", dict))
    await asyncio.wait_for(asked.wait(), PATIENCE)
    await client.close()
    with pytest.raises(ClosedError):
        await asyncio.wait_for(waiting, 5.0)


@pytest.mark.integration
@pytest.mark.parametrize("events", [False, True])
async def test_cancelling_a_watch_ends_it_and_its_stream(config_server: InMemoryService, events: bool) -> None:
    """The blocking watches end with their task; the service sees the stream close, and the client is usable."""
    config_server.publish("orders", {"n": 1})
    async with AsyncConfigClient(config_server.options()) as client:
        snapshot: Snapshot[dict[str, Any]] = Snapshot()
        call = client.watch("orders", print) if events else client.watch_and_decode("orders", dict, snapshot)
        watching = asyncio.ensure_future(call)
        await asyncio.to_thread(config_server.wait_for_watchers, 1)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        await asyncio.to_thread(config_server.wait_for_watchers, 0)
        assert await client.get_raw("orders") == {"n": 1}


@pytest.mark.integration
@pytest.mark.parametrize("trouble", ["idle", "paused", "base only"])
async def test_close_is_prompt_and_ends_every_call(config_server: InMemoryService, trouble: str) -> None:
    """From an idle read, a pause, and base streams: within 100 ms, leaving no task."""
    config_server.publish("orders", {"n": 1})
    config_server.base_only = trouble == "base only"
    took = []
    for _ in range(3):
        slow = {"retry_delay": 30.0, "max_retry_delay": 30.0} if trouble == "paused" else {}
        client = AsyncConfigClient(config_server.options(final_errors=(), **slow))
        orders = await client.subscribe("orders", dict)
        watching = asyncio.ensure_future(client.watch_and_decode("orders", dict, Snapshot()))
        await asyncio.to_thread(config_server.wait_for_watchers, 1)
        if trouble == "paused":
            config_server.stop()
            await eventually(lambda orders=orders: orders.status.state is State.STALE)
        with stopwatch() as closing:
            await client.close()
        took.append(closing.seconds)
        assert await watching is None
        assert orders.status.state is State.STOPPED
        with pytest.raises(ClosedError):
            await client.subscribe("orders", dict)
        await client.close()
        config_server.start()
    assert sorted(took)[1] < CLOSE_SECONDS, took


@pytest.mark.integration
async def test_the_stream_of_events_comes_from_whichever_host_is_there(
    config_server: InMemoryService, unused_host: str
) -> None:
    """The first is down for good, and the second is away for a while: what happens afterwards is told."""
    config_server.publish("orders", {"n": 1})
    told: asyncio.Queue[int] = asyncio.Queue()
    errors: list[Exception] = []
    options = config_server.options(host=f"{unused_host},{config_server.url}", on_error=errors.append)
    async with AsyncConfigClient(options) as client:
        watching = asyncio.ensure_future(client.watch("orders", lambda event: told.put_nowait(event.version)))
        for version in (2, 3):
            await asyncio.to_thread(config_server.wait_for_watchers, 1, PATIENCE)
            config_server.publish("orders", {"n": version})
            assert await asyncio.wait_for(told.get(), PATIENCE) == version
            errors.clear()
            config_server.stop()
            # The end of the stream, and that it cannot be opened again.
            await eventually(lambda: len(errors) >= 2)
            config_server.start()
        await client.close()
        await watching


@pytest.mark.integration
@pytest.mark.parametrize("base_only", [False, True])
@pytest.mark.parametrize("at", ["first", "change", "restored"])
async def test_close_does_not_wait_for_a_proof(
    config_server: InMemoryService, tmp_path: Path, at: str, base_only: bool
) -> None:
    """A ``pre_apply`` that awaits, on a database say, is cancelled where it stands, and its value is not taken."""
    config_server.base_only = base_only
    config_server.publish("orders", {"n": 1})
    began, ended = asyncio.Event(), asyncio.Event()

    async def proof(value: dict[str, Any]) -> None:
        if value["n"] == (2 if at == "change" else 1):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    options = config_server.options(cache=at == "restored", cache_directory=tmp_path / "cache")
    snapshot: Snapshot[Any] = Snapshot()
    if at == "restored":
        async with AsyncConfigClient(options) as client:
            await client.subscribe("orders", dict)
        config_server.stop()
    client = AsyncConfigClient(options)
    subscribing = asyncio.ensure_future(client.subscribe("orders", dict, pre_apply=proof, snapshot=snapshot))
    if at == "change":
        await subscribing
        config_server.publish("orders", {"n": 2})
    await asyncio.wait_for(began.wait(), PATIENCE)
    with stopwatch() as took:
        await client.close()
        if at != "change":
            with pytest.raises(ClosedError):
                await subscribing
    assert took.seconds < 1.0, "it would never have ended by itself"
    assert ended.is_set()
    assert snapshot.load() == ({"n": 1} if at == "change" else None)


@pytest.mark.integration
async def test_close_does_not_wait_for_a_disk(
    config_server: InMemoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being kept while the client closes is written to its end behind its back."""
    config_server.publish("orders", {"n": 1})
    began, released, kept = threading.Event(), threading.Event(), threading.Event()
    store = Cache.store

    def slow(cache: Cache, *arguments: Any) -> None:
        began.set()
        assert released.wait(PATIENCE)
        store(cache, *arguments)
        kept.set()

    monkeypatch.setattr(Cache, "store", slow)
    client = AsyncConfigClient(config_server.options(cache=True, cache_directory=tmp_path / "cache"))
    await client.subscribe("orders", dict)
    assert await asyncio.to_thread(began.wait, PATIENCE)
    with stopwatch() as took:
        await client.close()
    assert took.seconds < 1.0
    assert not kept.is_set()
    released.set()
    assert await asyncio.to_thread(kept.wait, PATIENCE)
    await eventually(lambda: not client._session._tasks)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.integration
async def test_a_slow_disk_is_given_the_latest_only(
    config_server: InMemoryService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the changes that come while it writes, all but the newest are passed over: nothing piles up in memory."""
    config_server.publish("orders", {"n": 1})
    began, released = threading.Event(), threading.Event()
    stored: list[int | None] = []
    store = Cache.store

    def slow(cache: Cache, name: str, environment: str | None, label: str | None, value: CachedValue) -> None:
        began.set()
        assert released.wait(PATIENCE)
        stored.append(value.version)
        store(cache, name, environment, label, value)

    monkeypatch.setattr(Cache, "store", slow)
    options = config_server.options(cache=True, cache_directory=tmp_path / "cache")
    async with AsyncConfigClient(options) as client:
        orders = await client.subscribe("orders", dict)
        assert await asyncio.to_thread(began.wait, PATIENCE)
        before = len(client._session._tasks)
        for number in range(2, 52):
            config_server.publish("orders", {"n": number})
        assert await orders.until(51, PATIENCE)
        assert len(client._session._tasks) <= before
        released.set()
        await eventually(lambda: len(stored) == 2)
        await eventually(lambda: client._session._writing is None)
    assert stored == [1, 51]
    config_server.stop()
    async with AsyncConfigClient(options) as client:
        assert (await client.subscribe("orders", dict)).load() == {"n": 51}


@pytest.mark.integration
async def test_subscribing_from_a_callback_does_not_wait_for_itself(config_server: InMemoryService) -> None:
    """With a wait it is refused with a remedy; without one it works."""
    for name in ("orders", "billing"):
        config_server.publish(name, {"n": 1})
    outcomes: list[object] = []
    done = asyncio.Event()

    async def proof(value: dict[str, Any]) -> None:
        if value["n"] != 2:
            return
        try:
            await client.subscribe("billing", dict)
        except ConfigClientError as error:
            outcomes.append(str(error))
        outcomes.append(await client.subscribe("billing", dict, timeout=0, required=False))
        done.set()

    async with AsyncConfigClient(config_server.options()) as client:
        await client.subscribe("orders", dict, pre_apply=proof)
        config_server.publish("orders", {"n": 2})
        await asyncio.wait_for(done.wait(), PATIENCE)
        text, billing = outcomes
        assert "timeout=0" in str(text)
        await until(lambda: billing.load() == {"n": 1}, billing.snapshot)  # type: ignore[attr-defined]


@pytest.mark.integration
@pytest.mark.parametrize("base_only", [False, True])
async def test_a_missing_config_is_raised_and_leaves_the_others_alone(
    config_server: InMemoryService, base_only: bool
) -> None:
    """On a shared stream as on base streams; nothing goes on for the one that failed."""
    config_server.base_only = base_only
    before = asyncio.all_tasks()
    async with AsyncConfigClient(config_server.options()) as client:
        with pytest.raises(NotFoundError):
            await client.subscribe("missing", dict)
        await eventually(lambda: asyncio.all_tasks() == before)
        config_server.publish("orders", {"n": 1})
        orders = await client.subscribe("orders", dict)
        with pytest.raises(NotFoundError):
            await client.subscribe("missing", dict)
        assert orders.status.state is State.LIVE


@pytest.mark.integration
@pytest.mark.parametrize("base_only", [False, True])
async def test_a_defect_of_the_watch_is_told_and_not_a_silent_freeze(
    config_server: InMemoryService, base_only: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every subscription that it served stops with an error, and the next one starts anew."""
    config_server.base_only = base_only
    config_server.publish("orders", {"n": 1})
    async with AsyncConfigClient(config_server.options()) as client:
        orders = await client.subscribe("orders", dict)
        await asyncio.to_thread(config_server.wait_for_watchers, 1)
        # A base stream is followed by one more look, which must not be the one that finds the change.
        await eventually(lambda: not base_only or [one.path for one in config_server.requests].count(ORDERS) >= 2)
        with monkeypatch.context() as patch:
            name = (
                "config_client.watching.ValueWatch._refresh"
                if base_only
                else "config_client._state_watch.StateWatch._take"
            )
            patch.setattr(name, lambda *_: 1 / 0)
            config_server.publish("orders", {"n": 2})
            await eventually(lambda: orders.closed)
        assert "defect" in str(orders.status.error)
        assert "ZeroDivisionError" in caplog.text
        assert orders.load() == {"n": 1}
        again = await client.subscribe("orders", dict)
        assert again.load() == {"n": 2}


@pytest.mark.integration
@pytest.mark.parametrize("base_only", [False, True])
async def test_a_proof_that_was_cancelled_ends_the_watch_and_says_so(
    config_server: InMemoryService, base_only: bool
) -> None:
    """It awaits a task that somebody cancelled: no silent freeze, and the next subscription starts anew."""
    config_server.base_only = base_only
    config_server.publish("orders", {"n": 1})

    async def proof(value: dict[str, Any]) -> None:
        if value["n"] == 2:
            task = asyncio.ensure_future(asyncio.Event().wait())
            task.cancel()
            await task

    async with AsyncConfigClient(config_server.options()) as client:
        orders = await client.subscribe("orders", dict, pre_apply=proof)
        config_server.publish("orders", {"n": 2})
        await eventually(lambda: orders.closed)
        assert isinstance(orders.status.error, ConfigClientError)
        assert "CancelledError" in str(orders.status.error)
        assert orders.load() == {"n": 1}
        again = await client.subscribe("orders", dict)
        assert again.load() == {"n": 2}


@pytest.mark.integration
@pytest.mark.parametrize("base_only", [False, True])
async def test_cancelling_every_task_ends_the_watch_and_says_so(
    config_server: InMemoryService, base_only: bool
) -> None:
    """As some programs do before they go on with something else; what they still hold tells that it is frozen."""
    config_server.base_only = base_only
    for name in ("orders", "billing"):
        config_server.publish(name, {"n": 1})
    before = asyncio.all_tasks()
    async with AsyncConfigClient(config_server.options()) as client:
        both = [await client.subscribe(name, dict) for name in ("orders", "billing")]
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await eventually(lambda: all(each.closed for each in both))
        assert all(isinstance(each.status.error, ConfigClientError) for each in both)
        config_server.publish("orders", {"n": 2})
        again = await client.subscribe("orders", dict)
        assert again.load() == {"n": 2}
        assert again.status.state is State.LIVE


@pytest.mark.integration
async def test_a_filter_that_forbids_streams_ends_nothing_while_the_configs_may_be_read(
    config_server: InMemoryService, tmp_path: Path
) -> None:
    """403 to the stream alone leaves polling and the disk; 403 to the config ends it and erases the entry."""
    config_server.publish("orders", {"n": 1})
    options = config_server.options(cache=True, cache_directory=tmp_path, poll_interval=0.1)
    async with AsyncConfigClient(options) as client:
        orders = await client.subscribe("orders", dict)
        track = orders._keeper.track
        config_server.fail(403, for_="watch")
        config_server.cut()
        await eventually(lambda: orders.status.state is State.POLLING)
        config_server.publish("orders", {"n": 2})
        await until(lambda: orders.load() == {"n": 2}, orders.snapshot)
        await eventually(lambda: (cached := client._session.cached(track)) is not None and cached.version == 2)
        config_server.fail(403)
        await eventually(lambda: orders.closed)
        assert isinstance(orders.status.error, ForbiddenError)
        await eventually(lambda: client._session.cached(track) is None)


# What cannot be meant


@pytest.mark.integration
async def test_a_first_value_may_be_waited_for_without_end(config_server: InMemoryService) -> None:
    """No clock overflows."""
    config_server.publish("orders", {"n": 1})
    async with AsyncConfigClient(config_server.options()) as client:
        assert (await client.subscribe("orders", dict, timeout=float("inf"))).load() == {"n": 1}


async def test_what_cannot_work_is_refused_at_once() -> None:
    """A timeout that is no time, a callback that nobody would await, and a client that is closed."""

    async def callback(event: object) -> None:
        raise AssertionError

    client = AsyncConfigClient(Options("http://127.0.0.1:1", "cst_token", KEY, cache=False))
    for timeout in (None, -1.0, float("nan")):
        with pytest.raises(ConfigClientError, match="number of seconds, 0 or more"):
            await client.subscribe("orders", dict, timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(ConfigClientError, match="asynchronous"):
        await client.watch("orders", callback)
    await client.close()
    with pytest.raises(ClosedError):
        await client.subscribe("orders", dict, timeout=float("inf"))


@pytest.mark.integration
async def test_a_document_that_does_not_fit_is_in_no_frame_of_the_traceback(config_server: InMemoryService) -> None:
    """Error trackers collect the variables of every frame; the document is none of them."""

    @dataclass
    class Orders:
        n: int

    config_server.publish("orders", {"n": CANARY})
    async with AsyncConfigClient(config_server.options()) as client:
        with pytest.raises(UnmarshalError) as raised:
            await client.get("orders", Orders)
    traceback, names = raised.value.__traceback__, []
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code.co_filename != __file__:
            names.append(frame.f_code.co_name)
            assert not any(CANARY in repr(value) for value in frame.f_locals.values()), names
        traceback = traceback.tb_next
    assert names[0] == "get"


@pytest.mark.integration
async def test_a_service_that_learns_the_state_first_watch_is_followed_on_it(
    config_server: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base streams are called back, and nothing is told twice."""
    monkeypatch.setattr(state_watch_module, "PROBE_SECONDS", 0.05)
    config_server.base_only = True
    config_server.publish("orders", {"n": 1})
    versions: list[int | None] = []
    async with AsyncConfigClient(config_server.options()) as client:
        orders = await client.subscribe("orders", dict)
        orders.on_change(lambda change: versions.append(change.version))
        config_server.publish("orders", {"n": 2})
        await until(lambda: orders.load() == {"n": 2}, orders.snapshot)
        config_server.base_only = False
        await eventually(lambda: any(each.watched for each in config_server.requests))
        config_server.publish("orders", {"n": 3})
        await until(lambda: orders.load() == {"n": 3}, orders.snapshot)
        await eventually(lambda: orders.status.state is State.LIVE)
        assert versions == [2, 3]
        with suppress(TimeoutError):
            await asyncio.to_thread(config_server.wait_until, lambda: config_server.watchers == 1)
        assert config_server.watchers == 1
