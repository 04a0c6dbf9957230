"""The state-first watch below HTTP: what is stated, what is told, under which key, and how often that is sealed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from config_client.crypto import Binding, Keyring, seal_bound
from config_client.protocol import ConfigState, Held, Position, Standing, parse_config_state, parse_position
from config_service.delivery import sealed
from config_service.delivery.frames import StateTemplate, state_frame
from config_service.delivery.replay import ChangeFrame
from config_service.delivery.subscription import End, QueuedReader
from config_service.domain.errors import UnauthenticatedError, UnavailableError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, NewVersion
from config_service.security.tokens import MintedToken

pytestmark = pytest.mark.anyio
Told = list[tuple[str, ConfigState | Position | None]]


@pytest.fixture
def seals(monkeypatch: pytest.MonkeyPatch) -> list[Binding]:
    """What was sealed in format 2, one entry per seal."""
    done: list[Binding] = []

    def counted(plaintext: bytes, key: bytes, binding: Binding) -> bytes:
        done.append(binding)
        return seal_bound(plaintext, key, binding)

    monkeypatch.setattr(sealed, "seal_bound", counted)
    return done


def parsed(frames: bytes) -> Told:
    """Return the events, each with its data read as a client reads it."""
    told: Told = []
    for frame in frames.decode().split("\n\n")[:-1]:
        event, data = frame.removeprefix(":\n").split("\n")
        name, text = event.removeprefix("event: "), data.removeprefix("data: ")
        told.append((name, parse_position(text) if name == "synced" else parse_config_state(text)))
    return told


async def told(stream: QueuedReader, count: int) -> Told:
    """Return the next ``count`` events."""
    frames = b""
    while frames.count(b"\n\n") < count:
        frames += await asyncio.wait_for(stream.next(), 5) or b""
    return parsed(frames)


async def watch(
    service: Any, minted: MintedToken, *rows: Held, held: Collection[str] | None = None
) -> tuple[QueuedReader, Position]:
    key_ids = None if held is None else frozenset(held)
    opened = await service.operations.streams.watch(minted.token, rows, key_ids, QueuedReader)
    return opened.stream, opened.position


def opened(state: Any, *keys: bytes) -> tuple[Binding, bytes]:
    assert isinstance(state, ConfigState)
    return Keyring(keys).open_bound(state.payload)


async def test_every_standing_is_an_event_of_its_own(service: Any) -> None:
    """Running, deleted, missing and refused configs are stated on one stream, then it says that this was all."""
    reader = await service.mint("app-*@*:read")
    await service.publish("app-runs", b'{"n": 1}')
    await service.publish("app-gone", b"{}")
    await service.operations.delete(service.admin.token, ConfigKey("app-gone"))
    await service.publish("other", b"{}")
    stream, here = await watch(service, reader, *map(Held, ("app-runs", "app-gone", "app-none", "other")))
    runs, gone, none, refused, synced = [state for _, state in await told(stream, 5)]
    assert isinstance(runs, ConfigState)
    assert isinstance(gone, ConfigState)
    assert (runs.name, runs.standing, runs.version) == ("app-runs", Standing.RUNNING, 1)
    assert opened(runs, reader.key) == (
        Binding(here.epoch, "app-runs", "default", "main", 1, runs.position.revision if runs.position else 0),
        b'{"n": 1}',
    )
    assert (gone.name, gone.standing, gone.version, gone.payload) == ("app-gone", Standing.DELETED, 2, b"")
    assert none == ConfigState("app-none", "default", "main", Standing.MISSING)
    assert refused == ConfigState("other", "default", "main", Standing.REFUSED)
    assert synced == here == service.operations.position


async def test_what_the_client_holds_is_not_stated_again(service: Any, epoch: str) -> None:
    """Only at exactly the newest position, deleted configs included; any other revision or epoch is stated."""
    for name in ("same", "older", "other-epoch", "none"):
        await service.publish(name, b"{}")
    await service.publish("gone", b"{}")
    await service.operations.delete(service.admin.token, ConfigKey("gone"))
    newest = service.operations.position.revision
    at = {document.key.name: document.revision for document in service.app.operations._running}
    stream, _ = await watch(
        service,
        service.admin,
        Held("same", position=Position(epoch, at["same"])),
        Held("older", position=Position(epoch, at["older"] - 1)),
        Held("other-epoch", position=Position("f" * 24, at["other-epoch"])),
        Held("none"),
        Held("gone", position=Position(epoch, newest)),
    )
    events = await told(stream, 4)
    assert [state.name for _, state in events if isinstance(state, ConfigState)] == ["older", "other-epoch", "none"]
    assert events[-1] == ("synced", Position(epoch, newest))


async def test_rows_that_mean_the_same_config_are_one(service: Any, epoch: str) -> None:
    """Also by the token's default environment; stated once, when any of them differs."""
    reader = await service.mint(environment="prod")
    await service.publish("orders", b"{}", environment="prod")
    at = service.operations.position
    current, unnamed = Held("orders", "prod", "main", at), Held("orders", None, None, at)
    behind = Held("orders", position=Position(epoch, 1))
    streams = []
    for rows, events in (
        ((current, behind), ["config_state", "synced"]),
        ((behind, current), ["config_state", "synced"]),
        ((current, unnamed), ["synced"]),
    ):
        stream, _ = await watch(service, reader, *rows)
        assert [event for event, _ in await told(stream, len(events))] == events
        streams.append(stream)
    await service.publish("orders", b'{"n": 1}', environment="prod")
    for stream in streams:
        assert [event for event, _ in await told(stream, 1)] == ["config_changed"]
        assert not stream._waiting


async def test_changes_are_told_with_their_payload(service: Any, epoch: str) -> None:
    """Publish, rollback, delete, a first version and one after a delete: each an event, in order."""
    reader = await service.mint()
    await service.publish("orders", b'{"n": 1}')
    stream, _ = await watch(service, reader, Held("orders"), Held("later"), Held("orders", "prod"))
    await told(stream, 4)
    key, admin = ConfigKey("orders"), service.admin.token
    await service.publish("orders", b'{"n": 2}')
    await service.operations.rollback(admin, key, 1)
    await service.operations.delete(admin, key)
    await service.publish("unrelated", b"{}")
    await service.publish("later", b"{}")
    await service.publish("orders", b'{"n": 3}', environment="prod")
    await service.publish("orders", b'{"n": 4}')
    events = await told(stream, 6)
    assert {event for event, _ in events} == {"config_changed"}
    states = [state for _, state in events if isinstance(state, ConfigState)]
    assert [(one.name, one.environment, one.version, one.standing.value) for one in states] == [
        ("orders", "default", 2, "running"),
        ("orders", "default", 3, "running"),
        ("orders", "default", 4, "deleted"),
        ("later", "default", 1, "running"),
        ("orders", "prod", 1, "running"),
        ("orders", "default", 5, "running"),
    ]
    revisions = [one.position.revision for one in states if one.position]
    assert revisions == sorted(revisions)
    documents = [opened(one, reader.key)[1] for one in states if one.payload]
    assert documents == [b'{"n": 2}', b'{"n": 1}', b"{}", b'{"n": 3}', b'{"n": 4}']


async def test_a_refused_config_is_never_told(service: Any) -> None:
    """Neither when it changes nor when it is deleted."""
    reader = await service.mint("mine@*:read")
    stream, _ = await watch(service, reader, Held("mine"), Held("yours"))
    await told(stream, 3)
    await service.publish("yours", b'{"canary": "e81f"}')
    await service.publish("mine", b"{}")
    assert [state.name for _, state in await told(stream, 1) if isinstance(state, ConfigState)] == ["mine"]
    assert not stream._waiting


async def test_a_refused_config_stays_refused_however_often_it_is_asked_for(service: Any) -> None:
    """Rows that mean the same config count as one: a second one does not state what the first was refused."""
    reader = await service.mint("mine@*:read")
    await service.publish("yours", b'{"canary": "e81f"}')
    rows = Held("yours"), Held("yours", "default"), Held("yours", None, "main"), Held("yours")
    stream, here = await watch(service, reader, *rows)
    assert await told(stream, 2) == [
        ("config_state", ConfigState("yours", "default", "main", Standing.REFUSED)),
        ("synced", here),
    ]
    assert not stream._waiting


async def test_a_payload_is_sealed_once_for_all_streams_and_requests(service: Any, seals: list[Binding]) -> None:
    """Fifty streams of one token, with different sets of configs, and GETs: one seal per revision, the same bytes."""
    reader, other = await service.mint(), await service.mint()
    await service.publish("orders", b'{"n": 1}')
    streams = []
    for number in range(50):
        stream, _ = await watch(service, reader, Held("orders"), Held(f"none-{number % 5}"))
        streams.append(stream)
    stated = {state.payload for one in streams for _, state in await told(one, 3) if isinstance(state, ConfigState)}
    assert len(stated - {b""}) == 1
    assert len(seals) == 1
    await service.publish("orders", b'{"n": 2}')
    changed = [(await told(one, 1))[0][1] for one in streams]
    assert len({state.payload for state in changed if isinstance(state, ConfigState)}) == 1
    assert len(seals) == 2
    accept = {"Accept": "application/vnd.config-service.sealed; format=2"}
    for _ in range(3):
        answer = await service.client(reader, accept).get("/api/v1/service/configs/orders")
        assert {answer.content} == {state.payload for state in changed if isinstance(state, ConfigState)}
    assert len(seals) == 2
    stream, _ = await watch(service, other, Held("orders"))
    await told(stream, 2)
    assert len(seals) == 3


async def test_an_event_is_encoded_once_for_all_streams(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same bytes object goes to every stream of a key, whatever else each of them watches."""
    filled: list[bytes] = []
    fill = StateTemplate.fill

    def counted(template: StateTemplate, payload: bytes) -> bytes:
        filled.append(fill(template, payload))
        return filled[-1]

    monkeypatch.setattr(StateTemplate, "fill", counted)
    reader = await service.mint()
    streams = [(await watch(service, reader, Held("orders"), Held(f"none-{number}")))[0] for number in range(20)]
    for one in streams:
        await told(one, 3)
    await service.publish("orders", b"{}")
    assert len(filled) == 1
    frames = {id(one._waiting._frames[0]) for one in streams}
    assert frames == {id(filled[0])}


async def test_streams_that_hear_the_same_are_one_audience(service: Any) -> None:
    """By token, configs and keys held; the order of the rows does not matter."""
    first, second = await service.mint(), await service.mint()
    rows = [Held("a"), Held("b")]
    for minted, some, held in (
        (first, rows, None),
        (first, rows[::-1], None),
        (first, rows, {first.token.key_ids[0]}),
        (first, rows[:1], None),
        (second, rows, None),
    ):
        await watch(service, minted, *some, held=held)
    assert sorted(len(audience.streams) for audience in service.app._hub._audiences.values()) == [1, 1, 1, 2]


async def test_ten_thousand_configs_are_not_sealed_before_they_are_taken(service: Any, seals: list[Binding]) -> None:
    """Opening a stream costs no seal; each part that is taken costs its own."""
    for number in range(300):
        await service.publish(f"config-{number}", b'{"padding": "%s"}' % (b"." * 1000))
    stream, _ = await watch(service, service.admin, *(Held(f"config-{number}") for number in range(300)))
    assert seals == []
    frames = await stream.next() or b""
    assert 0 < len(seals) < 100
    while b"event: synced" not in frames:
        frames += await stream.next() or b""
    assert [binding.name for binding in seals] == [f"config-{number}" for number in range(300)]
    assert len(parsed(frames)) == 301


async def test_a_state_is_the_one_at_subscription_and_what_came_later_follows(service: Any) -> None:
    """A config that changes while the backlog waits is stated as it was, and told again behind synced."""
    await service.publish("orders", b'{"n": 1}')
    stream, _ = await watch(service, service.admin, Held("orders"))
    await service.publish("orders", b'{"n": 2}')
    events = await told(stream, 3)
    assert [event for event, _ in events] == ["config_state", "synced", "config_changed"]
    assert [state.version for _, state in events if isinstance(state, ConfigState)] == [1, 2]


async def test_a_rotated_key_reaches_open_streams_by_what_their_clients_hold(service: Any) -> None:
    """During the overlap the new key for who holds it, the old one for who does not or does not say."""
    reader = await service.mint()
    await service.publish("orders", b'{"n": 1}')
    silent, _ = await watch(service, reader, Held("orders"))
    old_id = reader.token.key_ids[0]
    old, _ = await watch(service, reader, Held("orders"), held={old_id})
    rotated = await service.operations.tokens.rotate_key(service.admin.token, reader.token.id, 3600)
    new_id = rotated.token.key_ids[0]
    both, _ = await watch(service, reader, Held("orders"), held={old_id, new_id})
    for stream in (silent, old, both):
        await told(stream, 2)
    await service.publish("orders", b'{"n": 2}')
    for stream, key in ((silent, reader.key), (old, reader.key), (both, rotated.key)):
        ((_, state),) = await told(stream, 1)
        assert opened(state, key)[1] == b'{"n": 2}'
    service.clock.advance(timedelta(hours=2).total_seconds())
    await service.publish("orders", b'{"n": 3}')
    for stream in (silent, old, both):
        ((_, state),) = await told(stream, 1)
        assert opened(state, rotated.key)[1] == b'{"n": 3}'


async def test_revoking_and_stopping_end_these_streams_as_any_other(service: Any) -> None:
    """With the reason; a revoked token opens no other one, also when its body was on the way."""
    first, second = await service.mint(), await service.mint()
    revoked, _ = await watch(service, first, Held("orders"))
    stopped, _ = await watch(service, second, Held("orders"))
    await service.operations.tokens.revoke(service.admin.token, first.token.id)
    assert revoked.ended is End.REVOKED
    with pytest.raises(UnauthenticatedError):
        await watch(service, first, Held("orders"))
    service.app.end_streams()
    assert stopped.ended is End.SHUTDOWN
    with pytest.raises(UnavailableError):
        await watch(service, second, Held("orders"))
    assert service.app._hub._listening == {}


async def test_a_token_revoked_while_a_change_is_being_told_is_sealed_for_no_more(
    service: Any, seals: list[Binding], caplog: pytest.LogCaptureFixture
) -> None:
    """Its streams are over, its keys are gone, and nobody finds that worth a line in the log."""
    await service.publish("orders", b"{}")
    first, second = await service.mint(), await service.mint()
    key, hub = ConfigKey("orders"), service.app._hub
    document = service.operations._running.get(key)
    here = Held("orders", position=Position(service.store.epoch, document.revision))
    streams = [(await watch(service, first, here))[0] for _ in range(1500)]
    revoked, _ = await watch(service, second, here)
    hub.publish(ChangeFrame(key, service.operations.position.revision + 1, b""), document)
    assert not streams[-1]._waiting._frames
    service.app._feed._tokens.revoke(second.token.id, service.clock())
    hub.end_token(second.token.id)
    assert [event for event, _ in await told(streams[-1], 1)] == ["synced"]
    assert [event for event, _ in await told(streams[-1], 1)] == ["config_changed"]
    assert revoked.ended is End.REVOKED
    assert len(seals) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_is_ahead_waits_for_the_log(service: Any, epoch: str) -> None:
    """What another process committed is read from the log, and then stated."""
    await service.publish("orders", b'{"n": 1}')
    newest = service.operations.position.revision
    vault, key = service.app._vault, ConfigKey("orders")
    content = vault.seal_document(b'{"n": 2}', key, 2)
    await service.store.commit_version(NewVersion(key, 1, content, ChangeKind.PUBLISHED, 1, service.clock()))
    stream, here = await watch(service, service.admin, Held("orders", position=Position(epoch, newest + 1)))
    assert here == Position(epoch, newest + 1)
    assert [event for event, _ in await told(stream, 1)] == ["synced"]
    stream, _ = await watch(service, service.admin, Held("orders", position=Position(epoch, newest)))
    assert [state.version for _, state in await told(stream, 2) if isinstance(state, ConfigState)] == [2]


async def test_a_client_that_stays_ahead_is_told_to_come_back(
    service: Any, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that a request may wait. Positions of other epochs are nothing to wait for."""
    monkeypatch.setattr("config_service.delivery.reaching.PATIENCE", 0.05)
    ahead = Position(epoch, 10**9)
    with pytest.raises(UnavailableError, match="revision 1000000000"):
        await watch(service, service.admin, Held("orders", position=ahead))
    assert len(service.app._hub) == 0
    for other in ("0" * 24, "f" * 24):
        stream, _ = await watch(service, service.admin, Held("orders", position=Position(other, 10**9)))
        assert [event for event, _ in await told(stream, 2)] == ["config_state", "synced"]


async def test_a_change_that_cannot_be_sealed_cuts_its_streams_and_no_others(
    service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their clients come back and are told then; the log has the type of the failure and none of its text."""
    stream, _ = await watch(service, service.admin, Held("orders"))
    await service.publish("orders", b"{}")
    base = service.operations.streams.subscribe(service.admin.token, "orders")
    await told(stream, 3)

    def failing(*_: object) -> bytes:
        raise RuntimeError("canary-30aa")

    monkeypatch.setattr(sealed, "seal_bound", failing)
    with caplog.at_level(logging.DEBUG):
        await service.publish("orders", b'{"n": 2}')
    assert stream.ended is End.FAILED
    assert b"config_changed" in (await base.next() or b"")
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text


@pytest.fixture
def states() -> list[ConfigState]:
    """States with every character that names, environments and labels may have."""
    texts = ("a", "A-z.0_9", "x" * 128)
    labels = ("main", "team/next/1", "l" * 128)
    return [
        ConfigState(name, environment, label, Standing.RUNNING, Position("0" * 24, 7), 3, 1)
        for name in texts
        for environment in texts
        for label in labels
    ]


async def test_a_template_that_is_filled_is_the_event_itself(states: list[ConfigState]) -> None:
    """Byte for byte what encoding the whole state gives, for every payload."""
    for state in states:
        template = StateTemplate("config_changed", state)
        for payload in (b"", b"\x00", b"\xfb\xef\xbe" * 4, b"x" * 1000):
            assert template.fill(payload) == state_frame("config_changed", state._replace(payload=payload))
    assert json.loads(template.fill(b"").decode().split("data: ")[1])["payload"] == ""
