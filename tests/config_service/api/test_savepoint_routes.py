"""The management API of savepoints and of the archive, over HTTP without a socket."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from config_client.protocol import Held, format_timestamp
from config_service.app import create_app
from config_service.delivery.subscription import QueuedReader
from config_service.domain.keys import ConfigKey

pytestmark = pytest.mark.anyio
MANAGE = "/api/v1/manage"
CONFIG = f"{MANAGE}/configs/orders"
SAVEPOINTS = f"{CONFIG}/savepoints"
SERVED = "/api/v1/service/configs/orders/formatted"
CANARY = "canary-51c7"


@pytest.fixture
async def http(service: Any) -> Any:
    return service.client(service.admin)


@pytest.fixture
async def three(service: Any) -> None:
    """Three versions of a config, an hour apart; the clock stands a day later."""
    for number in (1, 2, 3):
        await service.publish("orders", b'{"a": %d}' % number)
        service.clock.advance(3600)
    service.clock.advance(86400)


def now(service: Any) -> str:
    return format_timestamp(service.clock.now)


def refusal(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error: dict[str, str] = response.json()["error"]
    assert error["code"] == code
    return error["message"]


@pytest.mark.usefixtures("three")
async def test_a_savepoint_is_set_moved_listed_and_removed(service: Any, http: Any) -> None:
    """201 for what is new, 200 for what stands already; another version only when it is said to move."""
    response = await http.put(f"{SAVEPOINTS}/release-1", json={"version": 2})
    row = response.json()
    assert (response.status_code, row["savepoint"], row["version"], row["changed"]) == (201, "release-1", 2, True)
    again = await http.put(f"{SAVEPOINTS}/release-1", json={"version": 2})
    assert (again.status_code, again.json()) == (200, row | {"changed": False})
    assert "version 2" in refusal(await http.put(f"{SAVEPOINTS}/release-1"), 409, "conflict")
    moved = (await http.put(f"{SAVEPOINTS}/release-1", json={"move": True})).json()
    assert (moved["version"], moved["revision"]) == (3, row["revision"] + 1)
    await http.put(f"{SAVEPOINTS}/a", json={"version": 3})
    assert [(one["savepoint"], one["version"]) for one in (await http.get(SAVEPOINTS)).json()["savepoints"]] == [
        ("a", 3),
        ("release-1", 3),
    ]
    history = (await http.get(f"{CONFIG}/history")).json()["versions"]
    assert [one["savepoints"] for one in history] == [["a", "release-1"], [], []]
    assert (await http.delete(f"{SAVEPOINTS}/a")).json()["version"] == 3
    refusal(await http.delete(f"{SAVEPOINTS}/a"), 404, "not_found")
    assert [entry.kind.value for entry in service.store.entries[-4:]] == [
        *["savepoint_set"] * 3,
        "savepoint_removed",
    ]


@pytest.mark.usefixtures("three")
async def test_a_savepoint_stands_wherever_a_number_does(service: Any, http: Any) -> None:
    """Rollback, revert and both sides of a difference; an unknown one is 404, whatever it is called."""
    await http.put(f"{SAVEPOINTS}/old", json={"version": 1})
    answer = await http.get(f"{CONFIG}/diff", params={"from": "old", "to": "running"})
    assert answer.json()["differences"] == [{"op": "changed", "path": "/a", "old": 1, "new": 3}]
    assert (await http.post(f"{CONFIG}/draft/revert", json={"version": "old"})).status_code == 200
    assert (await http.get(f"{CONFIG}/draft/document")).content == b'{"a": 1}'
    assert (await http.post(f"{CONFIG}/rollback", json={"version": "old"})).json()["version"] == 4
    (row, *_) = (await http.get(f"{CONFIG}/history")).json()["versions"]
    assert row["source_version"] == 1
    for response in (
        await http.post(f"{CONFIG}/rollback", json={"version": CANARY}),
        await http.post(f"{CONFIG}/draft/revert", json={"version": CANARY}),
        await http.get(f"{CONFIG}/diff", params={"from": CANARY}),
    ):
        assert CANARY not in refusal(response, 404, "not_found")


@pytest.mark.usefixtures("three")
async def test_what_cannot_be_a_savepoint_is_refused(service: Any, http: Any) -> None:
    """Numbers, the words for sides of a difference, versions that are not there or deleted."""
    for name in ("1", "running", "staged", "x" * 65, "a%20b"):
        refusal(await http.put(f"{SAVEPOINTS}/{name}"), 400, "invalid_request")
    refusal(await http.put(f"{SAVEPOINTS}/ok", json={"version": 9}), 404, "not_found")
    refusal(await http.put(f"{SAVEPOINTS}/ok", json={"version": 0}), 400, "invalid_request")
    await http.delete(CONFIG)
    refusal(await http.put(f"{SAVEPOINTS}/ok"), 404, "not_found")
    refusal(await http.put(f"{SAVEPOINTS}/ok", json={"version": 4}), 404, "not_found")
    assert (await http.get(SAVEPOINTS)).json() == {"savepoints": []}


@pytest.mark.usefixtures("three")
async def test_an_archive_removes_what_is_old_and_says_so(service: Any, http: Any) -> None:
    """The document is 404 ``archived`` everywhere, the history has no gap, and doing it again changes nothing."""
    wanted = {"before": now(service)}
    page = (await http.post(f"{MANAGE}/archive/candidates", json=wanted)).json()
    assert page["after"] is None
    assert [(row["name"], row["version"], row["document"]) for row in page["candidates"]] == [
        ("orders", 1, None),
        ("orders", 2, None),
    ]
    entries = len(service.store.entries)
    body = wanted | {"configs": [{"name": "orders", "environment": "default", "label": "main", "versions": [1, 2, 3]}]}
    (row,) = (await http.post(f"{MANAGE}/archive", json=body)).json()["archived"]
    assert (row["versions"], row["revision"]) == ([1, 2], entries + 1)
    assert (await http.post(f"{MANAGE}/archive", json=body)).json() == {"archived": []}
    assert len(service.store.entries) == entries + 1
    for response in (
        await http.get(SERVED, params={"version": "1"}),
        await http.get("/api/v1/service/configs/orders", params={"version": "2"}),
        await http.post(f"{CONFIG}/rollback", json={"version": 1}),
        await http.post(f"{CONFIG}/draft/revert", json={"version": 1}),
        await http.get(f"{CONFIG}/diff", params={"from": "1", "to": "running"}),
        await http.put(f"{SAVEPOINTS}/old", json={"version": 1}),
    ):
        assert "archived" in refusal(response, 404, "archived")
    rows = (await http.get(f"{CONFIG}/history")).json()["versions"]
    assert [(one["version"], one["archived"], one["deleted"]) for one in rows] == [
        (3, False, False),
        (2, True, False),
        (1, True, False),
    ]
    assert (await http.get(SERVED)).content == b'{"a": 3}'


@pytest.mark.usefixtures("three")
async def test_what_is_needed_is_never_archived(service: Any, http: Any) -> None:
    """What runs, is scheduled, has a name, or is the base of a draft; a cut-off that is to come is refused."""
    moment = format_timestamp(service.clock.now + timedelta(days=1))
    await http.put(f"{SAVEPOINTS}/keep", json={"version": 1})
    await http.put(f"{CONFIG}/draft", params={"base": "2"}, content=b"{}")
    await http.put(CONFIG, params={"valid_from": moment}, content=b'{"a": 4}')
    service.clock.advance(3600)
    before = {"before": now(service)}
    assert (await http.post(f"{MANAGE}/archive/candidates", json=before)).json()["candidates"] == []
    configs = [{"name": "orders", "environment": "default", "label": "main", "versions": [1, 2, 3, 4, 5]}]
    assert (await http.post(f"{MANAGE}/archive", json=before | {"configs": configs})).json() == {"archived": []}
    refusal(await http.post(f"{MANAGE}/archive", json={"before": moment, "configs": configs}), 400, "invalid_request")
    await http.delete(f"{CONFIG}/draft")
    (row,) = (await http.post(f"{MANAGE}/archive", json=before | {"configs": configs})).json()["archived"]
    assert row["versions"] == [2]


async def test_candidates_come_in_pages_with_their_documents(service: Any, http: Any) -> None:
    """Each once, by config and number, of the names asked for; byte for byte."""
    for name in ("orders-a", "orders-b", "billing"):
        for number in range(4):
            await service.publish(name, b'{ "a": %d }' % number)
    service.clock.advance(1)
    found: list[tuple[str, int, str]] = []
    after = None
    for _ in range(10):
        wanted = {"before": now(service), "name": "orders-*", "limit": 2, "documents": True, "after": after}
        page = (await http.post(f"{MANAGE}/archive/candidates", json=wanted)).json()
        assert len(page["candidates"]) <= 2
        found += [(row["name"], row["version"], row["document"]) for row in page["candidates"]]
        after = page["after"]
        if after is None:
            break
    assert found == [
        (name, number, json.dumps({"a": number - 1}).replace("{", "{ ").replace("}", " }"))
        for name in ("orders-a", "orders-b")
        for number in (1, 2, 3)
    ]


@pytest.mark.usefixtures("three")
async def test_another_process_follows_names_and_archives(service: Any, settings: Any) -> None:
    """It reads on in the log, and says the same of what went."""
    other = create_app(settings, service.store, service.clock)
    await other.start()
    try:
        key = ConfigKey("orders")
        await service.operations.savepoints.set(service.admin.token, key, "keep", 1)
        await service.operations.archive.archive(service.admin.token, service.clock.now, [(key, [1, 2])])
        await other.operations._feed.catch_up()
        assert other.operations.position == service.operations.position
        rows = await other.operations.history(service.admin.token, key)
        assert [row.archived is not None for row in rows] == [False, True, False]
        assert [one.name for one in await other.operations.savepoints.list(service.admin.token, key)] == ["keep"]
    finally:
        await other.stop()


@pytest.mark.usefixtures("three")
async def test_a_start_replays_history_over_what_is_archived(service: Any, start: Any, http: Any) -> None:
    """A version that went is told as an event, and never opened again; a follower that was behind serves the newest."""
    seen = str(service.operations.position).rsplit("-", 1)[0] + "-0"
    configs = [(ConfigKey("orders"), [1, 2])]
    await service.operations.archive.archive(service.admin.token, service.clock.now, configs)
    again = await start()
    stream = again.operations.streams.subscribe(again.admin.token, "orders", last_event_id=seen)
    assert (await stream.next()).decode().count("event: config_changed") == 3
    assert again.operations.newest(again.admin.token, ConfigKey("orders")).content == b'{"a": 3}'


async def test_a_process_that_was_behind_never_serves_what_went(service: Any, settings: Any) -> None:
    """Base streams hear every event; state-first streams go on and hear of what runs; nothing is taken for deleted."""
    key, admin = ConfigKey("orders"), service.admin.token
    await service.publish("orders", b'{"a": 0}')
    other = create_app(settings, service.store, service.clock)
    await other.start()
    try:
        base = other.operations.streams.subscribe(admin, "orders")
        watch = await other.operations.streams.watch(admin, [Held("orders")], None, QueuedReader)
        await watch.stream.next()
        await service.operations.publish(admin, key, b'{"a": 1}', valid_from=service.clock.now + timedelta(1))
        for number in (2, 3):
            await service.publish("orders", b'{"a": %d}' % number)
        service.clock.advance(1)
        (gone,) = await service.operations.archive.archive(admin, service.clock.now, [(key, [1, 2, 3])])
        assert gone.versions == (1, 2, 3)
        await other.operations._feed.catch_up()
        assert other.operations.newest(admin, key).content == b'{"a": 3}'
        assert other.operations.schedules.list(admin) == []
        heard = (await base.next()).decode()
        assert [f'"version":{number},' in heard for number in (2, 3, 4)] == [False, True, True]
        assert '"deleted"' not in heard
        told = (await watch.stream.next()).decode()
        assert told.count("event: config_changed") == 1
        assert '"state":"running","version":4' in told
    finally:
        await other.stop()
