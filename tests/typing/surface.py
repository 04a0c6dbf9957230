"""What the types of the public surface promise. Checked by ``make typecheck``, never run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel
from typing_extensions import assert_type

from config_client import (
    AsyncConfigClient,
    Change,
    ConfigChangeEvent,
    ConfigClient,
    ConfigClientError,
    ConfigInfo,
    Format,
    GetOptions,
    Options,
    Snapshot,
    State,
    Subscription,
)


@dataclass
class Plain:
    port: int


class Model(BaseModel):
    port: int


def options() -> Options:
    return Options(
        "http://localhost",
        "token",
        "00" * 32,
        on_error=lambda error: print(type(error)),
        on_change=lambda name: print(name.upper()),
    )


def reading(client: ConfigClient) -> None:
    assert_type(client.get("orders", Plain), Plain)
    assert_type(client.get("orders", Model, GetOptions(environment="prod")), Model)
    assert_type(client.get_raw("orders"), dict[str, object])
    assert_type(client.get_bytes("orders"), bytes)
    assert_type(client.get_formatted("orders", Format.ENV), bytes)
    assert_type(client.list(), list[ConfigInfo])
    with ConfigClient.from_env(on_error=print) as other:
        assert_type(other, ConfigClient)


def watching(client: ConfigClient) -> None:
    snapshot: Snapshot[Plain] = Snapshot()
    client.watch_and_decode("orders", Plain, snapshot)
    client.watch_and_decode("orders", Model, snapshot)  # type: ignore[misc]  # a snapshot of something else
    assert_type(snapshot.load(), Plain | None)
    assert_type(snapshot.version, int | None)
    assert_type(snapshot.updated_at, datetime | None)
    assert_type(snapshot.wait_for(version=2, timeout=1.0), bool)

    def changed(change: Change[Plain]) -> None:
        assert_type(change.old, Plain | None)
        assert_type(change.new, Plain)

    stop = snapshot.on_change(changed)
    stop()

    def heard(event: ConfigChangeEvent) -> None:
        assert_type(event.version, int)
        assert_type(event.environment, str | None)

    client.watch("orders", heard)


def subscribing(client: ConfigClient) -> None:
    with client.subscribe("orders", Plain, pre_apply=lambda plain: plain.port > 0, default=Plain(1)) as orders:
        assert_type(orders, Subscription[Plain])
        assert_type(orders.load(), Plain | None)
        assert_type(orders.snapshot, Snapshot[Plain])
        assert_type(orders.status.state, State)
        assert_type(orders.status.since, datetime)
        assert_type(orders.error, ConfigClientError | None)
        assert_type(orders.age, float | None)

        def changed(change: Change[Plain]) -> None:
            assert_type(change.new.port, int)
            assert_type(change.paths, frozenset[str])

        orders.on_change(changed)
        orders.snapshot.on_path("port", changed)
    assert_type(client.status.state, State)


async def awaiting(client: AsyncConfigClient) -> None:
    async def proof(plain: Plain) -> bool:
        return plain.port > 0

    assert_type(await client.get("orders", Model), Model)
    assert_type(await client.get_raw("orders"), dict[str, object])
    assert_type(await client.list(), list[ConfigInfo])
    assert_type(await client.subscribe("orders", Plain, pre_apply=proof), Subscription[Plain])
    assert_type(client.status.state, State)
    async with AsyncConfigClient.from_env(on_error=print) as other:
        assert_type(other, AsyncConfigClient)
