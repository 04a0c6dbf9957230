"""Rotating the keys of a store while it is used: nothing is lost, everything opens, old keys are destroyed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from config_service.app import Application, create_app
from config_service.domain.errors import AccessDeniedError, StoreCorruptError, WrongMasterKeyError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, KeyUse
from config_service.domain.scopes import SERVICE_SCOPES
from config_service.domain.sealing import SealedPlace, data_key_id
from config_service.key_operations import Step
from config_service.security.tokens import Token
from config_service.settings import Settings
from config_service.verifying import Verification

pytestmark = pytest.mark.anyio
OLD, NEW = "5a" * 32, "7b" * 32
DAMAGED = (
    "c3 (default, main) version 1 does not open under data key 2: the store was damaged or altered; restore it from a "
    "backup"
)
KEYS = [ConfigKey(f"c{number}") for number in range(12)]


async def started(path: Path, master_key: str = OLD, *previous: str) -> Application:
    settings = Settings.load(
        master_key=master_key, previous_master_keys=",".join(previous), store_url=f"sqlite:///{path}"
    )
    app = create_app(settings)
    await app.start()
    return app


async def filled(app: Application) -> Token:
    """Publish two versions of every config, drafts, a schema and tokens; return the admin."""
    admin = (await app.operations.tokens.bootstrap("admin")).token
    await app.operations.tokens.bootstrap("reader", SERVICE_SCOPES)
    for key in KEYS:
        await app.operations.publish(admin, key, b'{"version": 1}')
        await app.operations.publish(admin, key, b'{"version": 2}')
    await app.operations.delete(admin, KEYS[-1])
    await app.operations.schemas.set(admin, KEYS[0], b'{"required": ["version"]}')
    for key in KEYS[:3]:
        await app.operations.drafts.replace(admin, key, b'{"version": "draft"}')
    return admin


async def reseal_all(app: Application, admin: Token, limit: int = 5) -> list[Step]:
    steps: list[Step] = []
    after: SealedPlace | None = None
    while not steps or after is not None:
        steps.append(await app.operations.keys.reseal(admin, after, limit))
        after = steps[-1].after
    return steps


async def everything(app: Application, admin: Token) -> list[object]:
    """Return all that can be read, in the clear."""
    operations = app.operations
    read: list[object] = [[token.keys for token in operations.tokens.list(admin)]]
    for key in KEYS:
        newest = operations.newest(admin, key).version
        older = [info for info in await operations.history(admin, key) if not info.deleted and info.version != newest]
        read += [(await operations._finder.find(key, info.version)).content for info in older]
    read += [(await operations.drafts.read(admin, key)).content for key in KEYS[:3]]
    return [*read, (await operations.schemas.read(admin, KEYS[0])).raw]


async def sound(app: Application) -> bool:
    verification = Verification(app._store, app._vault, app._keys.hold)
    async for _ in verification.run():
        pass
    assert verification.report.findings == ()
    return True


async def uses(app: Application, admin: Token) -> dict[int, tuple[KeyUse, int]]:
    return {key.id: (key.use, key.values) for key in (await app.operations.keys.list(admin)).keys}


async def test_a_rotation_and_a_reseal_leave_everything_readable_and_one_key(tmp_path: Path) -> None:
    """Everything is under the new key, the old one is destroyed, the log tells of both and still verifies."""
    app = await started(tmp_path / "store.db")
    admin = await filled(app)
    before = await everything(app, admin)
    total = sum((await app._store.sealed_counts()).values())
    assert await uses(app, admin) == {1: (KeyUse.CHAIN, 0), 2: (KeyUse.ACTIVE, total)}
    await app.operations.keys.rotate(admin)
    await app.operations.publish(admin, KEYS[0], b'{"version": 3}')
    assert await uses(app, admin) == {
        1: (KeyUse.CHAIN, 0),
        2: (KeyUse.RETIRED, total),
        3: (KeyUse.ACTIVE, 1),
    }
    steps = await reseal_all(app, admin)
    assert sum(step.resealed for step in steps) == total
    assert (steps[-1].destroyed, steps[-1].remaining) == ((2,), 0)
    assert await uses(app, admin) == {1: (KeyUse.CHAIN, 0), 3: (KeyUse.ACTIVE, total + 1)}
    assert [entry.kind for entry in (await app._store.log(0, 1000))[-3:]] == [
        ChangeKind.DATA_KEY_CREATED,
        ChangeKind.PUBLISHED,
        ChangeKind.DATA_KEYS_DESTROYED,
    ]
    assert await sound(app)
    await app.stop()
    again = await started(tmp_path / "store.db")
    admin = again.operations._registry.get(1)  # type: ignore[assignment]
    after = await everything(again, admin)
    assert [one for one in after if one != b'{"version": 2}'] == [one for one in before if one != b'{"version": 2}']
    assert await sound(again)
    assert all(step.resealed == 0 for step in await reseal_all(again, admin))
    await again.stop()


async def test_publishes_edits_and_rotations_during_a_reseal_are_neither_lost_nor_left_behind(tmp_path: Path) -> None:
    """Writers go on all the while, the data key is rotated in between; two passes later only one key is left."""
    app = await started(tmp_path / "store.db")
    admin = await filled(app)
    operations = app.operations
    await operations.keys.rotate(admin)
    published: dict[ConfigKey, int] = {}

    async def write(key: ConfigKey) -> None:
        for number in range(8):
            outcome = await operations.publish(admin, key, b'{"version": "w%d"}' % number)
            published[key] = outcome.document.version
            await operations.drafts.replace(admin, key, b'{"version": "edited %d"}' % number)
            await operations.tokens.rotate_key(admin, 2, 0)

    writers = asyncio.gather(*(write(key) for key in KEYS[:4]))
    await reseal_all(app, admin, limit=2)
    await operations.keys.rotate(admin)
    await reseal_all(app, admin, limit=3)
    await writers
    await reseal_all(app, admin, limit=7)
    held = await uses(app, admin)
    assert sorted(use for use, _ in held.values()) == [KeyUse.ACTIVE, KeyUse.CHAIN]
    for key in KEYS[:4]:
        assert (await app._store.versions(key))[-1].version == published[key]
        assert operations.newest(admin, key).content == b'{"version": "w7"}'
        assert (await operations.drafts.read(admin, key)).content == b'{"version": "edited 7"}'
    assert await sound(app)
    await app.stop()


async def test_a_replica_that_has_not_heard_of_a_rotation_loses_nothing(tmp_path: Path) -> None:
    """It seals under the old key, is refused, hears of the new one and seals again; what was resealed it opens too."""
    app = await started(tmp_path / "store.db")
    admin = await filled(app)
    settings = Settings.load(master_key=OLD, store_url="sqlite:///nowhere.db")
    replica = Application(settings, app._store, app._hub._clock)
    await replica._keys.unlock()
    await replica._feed.start()
    for number, change in enumerate(
        (
            lambda: replica.operations.publish(admin, KEYS[4], b'{"version": "replica"}'),
            lambda: replica.operations.drafts.replace(admin, KEYS[4], b"{}"),
            lambda: replica.operations.schemas.set(admin, KEYS[4], b"{}"),
            lambda: replica.operations.tokens.rotate_key(admin, 2, 60),
            lambda: replica.operations.tokens.create(admin, "new"),
            lambda: replica.operations.drafts.publish(admin, KEYS[4]),
            lambda: replica.operations.drafts.read(admin, KEYS[1]),
            lambda: replica.operations._finder.find(KEYS[5], 1),
            lambda: replica.operations.schemas.read(admin, KEYS[0]),
            replica._feed.catch_up,
        )
    ):
        await app.operations.keys.rotate(admin)
        await reseal_all(app, admin, limit=1000)
        assert replica._vault.active == 2 + number, "the replica has not heard of this rotation"
        work: Awaitable[Any] = change()
        await work
        await replica._feed.catch_up()
        assert replica._vault.active == app._vault.active == 3 + number
        await app._feed.catch_up()
    assert await sound(app)
    assert {data_key_id(value.sealed) for value in await app._store.sealed_values(None, 1000)} <= {11, 12}
    await app.stop()


async def test_replicas_on_one_postgresql_rotate_and_seal_anew_while_both_write(postgres_url: str) -> None:
    """Writers on both, rotations through either, steps through both: nothing lost, one key left, the log verifies."""
    apps = []
    for _ in range(2):
        app = create_app(Settings.load(master_key=NEW, previous_master_keys=OLD, store_url=postgres_url))
        await app.start()
        apps.append(app)
    admin = (await apps[0].operations.tokens.bootstrap("admin")).token
    await apps[1].operations.hear()

    async def write(app: Application, key: ConfigKey) -> None:
        for number in range(12):
            content = b'{"number": %d, "by": %d}' % (number, apps.index(app))
            await app.operations.publish(admin, key, content)
            acknowledged.add((key, content))
            await app.operations.drafts.replace(admin, key, b'{"draft": %d}' % number)

    acknowledged: set[tuple[ConfigKey, bytes]] = set()
    writers = asyncio.gather(*(write(app, key) for app in apps for key in KEYS[:3]))
    for turn in range(3):
        await apps[turn % 2].operations.keys.rotate(admin)
        await reseal_all(apps[(turn + 1) % 2], admin, limit=8)
    await writers
    for app in apps:
        await reseal_all(app, admin, limit=50)
        await app.operations.keys.rotate_master(admin)
    assert sorted(use for use, _ in (await uses(apps[0], admin)).values()) == [KeyUse.ACTIVE, KeyUse.CHAIN]
    for app in apps:
        await app.operations.hear()
        for key in KEYS[:3]:
            versions = [await app.operations._finder.find(key, number) for number in range(1, 25)]
            assert {(key, one.content) for one in versions} == {one for one in acknowledged if one[0] == key}
            assert (await app.operations.drafts.read(admin, key)).content is not None
        assert await sound(app)
        await app.stop()


async def test_a_reseal_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """Whatever step it ended at, the next one begins from the front and does what is left."""
    for steps in range(0, 9, 2):
        path = tmp_path / f"{steps}.db"
        app = await started(path)
        admin = await filled(app)
        await app.operations.keys.rotate(admin)
        after = None
        for _ in range(steps):
            after = (await app.operations.keys.reseal(admin, after, 3)).after
        await app.stop()
        app = await started(path)
        told = await reseal_all(app, admin)
        assert (told[-1].destroyed, told[-1].remaining) == ((2,), 0)
        assert await sound(app)
        await app.stop()


async def test_a_damaged_value_is_named_and_its_key_is_kept(tmp_path: Path) -> None:
    """The rest is sealed anew; nothing is destroyed that the damaged one might need."""
    path = tmp_path / "store.db"
    app = await started(path)
    admin = await filled(app)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(
        "UPDATE versions SET document = substr(document, 1, length(document) - 1) WHERE name = 'c3' AND version = 1"
    )
    connection.close()
    await app.operations.keys.rotate(admin)
    steps = await reseal_all(app, admin)
    assert [fault for step in steps for fault in step.damaged] == [DAMAGED]
    assert (steps[-1].destroyed, steps[-1].remaining) == ((), 1)
    assert (await uses(app, admin))[2] == (KeyUse.RETIRED, 1)
    await app.stop()


async def test_the_master_key_is_rotated_in_steps_that_any_replica_survives(tmp_path: Path) -> None:
    """With both keys, before and after; with the old one before; with the new one after; never with a wrong one."""
    path = tmp_path / "store.db"
    app = await started(path)
    admin = await filled(app)
    before = await everything(app, admin)
    await app.stop()
    for master_keys, opens in (((OLD,), True), ((NEW, OLD), True), ((NEW,), False), (("00" * 32,), False)):
        await _try(path, master_keys, opens=opens)
    app = await started(path, NEW, OLD)
    await app.operations.keys.rotate(admin)
    ring = await app.operations.keys.list(admin)
    (wrapping,) = {key.master_key for key in ring.keys}
    assert wrapping != ring.master_key, "a data key that is made meanwhile is one that replicas with the old key open"
    ring, changed = await app.operations.keys.rotate_master(admin)
    assert changed
    assert {key.master_key for key in ring.keys} == {ring.master_key}
    _, changed = await app.operations.keys.rotate_master(admin)
    assert not changed
    await app.stop()
    for master_keys, opens in (((OLD,), False), ((NEW, OLD), True), ((NEW,), True), ((OLD, NEW), True)):
        await _try(path, master_keys, opens=opens)
    app = await started(path, NEW)
    assert await everything(app, admin) == before
    assert await sound(app)
    app._vault.verify_check(await app._store.seal_check(b"another"))
    await app.stop()


async def _try(path: Path, master_keys: tuple[str, ...], *, opens: bool) -> None:
    if opens:
        await (await started(path, *master_keys)).stop()
    else:
        with pytest.raises(WrongMasterKeyError, match="CONFIG_SERVER_PREVIOUS_MASTER_KEYS"):
            await started(path, *master_keys)


async def test_a_replica_without_the_new_master_key_goes_on(tmp_path: Path) -> None:
    """It holds the keys themselves. It cannot rotate any more, and says which setting it lacks."""
    app = await started(tmp_path / "store.db", NEW, OLD)
    admin = await filled(app)
    await app.stop()
    app = await started(tmp_path / "store.db", OLD, NEW)
    settings = Settings.load(master_key=NEW, store_url="sqlite:///nowhere.db")
    replica = Application(settings, app._store, app._hub._clock)
    await replica._keys.unlock()
    await replica._feed.start()
    await app.operations.keys.rotate_master(admin)
    await replica._feed.catch_up()
    await replica.operations.publish(admin, KEYS[0], b'{"version": "replica"}')
    assert (await replica.operations.drafts.read(admin, KEYS[0])).content == b'{"version": "draft"}'
    with pytest.raises(WrongMasterKeyError):
        await replica.operations.keys.rotate(admin)
    await app._feed.catch_up()
    assert await sound(app)
    await app.stop()


async def test_only_an_admin_may_touch_keys_or_read_the_log(tmp_path: Path) -> None:
    """Whatever else a token may."""
    app = await started(tmp_path / "store.db")
    await filled(app)
    reader = app.operations._registry.get(2)
    assert reader is not None
    operations = app.operations
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: operations.keys.list(reader),
        lambda: operations.keys.rotate(reader),
        lambda: operations.keys.rotate_master(reader),
        lambda: operations.keys.reseal(reader, None),
        lambda: operations.audit.head(reader),
        lambda: anext(operations.audit.verify(reader)),
    )
    for call in calls:
        with pytest.raises(AccessDeniedError):
            await call()
    await app.stop()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE data_keys SET wrapped = zeroblob(length(wrapped)) WHERE id = 2",
        "UPDATE data_keys SET wrapped = substr(wrapped, 1, 60) WHERE id = 2",
        "UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE id = 1) WHERE id = 2",
        "UPDATE data_keys SET use = 'retired' WHERE id = 2",
        "UPDATE data_keys SET created_at = '2020-01-01T00:00:00+00:00' WHERE id = 2",
        "UPDATE data_keys SET id = 3 WHERE id = 2",
        "DELETE FROM data_keys WHERE id = 2",
        "DELETE FROM data_keys WHERE id = 1",
        "DELETE FROM data_keys",
    ],
)
async def test_a_key_that_was_altered_or_taken_out_stops_the_start(tmp_path: Path, statement: str) -> None:
    """Nobody can make a key of his own, turn a retired one on again, or have the service invent new ones."""
    path = tmp_path / "store.db"
    app = await started(path)
    await filled(app)
    await app.stop()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    with pytest.raises((StoreCorruptError, WrongMasterKeyError)):
        await started(path)
