"""Every request has an id and a peer, and every answer names the id, whoever gives it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from config_service import origin
from config_service.api.exchange import Exchange, new_request_id, request_id_of
from config_service.api.guard import Guard
from config_service.origin import INTERNAL, Origin

pytestmark = pytest.mark.anyio
FRESH = re.compile(r"[0-9a-f]{16}\Z")
CONFIG = "/api/v1/service/configs/orders"
BODY = b'{"a": 1}'
FIT = ["a", "r-1", "0f8fad5b-d9cb-469f-a165-70867728950e", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "a.b_c:d", "x" * 40]
UNFIT = [
    "",
    "x" * 41,
    "-a",
    "a b",
    "a\tb",
    "a\nb",
    "é",
    'a"b',
    "a/b",
    "<script>",
    "cst_a",
    "cst_" + "A" * 43,
    "A" * 43,
    "5a" * 32,
]


def scope(*ids: str, **changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "headers": [(b"x-request-id", one.encode("latin-1")) for one in ids],
    } | changes


@pytest.mark.parametrize("sent", FIT)
def test_an_id_that_a_proxy_made_is_kept(sent: str) -> None:
    """So that one id finds a request in the logs of both."""
    assert request_id_of(scope(sent)) == sent


@pytest.mark.parametrize("sent", UNFIT)
def test_an_id_that_could_spoil_a_log_or_hold_a_secret_is_not_kept(sent: str) -> None:
    """Bounded in characters and in length, below that of secrets and keys."""
    assert request_id_of(scope(sent)) is None


def test_of_two_ids_none_is_kept() -> None:
    """Nobody knows which of them a proxy logged."""
    assert request_id_of(scope("a", "a")) is None
    assert request_id_of(scope()) is None


def test_fresh_ids_are_fit_and_differ() -> None:
    """An id that this service made may go through another one of its kind."""
    made = {new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(request_id_of(scope(one)) == one for one in made)


@pytest.mark.parametrize(("client", "address"), [(("10.0.0.7", 4711), "10.0.0.7"), (("::1", 1), "::1"), (None, "")])
async def test_the_peer_is_known_by_its_address(client: object, address: str) -> None:
    """Without its port; a socket file has no peer."""

    async def nowhere(_message: object) -> None: ...

    assert Exchange(scope("r", client=client), nowhere).origin == Origin("r", address)


async def test_the_origin_is_current_within_a_request_and_in_the_tasks_that_it_starts(service: Any) -> None:
    """A commit goes on in a task of its own; what the service does by itself has no request."""
    seen: list[Origin] = []
    commit = service.store.commit_version

    async def commit_version(change: Any, link: Any) -> Any:
        seen.append(origin.current())
        return await commit(change, link)

    service.store.commit_version = commit_version
    headers = {"X-Request-Id": "r-77"}
    await service.client(service.admin).put("/api/v1/manage/configs/orders", content=b"{}", headers=headers)
    await service.publish("others")
    assert seen == [Origin("r-77", "127.0.0.1"), INTERNAL]
    assert origin.current() == INTERNAL


async def test_a_request_within_another_one_leaves_the_outer_origin_as_it_was() -> None:
    """An application may be mounted in another one that has a request under way."""

    async def ask(*_: Any) -> None:
        assert origin.current().request_id == "inner"

    async def unused(*_: Any) -> dict[str, object]:
        return {}

    entered = origin.enter(Origin("outer", ""))
    await Guard(ask)(scope("inner", raw_path=b"/", path="/", query_string=b""), unused, unused)
    assert origin.current().request_id == "outer"
    origin.leave(entered)


async def test_every_answer_names_the_id(service: Any) -> None:
    """Of the plain routes and the framework's, of successes, refusals and failures, once."""
    await service.publish("orders")
    requests = [
        ("GET", CONFIG, 200),
        ("HEAD", CONFIG, 200),
        ("GET", "/api/v1/service/configs/none", 404),
        ("GET", "/api/v1/service/nothing", 404),
        ("GET", "/api/v1/manage/configs", 200),
        ("GET", "/api/v1/manage/nothing", 404),
        ("DELETE", "/healthz", 405),
        ("PUT", "/api/v1/manage/configs/orders", 500),
        ("GET", "/a%2Fb", 400),
        ("GET", "/healthz", 200),
    ]
    http = service.client(service.admin)
    for number, (method, path, status) in enumerate(requests):
        service.store.fail = RuntimeError() if status == 500 else None
        given = await http.request(method, path, content=BODY, headers={"X-Request-Id": f"r-{number}"})
        assert (given.status_code, given.headers.get_list("x-request-id")) == (status, [f"r-{number}"]), path
        made = (await http.request(method, path, content=BODY)).headers.get_list("x-request-id")
        assert len(made) == 1, path
        assert FRESH.match(made[0])


@pytest.mark.e2e
def test_streams_and_what_is_not_http_are_answered_with_an_id(
    begin: Callable[..., Any], open_raw: Callable[..., Any]
) -> None:
    """A stream that takes its connection over, and the refusal of bytes that never became a request."""
    service = begin()
    service.publish(b"{}")
    headers = {"X-Service-Token": service.reader.secret}
    assert (
        open_raw(service.address, f"{CONFIG}/watch", **headers, **{"X-Request-Id": "w-1"}).headers["x-request-id"]
        == "w-1"
    )
    for request in (f"{CONFIG}/watch", b"no request\r\n\r\n"):
        fields = headers if isinstance(request, str) else {}
        assert FRESH.match(open_raw(service.address, request, **fields).headers["x-request-id"])
