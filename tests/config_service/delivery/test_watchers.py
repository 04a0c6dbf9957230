"""Who is watching what: what a stream was sent, and what waits, follow from what happened to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from config_client.protocol import Held, Position
from config_service import origin
from config_service.delivery import watchers as watchers_module
from config_service.delivery.subscription import QueuedReader
from config_service.delivery.watchers import Watcher
from config_service.domain.errors import AccessDeniedError
from config_service.domain.keys import ConfigKey
from config_service.origin import Origin

pytestmark = pytest.mark.anyio
ORDERS = ConfigKey("orders")
ROUTE = "/api/v1/manage/watchers"


def rows(service: Any, name: str | None = None, environment: str | None = None) -> list[Watcher]:
    told: list[Watcher] = service.operations.streams.watchers(service.admin.token, name, environment).watchers
    return told


def told(service: Any, name: str = "orders") -> list[tuple[object, ...]]:
    """Of the only stream: name, version sent, version running, behind or not."""
    (watcher,) = rows(service, name)
    return [
        (
            one.key.name,
            None if one.sent is None else one.sent.version,
            None if one.running is None else one.running.version,
            one.behind,
        )
        for one in watcher.configs
    ]


async def watch(service: Any, *held: Held) -> QueuedReader:
    stream: QueuedReader = (
        await service.operations.streams.watch(service.admin.token, held or [Held("orders")], None, QueuedReader)
    ).stream
    return stream


async def test_a_state_first_stream_holds_what_it_was_stated_and_told(service: Any) -> None:
    """What is on its way counts as waiting; once it is taken, it was sent."""
    await service.publish("orders")
    stream = await watch(service)
    assert told(service) == [("orders", None, 1, True)]
    await stream.next()
    assert told(service) == [("orders", 1, 1, False)]
    for version in (2, 3):
        await service.publish("orders", b'{"n": %d}' % version)
    assert told(service) == [("orders", 1, 3, True)]
    (watcher,) = rows(service)
    assert (watcher.queued, watcher.behind) == (2, True)
    await stream.next()
    assert told(service) == [("orders", 3, 3, False)]
    (watcher,) = rows(service)
    assert (watcher.queued, watcher.behind) == (0, False)


async def test_what_a_client_holds_already_counts_as_sent(service: Any, epoch: str) -> None:
    """It is not stated again, and the stream is not behind."""
    await service.publish("orders")
    revision = service.operations.position.revision
    stream = await watch(service, Held("orders", position=Position(epoch, revision)))
    await stream.next()
    assert told(service) == [("orders", 1, 1, False)]


async def test_only_the_configs_whose_changes_wait_are_behind(service: Any) -> None:
    """Of several on one stream; a heartbeat that waits is no change."""
    for name in ("orders", "others"):
        await service.publish(name)
    stream = await watch(service, Held("orders"), Held("others"), Held("nothing"))
    await stream.next()
    stream.beat()
    await service.publish("others", b'{"n": 1}')
    (watcher,) = rows(service)
    state = {one.key.name: (None if one.sent is None else one.sent.version, one.behind) for one in watcher.configs}
    assert state == {"orders": (1, False), "others": (1, True), "nothing": (None, False)}
    assert watcher.queued == 2


async def test_a_later_stream_of_the_same_audience_is_told_apart(service: Any) -> None:
    """One keeps up, the other does not: they hear the same frames."""
    await service.publish("orders")
    slow, fast = await watch(service), await watch(service)
    await slow.next()
    await fast.next()
    await service.publish("orders", b'{"n": 2}')
    await fast.next()
    late = await watch(service)
    await late.next()
    assert [(one.configs[0].sent.version, one.behind) for one in rows(service) if one.configs[0].sent] == [
        (1, True),
        (2, False),
        (2, False),
    ]
    assert slow.queued == 1


async def test_a_base_stream_was_sent_changes_only(service: Any) -> None:
    """What ran before, its client has fetched by itself; in every environment that it may read."""
    await service.publish("orders")
    await service.publish("orders", environment="prod")
    stream = service.operations.streams.subscribe(service.admin.token, "orders")
    assert told(service) == [("orders", None, 1, False), ("orders", None, 1, False)]
    await service.publish("orders", b'{"n": 2}', environment="prod")
    assert told(service) == [("orders", None, 1, False), ("orders", None, 2, True)]
    await stream.next()
    assert told(service) == [("orders", None, 1, False), ("orders", 2, 2, False)]
    assert [len(one.configs) for one in rows(service, environment="prod")] == [1]


async def test_a_filter_names_streams_and_configs(service: Any) -> None:
    """Streams about other configs are left out; so are other configs of the same stream."""
    for name in ("orders", "others"):
        await service.publish(name)
    await watch(service, Held("orders"), Held("others"))
    service.operations.streams.subscribe(service.admin.token, "others")
    assert [len(one.configs) for one in rows(service)] == [1, 2] or [len(one.configs) for one in rows(service)] == [
        2,
        1,
    ]
    assert [one.key.name for watcher in rows(service, "orders") for one in watcher.configs] == ["orders"]
    assert len(rows(service, "others")) == 2
    assert rows(service, "others", "prod") == []
    assert rows(service, "nothing") == []


async def test_more_changes_wait_than_are_remembered(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then those that are remembered are told; nothing fails."""
    await service.publish("orders")
    stream = await watch(service)
    await stream.next()
    stream.audience.latest.clear()
    for version in range(3):
        await service.publish("orders", b'{"n": %d}' % version)
    stream.audience.latest.popleft()
    assert told(service) == [("orders", 2, 4, True)]


async def test_an_answer_is_bounded(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling takes time in which nothing else is answered."""
    monkeypatch.setattr(watchers_module, "MAX_ROWS", 5)
    await service.publish("orders")
    for _ in range(3):
        service.operations.streams.subscribe(service.admin.token, "orders")
    answer = (await service.client(service.admin).get(ROUTE)).json()
    assert answer["truncated"] is True
    assert len(answer["watchers"]) == 2


async def test_only_an_admin_is_told(service: Any) -> None:
    """The rows tell of tokens and of every config."""
    reader = await service.mint("*@*:read,export,write")
    with pytest.raises(AccessDeniedError):
        service.operations.streams.watchers(reader.token)
    assert (await service.client(reader).get(ROUTE)).status_code == 403
    assert (await service.client().get(ROUTE)).status_code == 401


async def test_the_answer_names_token_address_and_time(service: Any, clock: Any) -> None:
    """Who, from where, since when; then each config."""
    await service.publish("orders")
    minted = await service.mint()
    entered = origin.enter(Origin("r", "10.0.0.7"))
    stream = await service.operations.streams.watch(minted.token, [Held("orders"), Held("gone")], None, QueuedReader)
    origin.leave(entered)
    await stream.stream.next()
    clock.advance(60)
    answer = (await service.client(service.admin).get(ROUTE, params={"config": "orders"})).json()
    assert answer == {
        "watchers": [
            {
                "token_id": minted.token.id,
                "token_name": "test",
                "address": "10.0.0.7",
                "since": (clock.now - timedelta(seconds=60)).isoformat(),
                "kind": "state",
                "behind": False,
                "queued_frames": 0,
                "configs": [
                    {
                        "name": "orders",
                        "environment": "default",
                        "label": "main",
                        "running_version": 1,
                        "running_revision": 2,
                        "deleted": False,
                        "sent_version": 1,
                        "sent_revision": 2,
                        "behind": False,
                    }
                ],
            }
        ],
        "truncated": False,
    }


@pytest.mark.parametrize("query", ["config=a%2Fb", "environment=-", "config=a&config=b", "config=" + "x" * 200])
async def test_a_malformed_filter_is_refused(service: Any, query: str) -> None:
    """400, as everywhere."""
    assert (await service.client(service.admin).get(f"{ROUTE}?{query}")).status_code == 400
