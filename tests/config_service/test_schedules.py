"""Versions that are published for later: who gets them when, what ends them, and that they come about exactly once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from config_client.protocol import Held
from config_service.app import create_app, utc_now
from config_service.delivery.subscription import QueuedReader
from config_service.domain.errors import (
    DraftOutdatedError,
    InvalidScheduleError,
    NotFoundError,
    PreconditionFailedError,
    StoreFullError,
)
from config_service.domain.keys import ConfigKey
from config_service.domain.preconditions import UNCONDITIONAL, Precondition
from config_service.verifying import Verification

pytestmark = pytest.mark.anyio
ORDERS = ConfigKey("orders")
SERVED = "/api/v1/service/configs/orders/formatted"
LIST = "/api/v1/service/configs"


def at(service: Any, seconds: float = 60.0) -> datetime:
    moment: datetime = service.clock.now + timedelta(seconds=seconds)
    return moment


async def schedule(service: Any, content: bytes, seconds: float = 60.0, key: ConfigKey = ORDERS) -> Any:
    """Publish ``content`` for a moment that lies ``seconds`` ahead; return the version."""
    outcome = await service.operations.publish(service.admin.token, key, content, valid_from=at(service, seconds))
    assert outcome.changed
    assert not outcome.document.served
    return outcome.document


async def come(service: Any, seconds: float = 60.0) -> None:
    """Let time pass, and what comes due come about."""
    service.clock.advance(seconds)
    assert await service.app.activator.activate_due()


def running(service: Any, key: ConfigKey = ORDERS) -> tuple[int, bytes | None]:
    document = service.operations.newest(service.admin.token, key)
    return document.version, document.content


@pytest.fixture
async def neighbour(service: Any, settings: Any) -> Any:
    """Another process on the same store, as far as a store in memory can tell."""
    app = create_app(settings, service.store, service.clock)
    await app.start()
    yield app
    await app.stop()


async def test_until_its_moment_nobody_is_served_a_version(service: Any) -> None:
    """What ran before runs on; the version is 404 by number as well, and is listed nowhere."""
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    await schedule(service, b"{}", key=ConfigKey("new"))
    http = service.client(await service.mint("*@*:read,export,write"))
    assert (await http.get(SERVED)).content == b'{"a": 1}'
    assert (await http.get(SERVED, params={"version": "2"})).status_code == 404
    assert (await http.get("/api/v1/service/configs/orders", params={"version": "2"})).status_code == 404
    for path in ("/formatted", "", "/watch"):
        assert (await http.get(f"/api/v1/service/configs/new{path}")).status_code == 404
    assert [row["name"] for row in (await http.get(LIST)).json()] == ["orders"]
    assert (await http.get(SERVED)).headers["x-config-version"] == "1"
    watch = await service.operations.streams.watch(
        service.admin.token, [Held("new"), Held("orders")], None, QueuedReader
    )
    assert b'"config_name":"new","environment":"default","label":"main","state":"missing"' in await watch.stream.next()


async def test_at_its_moment_a_version_runs_by_a_revision_of_its_own(service: Any) -> None:
    """Headers and event carry that revision and the time at which it came about; the author is who published it."""
    await service.publish("orders", b'{"a": 1}')
    writer = await service.mint("*@*:write")
    published = await service.operations.publish(writer.token, ORDERS, b'{"a": 2}', valid_from=at(service))
    stream = service.operations.streams.subscribe(service.admin.token, "orders")
    watch = await service.operations.streams.watch(service.admin.token, [Held("orders")], None, QueuedReader)
    await watch.stream.next()
    service.clock.advance(59.9)
    assert await service.app.activator.activate_due()
    assert running(service)[0] == 1
    await come(service, 1)
    revision = len(service.store.entries)
    assert published.document.revision == revision - 1
    headers = (await service.client(service.admin).get(SERVED)).headers
    assert (headers["x-config-version"], headers["x-config-revision"]) == ("2", str(revision))
    assert headers["x-config-changed-by"] == str(writer.token.id)
    assert headers["x-config-timestamp"] == service.clock.now.isoformat()
    heard = (await stream.next()).decode()
    assert f"-{revision}\n" in heard
    assert f'"version":2,"changed_by":{writer.token.id}' in heard
    assert f'"version":2,"epoch":"{service.store.epoch}","revision":{revision}' in (await watch.stream.next()).decode()
    (row,) = (await service.client(service.admin).get(LIST)).json()
    assert row["valid_from"] == row["updated_at"] == service.clock.now.isoformat()
    assert (await service.client(service.admin).get(SERVED, params={"version": "2"})).content == b'{"a": 2}'


async def test_the_first_event_after_a_restart_is_replayed_with_the_activation_alone(service: Any, start: Any) -> None:
    """A reader that comes back hears of what ran, and not of what was to run."""
    await service.publish("orders", b'{"a": 1}')
    seen = service.operations.position
    await schedule(service, b'{"a": 2}')
    await come(service)
    again = await start()
    stream = again.operations.streams.subscribe(again.admin.token, "orders", last_event_id=str(seen))
    heard = (await stream.next()).decode()
    assert heard.count("event: config_changed") == 1
    assert f"-{seen.revision + 2}\n" in heard


async def test_a_schedule_outlives_a_restart_and_a_missed_moment_comes_about_at_the_start(
    service: Any, start: Any
) -> None:
    """Before anybody is served; and what is still to come is still to come."""
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    again = await start()
    assert running(again) == (1, b'{"a": 1}')
    assert [one.version for one in again.operations.schedules.list(again.admin.token)] == [2]
    await service.app.stop()
    await again.app.stop()
    service.clock.advance(3600)
    late = await start()
    assert running(late) == (2, b'{"a": 2}')
    assert [entry.kind.value for entry in service.store.entries].count("activated") == 1
    assert late.operations.schedules.list(late.admin.token) == []


async def test_a_start_with_a_store_that_takes_no_changes_serves_what_ran(
    service: Any, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The activation is tried again by itself; nobody has to wait for room on a disk to be served."""
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    await service.app.stop()
    service.clock.advance(3600)
    service.store.fail = StoreFullError("no room in /secret/place")
    late = await start()
    assert "orders (default, main): version 2 cannot be activated: StoreFullError" in caplog.text
    assert "/secret/place" not in caplog.text
    assert await late.app.activator.activate_due()
    assert running(late) == (2, b'{"a": 2}')


@pytest.mark.parametrize("how", ["publish", "again", "rollback", "delete", "draft", "later"])
async def test_whatever_makes_a_version_ends_an_older_schedule(service: Any, how: str) -> None:
    """Also publishing what runs: it says that this is to run. The moment passes, and nothing happens."""
    token, calls = service.admin.token, service.operations
    await service.publish("orders", b'{"a": 0}')
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    if how == "publish":
        await service.publish("orders", b'{"a": 3}')
    elif how == "again":
        assert await service.publish("orders", b'{"a": 1}') == 4
        assert await service.publish("orders", b'{"a": 1}') == 4
    elif how == "rollback":
        await calls.rollback(token, ORDERS, 1)
    elif how == "delete":
        await calls.delete(token, ORDERS)
    elif how == "draft":
        await calls.drafts.replace(token, ORDERS, b'{"a": 3}')
        await calls.drafts.publish(token, ORDERS)
    else:
        await schedule(service, b'{"a": 3}', 3600)
    before = running(service)
    await come(service, 120)
    assert running(service) == before
    assert before[0] == (2 if how == "later" else 4)
    assert [entry.kind.value for entry in service.store.entries].count("activated") == 0
    if how == "later":
        await come(service, 3600)
        assert running(service) == (4, b'{"a": 3}')


async def test_publishing_the_same_for_the_same_moment_again_makes_no_version(service: Any) -> None:
    """After an answer that was lost it is safe to publish again; for another moment it is another version."""
    await service.publish("orders", b'{"a": 1}')
    moment = at(service)
    made = [
        await service.operations.publish(service.admin.token, ORDERS, b'{"a": 2}', valid_from=moment) for _ in range(2)
    ]
    assert [(one.document.version, one.changed) for one in made] == [(2, True), (2, False)]
    assert not made[1].document.served
    assert (await schedule(service, b'{"a": 2}', 61)).version == 3


async def test_a_cancelled_version_never_runs_by_itself_and_can_be_rolled_back_to(service: Any) -> None:
    """Cancelling takes a revision of its own; there is nothing to cancel then."""
    token, calls = service.admin.token, service.operations
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    assert (await calls.schedules.cancel(token, ORDERS)).version == 2
    assert service.store.entries[-1].kind.value == "schedule_cancelled"
    with pytest.raises(NotFoundError):
        await calls.schedules.cancel(token, ORDERS)
    with pytest.raises(NotFoundError):
        calls.schedules.read(token, ORDERS)
    await come(service)
    assert running(service) == (1, b'{"a": 1}')
    assert (await calls.rollback(token, ORDERS, 2)).document.version == 3
    assert running(service) == (3, b'{"a": 2}')


async def test_a_condition_is_on_what_runs_and_not_on_what_waits(service: Any) -> None:
    """``If-Match`` names the running version; the version that is made follows the newest."""
    token, calls = service.admin.token, service.operations
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    with pytest.raises(PreconditionFailedError, match="version 1 is running"):
        await calls.publish(token, ORDERS, b"{}", Precondition(versions=frozenset({2})))
    outcome = await calls.publish(token, ORDERS, b"{}", Precondition(versions=frozenset({1})))
    assert outcome.document.version == 3


async def test_a_version_that_comes_due_between_check_and_commit_is_seen(
    service: Any, neighbour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest version is the same before and after; the condition on the running one decides."""
    token, store = service.admin.token, service.store
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    await neighbour.operations._feed.catch_up()
    commit = store.commit_version

    async def activate_first(change: Any, *rest: Any) -> Any:
        monkeypatch.setattr(store, "commit_version", commit)
        service.clock.advance(60)
        assert await neighbour.activator.activate_due()
        return await commit(change, *rest)

    monkeypatch.setattr(store, "commit_version", activate_first)
    with pytest.raises(PreconditionFailedError, match="version 2 is running"):
        await service.operations.publish(token, ORDERS, b"{}", Precondition(versions=frozenset({1})))
    assert running(service) == (2, b'{"a": 2}')


async def test_of_several_processes_one_activates_and_the_others_follow(service: Any, neighbour: Any) -> None:
    """Exactly one entry; each serves the version, and each tells its own streams."""
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    await neighbour.operations._feed.catch_up()
    apps = [service.app, neighbour]
    streams = [app.operations.streams.subscribe(service.admin.token, "orders") for app in apps]
    service.clock.advance(60)
    assert await asyncio.gather(*(app.activator.activate_due() for app in apps)) == [True, True]
    assert [entry.kind.value for entry in service.store.entries].count("activated") == 1
    for app, stream in zip(apps, streams, strict=True):
        assert app.operations.newest(service.admin.token, ORDERS).version == 2
        assert b'"version":2' in await stream.next()


async def test_a_process_that_follows_hears_of_schedules_and_of_their_end(service: Any, neighbour: Any) -> None:
    """By entries of their own, so whichever process is left when the moment comes does the right thing."""
    await service.publish("orders", b'{"a": 1}')
    await schedule(service, b'{"a": 2}')
    await schedule(service, b'{"b": 1}', key=ConfigKey("billing"))
    await neighbour.operations._feed.catch_up()
    listed = neighbour.operations.schedules.list(service.admin.token)
    assert [(one.key.name, one.version) for one in listed] == [("orders", 2), ("billing", 1)]
    await service.operations.schedules.cancel(service.admin.token, ORDERS)
    await neighbour.operations._feed.catch_up()
    service.clock.advance(60)
    await neighbour.activator.activate_due()
    assert neighbour.operations.newest(service.admin.token, ORDERS).version == 1
    assert neighbour.operations.newest(service.admin.token, ConfigKey("billing")).version == 1


async def test_a_draft_made_before_something_was_scheduled_is_outdated(service: Any) -> None:
    """Publishing it would end the schedule unseen. Whoever has seen it says so; a cancelled one is not in the way."""
    token, calls = service.admin.token, service.operations
    await service.publish("orders", b'{"a": 1}')
    await calls.drafts.replace(token, ORDERS, b'{"a": 3}')
    await schedule(service, b'{"a": 2}')
    assert (await calls.drafts.read(token, ORDERS)).outdated
    with pytest.raises(DraftOutdatedError, match="version 2 is scheduled for"):
        await calls.drafts.publish(token, ORDERS)
    await calls.schedules.cancel(token, ORDERS)
    assert not (await calls.drafts.read(token, ORDERS)).outdated
    await schedule(service, b'{"a": 2}')
    await calls.drafts.replace(token, ORDERS, b'{"a": 3}', base=3)
    assert (await calls.drafts.publish(token, ORDERS)).document.version == 4


async def test_drafts_are_published_together_for_later(service: Any) -> None:
    """Each becomes a version that waits; they come about at the same moment, in their order."""
    token, calls = service.admin.token, service.operations
    keys = [ORDERS, ConfigKey("billing")]
    for key in keys:
        await calls.drafts.replace(token, key, b"{}")
    outcomes = await calls.drafts.publish_together(token, [(key, UNCONDITIONAL) for key in keys], at(service))
    assert [outcome.document.served for outcome in outcomes] == [False, False]
    assert not service.store.held_drafts
    await come(service)
    assert [entry.key for entry in service.store.entries[-2:]] == keys
    assert [running(service, key)[0] for key in keys] == [1, 1]


async def test_a_moment_that_has_passed_is_refused(service: Any) -> None:
    """The present is no moment to come; nothing is changed."""
    await service.publish("orders", b'{"a": 1}')
    for moment in (service.clock.now, service.clock.now - timedelta(1), datetime(2999, 1, 1)):  # noqa: DTZ001
        with pytest.raises(InvalidScheduleError):
            await service.operations.publish(service.admin.token, ORDERS, b"{}", valid_from=moment)
    assert running(service) == (1, b'{"a": 1}')


async def test_the_service_wakes_by_itself_when_a_moment_comes(store: Any, settings: Any) -> None:
    """By the real clock, 0.2 seconds ahead, whether or not a later one was scheduled before."""
    app = create_app(settings, store, utc_now)
    await app.start()
    try:
        admin = await app.operations.tokens.bootstrap("admin")
        await app.operations.publish(admin.token, ORDERS, b'{"a": 1}')
        stream = app.operations.streams.subscribe(admin.token, "orders")
        far, near = (datetime.now(timezone.utc) + timedelta(seconds=seconds) for seconds in (3600, 0.2))
        await app.operations.publish(admin.token, ConfigKey("far"), b"{}", valid_from=far)
        await app.operations.publish(admin.token, ORDERS, b'{"a": 2}', valid_from=near)
        async with asyncio.timeout(30):
            assert b'"version":2' in await stream.next()
        assert app.operations.newest(admin.token, ORDERS).timestamp >= near
        with pytest.raises(NotFoundError):
            app.operations.newest(admin.token, ConfigKey("far"))
    finally:
        await app.stop()


async def test_a_schedule_in_a_file_outlives_the_process(store_url: str, settings: Any, clock: Any) -> None:
    """On SQLite, with everything sealed: what was missed comes about at the start, and the log can be verified."""
    chosen = settings.model_copy(update={"store_url": store_url})
    first = create_app(chosen, None, clock)
    await first.start()
    admin = await first.operations.tokens.bootstrap("admin")
    await first.operations.publish(admin.token, ORDERS, b'{"a": 1}')
    later = clock.now + timedelta(hours=1)
    await first.operations.publish(admin.token, ORDERS, b'{"a": 2}', valid_from=later)
    await first.stop()
    clock.advance(2 * 3600)
    second = create_app(chosen, None, clock)
    await second.start()
    try:
        document = second.operations.newest(admin.token, ORDERS)
        assert (document.version, document.content, document.timestamp) == (2, b'{"a": 2}', clock.now)
        report = Verification(second._store, second._vault, second._keys.hold)
        assert [progress async for progress in report.run()]
        assert report.report.findings == ()
    finally:
        await second.stop()


async def test_replicas_on_one_postgresql_activate_once(postgres_url: str, settings: Any, clock: Any) -> None:
    """Each sees the moment come and commits; the database lets one of them, and both serve the version."""
    chosen = settings.model_copy(update={"store_url": postgres_url})
    replicas = [create_app(chosen, None, clock) for _ in range(2)]
    for replica in replicas:
        await replica.start()
    try:
        admin = await replicas[0].operations.tokens.bootstrap("admin")
        keys = [ConfigKey(f"config-{number}") for number in range(4)]
        for key in keys:
            moment = clock.now + timedelta(minutes=1)
            await replicas[0].operations.publish(admin.token, key, b"{}", valid_from=moment)
        await replicas[1].operations._feed.catch_up()
        clock.advance(60)
        assert await asyncio.gather(*(replica.activator.activate_due() for replica in replicas)) == [True, True]
        kinds = [entry.kind.value for entry in await replicas[0]._store.log(0, 100)]
        assert kinds.count("activated") == len(keys)
        for replica in replicas:
            await replica.operations._feed.catch_up()
            assert [replica.operations.newest(admin.token, key).version for key in keys] == [1] * len(keys)
    finally:
        for replica in replicas:
            await replica.stop()
