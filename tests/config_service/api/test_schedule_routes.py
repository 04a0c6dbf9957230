"""The management API of versions that wait for their moment, over HTTP without a socket."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from config_client.protocol import format_timestamp
from config_service.domain.keys import ConfigKey

pytestmark = pytest.mark.anyio
MANAGE = "/api/v1/manage"
CONFIG = f"{MANAGE}/configs/orders"
SCHEDULE = f"{CONFIG}/schedule"


@pytest.fixture
async def http(service: Any) -> Any:
    return service.client(service.admin)


@pytest.fixture
def later(service: Any) -> str:
    """A minute from now, as it is spelled in answers."""
    return format_timestamp(service.clock.now + timedelta(minutes=1))


def refusal(response: Any, status: int, code: str) -> str:
    assert response.status_code == status, response.text
    error: dict[str, str] = response.json()["error"]
    assert error["code"] == code
    return error["message"]


async def test_a_version_for_later_is_answered_as_such(service: Any, http: Any, later: str) -> None:
    """201, scheduled, with its moment; without an ETag, because that names what is running."""
    await service.publish("orders", b'{"a": 1}')
    response = await http.put(CONFIG, params={"valid_from": later}, content=b'{"a": 2}')
    assert response.status_code == 201
    row = response.json()
    assert (row["version"], row["scheduled"], row["changed"], row["valid_from"]) == (2, True, True, later)
    assert "etag" not in response.headers
    again = await http.put(CONFIG, params={"valid_from": later}, content=b'{"a": 2}')
    assert (again.status_code, again.json()["changed"], again.json()["scheduled"]) == (200, False, True)
    shown = await http.get(CONFIG)
    assert (shown.json()["version"], shown.headers["etag"]) == (1, '"1"')


async def test_a_plus_sign_that_was_not_encoded_is_understood(service: Any, http: Any, later: str) -> None:
    """In a query it means a space, which no such time has."""
    assert later.endswith("+00:00")
    response = await http.put(f"{CONFIG}?valid_from={later}", content=b"{}")
    assert response.json()["valid_from"] == later


async def test_moments_that_cannot_be_are_refused(service: Any, http: Any) -> None:
    """422 for one that has passed, 400 for what is no time with an offset; nothing is published."""
    await http.put(f"{CONFIG}/draft", content=b"{}")
    for past in (format_timestamp(service.clock.now), "2001-01-01T00:00:00Z"):
        refusal(await http.put(CONFIG, params={"valid_from": past}, content=b"{}"), 422, "invalid_schedule")
        refusal(await http.post(f"{CONFIG}/draft/publish", params={"valid_from": past}), 422, "invalid_schedule")
    for odd in ("tomorrow", "2999-01-01T00:00:00", "2999-01-01", "2999-13-01T00:00:00Z", "9999-12-31T23:59:59-12:00"):
        message = refusal(await http.put(CONFIG, params={"valid_from": odd}, content=b"{}"), 400, "invalid_request")
        assert odd not in message
    last = {"drafts": [{"name": "orders"}], "valid_from": "9999-12-31T23:59:59-12:00"}
    refusal(await http.post(f"{MANAGE}/drafts/publish", json=last), 422, "invalid_schedule")
    body = {"drafts": [{"name": "orders"}], "valid_from": "tomorrow"}
    refusal(await http.post(f"{MANAGE}/drafts/publish", json=body), 400, "invalid_request")
    for route in (CONFIG, f"{CONFIG}/draft/publish"):
        call = http.put if route == CONFIG else http.post
        refusal(await call(f"{route}?valid_from=", content=b"{}"), 400, "invalid_request")
    twice = await http.put(f"{CONFIG}?valid_from=2999-01-01T00:00:00Z&valid_from=2998-01-01T00:00:00Z", content=b"{}")
    refusal(twice, 400, "invalid_request")
    assert await service.store.versions(ConfigKey("orders")) == []


async def test_what_waits_is_listed_shown_and_cancelled(service: Any, http: Any, later: str) -> None:
    """As it comes due, to those who may write it; a token that may only read is told nothing."""
    for name, seconds in (("orders", 60), ("billing", 30)):
        moment = format_timestamp(service.clock.now + timedelta(seconds=seconds))
        await http.put(f"{MANAGE}/configs/{name}", params={"valid_from": moment}, content=b"{}")
    rows = (await http.get(f"{MANAGE}/schedules")).json()["schedules"]
    assert [(row["name"], row["version"]) for row in rows] == [("billing", 1), ("orders", 1)]
    assert (await http.get(SCHEDULE)).json() == rows[1]
    assert rows[1]["valid_from"] == later
    reader = service.client(await service.mint("*@*:read,export"))
    assert (await reader.get(f"{MANAGE}/schedules")).json() == {"schedules": []}
    assert (await http.delete(SCHEDULE)).json() == rows[1]
    refusal(await http.delete(SCHEDULE), 404, "not_found")
    refusal(await http.get(SCHEDULE), 404, "not_found")


async def test_a_history_tells_how_each_version_stands(service: Any, http: Any, later: str) -> None:
    """Saved, running, cancelled and scheduled; one that was activated tells at which revision."""
    await service.publish("orders", b'{"a": 1}')
    await http.put(CONFIG, params={"valid_from": later}, content=b'{"a": 2}')
    service.clock.advance(60)
    await service.app.activator.activate_due()
    moment = format_timestamp(service.clock.now + timedelta(minutes=1))
    for content in (b'{"a": 3}', b'{"a": 4}'):
        await http.put(CONFIG, params={"valid_from": moment}, content=content)
    rows = (await http.get(f"{CONFIG}/history")).json()["versions"]
    assert [(row["version"], row["state"], row["kind"]) for row in rows] == [
        (4, "scheduled", "scheduled"),
        (3, "cancelled", "scheduled"),
        (2, "running", "scheduled"),
        (1, "saved", "published"),
    ]
    assert [row["activated_revision"] for row in rows] == [None, None, rows[2]["revision"] + 1, None]
    assert rows[2]["activated_at"] == later == rows[2]["valid_from"]


async def test_rollbacks_and_drafts_can_wait_too(service: Any, http: Any, later: str) -> None:
    """The same parameter for all that makes a version; each ends what was scheduled before."""
    await service.publish("orders", b'{"a": 1}')
    await service.publish("orders", b'{"a": 2}')
    rolled = (await http.post(f"{CONFIG}/rollback", json={"version": 1, "valid_from": later})).json()
    assert (rolled["version"], rolled["scheduled"]) == (3, True)
    await http.put(f"{CONFIG}/draft", content=b'{"a": 3}')
    drafted = (await http.post(f"{CONFIG}/draft/publish", params={"valid_from": later})).json()
    assert (drafted["version"], drafted["scheduled"]) == (4, True)
    await http.put(f"{CONFIG}/draft", content=b'{"a": 4}')
    together = await http.post(f"{MANAGE}/drafts/publish", json={"drafts": [{"name": "orders"}], "valid_from": later})
    (row,) = together.json()["published"]
    assert (row["version"], row["scheduled"]) == (5, True)
    service.clock.advance(60)
    await service.app.activator.activate_due()
    assert (await http.get(CONFIG)).json()["version"] == 5


async def test_what_waits_can_be_compared_and_reverted_to_by_those_who_may_write(
    service: Any, http: Any, later: str
) -> None:
    """It is no secret to them; only nobody is served it."""
    await service.publish("orders", b'{"a": 1}')
    await http.put(CONFIG, params={"valid_from": later}, content=b'{"a": 2}')
    answer = await http.get(f"{CONFIG}/diff", params={"from": "running", "to": "2"})
    assert answer.json()["differences"] == [{"op": "changed", "path": "/a", "old": 1, "new": 2}]
    draft = (await http.post(f"{CONFIG}/draft/revert", json={"version": 2})).json()
    assert (draft["base"], draft["outdated"]) == (2, False)
