"""The operations on configs: rights first, then validity, then compare-and-set, then durable and served."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from config_client.crypto import decrypt
from config_client.types import Format
from config_service.domain.errors import (
    AccessDeniedError,
    ConflictError,
    DocumentTooLargeError,
    InvalidDocumentError,
    NotFoundError,
    NotRenderableError,
    PreconditionFailedError,
    StoreError,
    StoreFullError,
    UnauthenticatedError,
)
from config_service.domain.keys import ConfigKey
from config_service.domain.preconditions import Precondition
from config_service.domain.records import ChangeKind, Link, NewVersion
from config_service.store.protocol import VersionConflictError

pytestmark = pytest.mark.anyio
ORDERS = ConfigKey("orders")


async def publish(service: Any, content: bytes, condition: Precondition | None = None) -> Any:
    return await service.operations.publish(service.admin.token, ORDERS, content, condition or Precondition())


async def test_what_was_published_is_read_byte_for_byte(service: Any) -> None:
    """White space, order and spelling are kept, and versions count from 1."""
    raw = b'{ "b": 1.10,\n\t"a": "\\u00e9" }\n'
    outcome = await publish(service, raw)
    document = await service.operations.read(service.admin.token, ORDERS)
    assert document.content == raw
    key = service.operations.key_for(service.admin.token, None)
    assert (outcome.changed, document.version, document.changed_by) == (True, 1, service.admin.token.id)
    assert decrypt(service.operations.seal(document, key), service.admin.key) == raw


async def test_the_store_sees_documents_sealed_only(service: Any) -> None:
    """What is at rest opens under the master key and nothing else."""
    await publish(service, b'{"password": "canary-1"}')
    assert b"canary-1" not in repr(service.store.held).encode()
    assert service.admin.key not in service.store.held_tokens[0].keys


async def test_identical_bytes_make_no_version(service: Any) -> None:
    """The running version is the answer; the log does not grow."""
    await publish(service, b'{"a": 1}')
    entries = len(service.store.entries)
    outcome = await publish(service, b'{"a": 1}')
    assert (outcome.changed, outcome.document.version) == (False, 1)
    assert len(service.store.entries) == entries
    assert (await publish(service, b'{"a":1}')).document.version == 2


async def test_older_versions_stay_readable(service: Any) -> None:
    """By number; the running one by its number as well."""
    for number in (1, 2, 3):
        await publish(service, b'{"n": %d}' % number)
    for number in (1, 2, 3):
        document = await service.operations.read(service.admin.token, ORDERS, number)
        assert (document.version, document.content) == (number, b'{"n": %d}' % number)


async def test_a_delete_is_a_version_that_is_not_found(service: Any) -> None:
    """The tombstone takes the next version; older versions stay; publishing again goes on counting."""
    await publish(service, b'{"a": 1}')
    deleted = await service.operations.delete(service.admin.token, ORDERS)
    assert (deleted.document.version, deleted.document.deleted) == (2, True)
    for number in (None, 2):
        with pytest.raises(NotFoundError):
            await service.operations.read(service.admin.token, ORDERS, number)
    assert (await service.operations.read(service.admin.token, ORDERS, 1)).content == b'{"a": 1}'
    assert (await publish(service, b'{"a": 1}')).document.version == 3


async def test_nothing_running_cannot_be_deleted(service: Any) -> None:
    """Never published and deleted already are both not found."""
    with pytest.raises(NotFoundError):
        await service.operations.delete(service.admin.token, ORDERS)
    await publish(service, b"{}")
    await service.operations.delete(service.admin.token, ORDERS)
    with pytest.raises(NotFoundError):
        await service.operations.delete(service.admin.token, ORDERS)


async def test_a_rollback_publishes_an_old_document_as_a_new_version(service: Any) -> None:
    """Its source is told in the history; rolling back to what runs changes nothing."""
    await publish(service, b'{"a": 1}')
    await publish(service, b'{"a": 2}')
    outcome = await service.operations.rollback(service.admin.token, ORDERS, 1)
    assert (outcome.document.version, outcome.document.content) == (3, b'{"a": 1}')
    newest = (await service.operations.history(service.admin.token, ORDERS))[0]
    assert (newest.kind, newest.source_version) == (ChangeKind.ROLLED_BACK, 1)
    assert not (await service.operations.rollback(service.admin.token, ORDERS, 3)).changed


async def test_a_rollback_brings_a_deleted_config_back(service: Any) -> None:
    """Nothing acknowledged is lost by a delete."""
    await publish(service, b'{"a": 1}')
    await service.operations.delete(service.admin.token, ORDERS)
    assert (await service.operations.rollback(service.admin.token, ORDERS, 1)).document.version == 3
    assert (await service.operations.read(service.admin.token, ORDERS)).content == b'{"a": 1}'


async def test_there_is_no_rollback_to_a_tombstone_or_an_unknown_version(service: Any) -> None:
    """Not found, and nothing changes."""
    await publish(service, b"{}")
    await service.operations.delete(service.admin.token, ORDERS)
    for number in (2, 3):
        with pytest.raises(NotFoundError):
            await service.operations.rollback(service.admin.token, ORDERS, number)
    with pytest.raises(NotFoundError):
        await service.operations.rollback(service.admin.token, ConfigKey("unknown"), 1)


async def test_the_history_tells_every_version_newest_first(service: Any) -> None:
    """Publish, delete, publish."""
    await publish(service, b'{"a": 1}')
    await service.operations.delete(service.admin.token, ORDERS)
    await publish(service, b'{"a": 2}')
    history = await service.operations.history(service.admin.token, ORDERS)
    assert [(one.version, one.kind.value) for one in history] == [(3, "published"), (2, "deleted"), (1, "published")]
    with pytest.raises(NotFoundError):
        await service.operations.history(service.admin.token, ConfigKey("unknown"))


async def test_keys_are_separate(service: Any) -> None:
    """Name, environment and label count versions of their own, without any fallback."""
    keys = [ConfigKey("orders"), ConfigKey("orders", "prod"), ConfigKey("orders", "default", "next")]
    for key in keys:
        outcome = await service.operations.publish(service.admin.token, key, b'{"k": "%s"}' % str(key).encode())
        assert outcome.document.version == 1
    with pytest.raises(NotFoundError):
        await service.operations.read(service.admin.token, ConfigKey("orders", "prod", "next"))


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        (Precondition(versions=frozenset({1})), PreconditionFailedError),
        (Precondition(absent=True), PreconditionFailedError),
        (Precondition(versions=frozenset({2})), None),
        (Precondition(running=True), None),
    ],
)
async def test_a_change_under_a_condition_that_does_not_hold_changes_nothing(
    service: Any, condition: Precondition, error: type[Exception] | None
) -> None:
    """For publish, rollback and delete alike."""
    await publish(service, b'{"a": 1}')
    await publish(service, b'{"a": 2}')
    entries = len(service.store.entries)
    changes = (
        lambda: publish(service, b'{"a": 3}', condition),
        lambda: service.operations.rollback(service.admin.token, ORDERS, 1, condition),
        lambda: service.operations.delete(service.admin.token, ORDERS, condition),
    )
    if error is None:
        assert (await changes[0]()).changed
        return
    for change in changes:
        with pytest.raises(error):
            await change()
    assert len(service.store.entries) == entries


async def test_identical_bytes_still_need_their_condition(service: Any) -> None:
    """An author who worked on another version is told so, even when the result is the same."""
    await publish(service, b'{"a": 1}')
    with pytest.raises(PreconditionFailedError):
        await publish(service, b'{"a": 1}', Precondition(versions=frozenset({7})))


async def test_one_of_many_writers_with_the_same_condition_wins(service: Any) -> None:
    """Compare-and-set: the others are told, and nothing is overwritten."""
    await publish(service, b'{"n": 0}')
    condition = Precondition(versions=frozenset({1}))
    writes = [publish(service, b'{"n": %d}' % number, condition) for number in range(1, 21)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, PreconditionFailedError) for result in results) == 19
    assert (await service.operations.read(service.admin.token, ORDERS)).version == 2


async def test_writers_without_a_condition_all_come_through(service: Any) -> None:
    """Each takes a version of its own, without a gap."""
    outcomes = await asyncio.gather(*(publish(service, b'{"n": %d}' % number) for number in range(50)))
    assert sorted(outcome.document.version for outcome in outcomes) == list(range(1, 51))


async def race(service: Any, rounds: int) -> list[int]:
    """Let another process commit in front of each of the next ``rounds`` commits; return the bases tried."""
    commit = service.store.commit_version
    bases: list[int] = []

    async def late(change: NewVersion, link: Link | None = None) -> Any:
        bases.append(change.base)
        if len(bases) <= rounds:
            sealed = service.app._vault.seal_document(b'{"other": %d}' % len(bases), change.key, change.base + 1)
            await commit(NewVersion(change.key, change.base, sealed, change.kind, 9, change.timestamp))
        return await commit(change, link)

    service.store.commit_version = late
    return bases


async def test_a_lost_race_is_tried_again_on_the_new_base(service: Any) -> None:
    """Another process was faster twice; the change still comes through, after theirs."""
    await publish(service, b'{"a": 1}')
    bases = await race(service, 2)
    outcome = await publish(service, b'{"a": 2}')
    assert bases == [1, 2, 3]
    assert outcome.document.version == 4
    assert [one.changed_by for one in await service.operations.history(service.admin.token, ORDERS)] == [1, 9, 9, 1]


async def test_a_lost_race_under_a_condition_is_told(service: Any) -> None:
    """The condition is checked against the new base."""
    await publish(service, b'{"a": 1}')
    await race(service, 1)
    with pytest.raises(PreconditionFailedError):
        await publish(service, b'{"a": 2}', Precondition(versions=frozenset({1})))


async def test_who_loses_every_race_gives_up(service: Any) -> None:
    """A bounded number of rounds, then a conflict."""
    bases = await race(service, 100)
    with pytest.raises(ConflictError):
        await publish(service, b'{"a": 1}')
    assert len(bases) == 16


async def test_a_store_that_fails_changes_nothing(service: Any) -> None:
    """The error passes as it is, and the old version is served on."""
    await publish(service, b'{"a": 1}')
    service.store.fail = StoreFullError("no space left")
    with pytest.raises(StoreFullError):
        await publish(service, b'{"a": 2}')
    assert (await service.operations.read(service.admin.token, ORDERS)).content == b'{"a": 1}'
    assert (await publish(service, b'{"a": 3}')).document.version == 2


async def test_an_older_version_of_an_unreadable_store_is_a_store_error(service: Any) -> None:
    """What runs is served from memory all the same."""
    await publish(service, b'{"a": 1}')
    await publish(service, b'{"a": 2}')
    service.store.fail_reads = StoreError("the disk is away")
    assert (await service.operations.read(service.admin.token, ORDERS)).version == 2
    with pytest.raises(StoreError):
        await service.operations.read(service.admin.token, ORDERS, 1)


async def test_a_writer_that_goes_away_leaves_nothing_half_done(service: Any) -> None:
    """Cancelled while the store commits: the commit goes to its end and is served."""
    service.store.gate.clear()
    service.store.held_up.clear()
    writing = asyncio.create_task(publish(service, b'{"a": 1}'))
    await service.store.held_up.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    service.store.gate.set()
    await service.app._commits.drain()
    assert (await service.operations.read(service.admin.token, ORDERS)).content == b'{"a": 1}'
    assert (await publish(service, b'{"a": 2}')).document.version == 2


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}"])
async def test_an_invalid_document_changes_nothing(service: Any, raw: bytes) -> None:
    """Refused before anything is touched."""
    with pytest.raises(InvalidDocumentError):
        await publish(service, raw)
    assert service.store.held == {}


async def test_a_document_over_the_limit_changes_nothing(start: Any) -> None:
    """Whichever front end it came through; large documents are parsed on a thread."""
    service = await start(max_document_bytes=100_000)
    with pytest.raises(DocumentTooLargeError):
        await publish(service, b"{" + b" " * 100_000 + b"}")
    with pytest.raises(InvalidDocumentError):
        await publish(service, b"[" + b" " * 90_000 + b"]")
    large = b"{" + b" " * 90_000 + b"}"
    assert (await publish(service, large)).document.content == large


async def test_rights_are_checked_before_existence_is_told(service: Any) -> None:
    """Out of scope is denied, whether the config exists or not."""
    await publish(service, b"{}")
    outsider = (await service.mint("other@*:read,export,write")).token
    calls = service.operations
    for key in (ORDERS, ConfigKey("unknown")):
        for attempt in (
            lambda key=key: calls.read(outsider, key),
            lambda key=key: calls.read(outsider, key, 1),
            lambda key=key: calls.export(outsider, key, Format.JSON),
            lambda key=key: calls.publish(outsider, key, b"not even json"),
            lambda key=key: calls.rollback(outsider, key, 1),
            lambda key=key: calls.delete(outsider, key),
            lambda key=key: calls.history(outsider, key),
        ):
            with pytest.raises(AccessDeniedError):
                await attempt()
        with pytest.raises(AccessDeniedError):
            calls.newest(outsider, key)
        for environment in (None, "prod"):
            with pytest.raises(AccessDeniedError):
                calls.streams.subscribe(outsider, key.name, environment=environment)


async def test_each_right_opens_its_own_door_only(service: Any) -> None:
    """Read does not export, export does not read, write does neither."""
    await publish(service, b"{}")
    calls = service.operations
    reader, exporter, writer = [(await service.mint(f"*@*:{right}")).token for right in ("read", "export", "write")]
    assert (await calls.read(reader, ORDERS)).version == 1
    assert (await calls.export(exporter, ORDERS, Format.JSON)).payload == b"{}"
    assert (await calls.history(writer, ORDERS))[0].version == 1
    for attempt in (
        calls.export(reader, ORDERS, Format.JSON),
        calls.read(exporter, ORDERS),
        calls.read(writer, ORDERS),
        calls.delete(reader, ORDERS),
    ):
        with pytest.raises(AccessDeniedError):
            await attempt


async def test_an_export_is_plaintext_in_the_format_asked_for(service: Any) -> None:
    """Of the running or an older version; what has no faithful form is refused."""
    await publish(service, b'{"db": {"host": "db1"}}')
    await publish(service, b'{"a": {"b": 1}, "a_b": 2}')
    exported = await service.operations.export(service.admin.token, ORDERS, Format.ENV, 1)
    assert exported.payload.strip() == b"DB_HOST=db1"
    assert "db1" not in repr(exported)
    with pytest.raises(NotRenderableError):
        await service.operations.export(service.admin.token, ORDERS, Format.ENV)


async def test_the_list_has_one_row_per_readable_name(service: Any) -> None:
    """Deleted names are listed as not valid; names that the token may not read are not listed."""
    for name in ("b", "a", "secret"):
        await service.publish(name)
    await service.operations.delete(service.admin.token, ConfigKey("b"))
    rows = service.operations.list_infos((await service.mint("a@*:read", "b@*:read", "secret@*:write")).token)
    assert [(row.name, row.is_valid) for row in rows] == [("a", True), ("b", False)]


async def test_a_row_tells_of_the_environment_that_the_token_means(service: Any) -> None:
    """Valid from: the default environment's version, else the earliest running one, else the deletion."""
    moments = []
    for environment in ("default", "prod", "test"):
        moments.append(service.clock.now)
        await service.publish("orders", b"{}", environment)
        service.clock.advance(60)
    home = service.operations.list_infos((await service.mint("*@*:read", environment="prod")).token)[0]
    assert (home.valid_from, home.updated_at) == (moments[1], moments[2])
    away = service.operations.list_infos((await service.mint("*@*:read", environment="nowhere")).token)[0]
    assert away.valid_from == moments[0]
    deleted_at = service.clock.now
    for environment in ("default", "prod", "test"):
        await service.operations.delete(service.admin.token, ConfigKey("orders", environment))
    gone = service.operations.list_infos((await service.mint("*@*:read")).token)[0]
    assert (gone.is_valid, gone.valid_from, gone.updated_at) == (False, deleted_at, deleted_at)


async def test_only_readable_environments_make_a_row(service: Any) -> None:
    """A change in an environment that the token may not read is not told."""
    await service.publish("orders")
    before = service.clock.now
    service.clock.advance(60)
    await service.publish("orders", b"{}", "prod")
    row = service.operations.list_infos((await service.mint("*@default:read")).token)[0]
    assert row.updated_at == before


async def test_documents_are_listed_to_those_who_read_or_write(service: Any) -> None:
    """For the management API: newest versions, tombstones included."""
    for name in ("read", "write", "export"):
        await service.publish(name)
    await service.operations.delete(service.admin.token, ConfigKey("write"))
    token = (await service.mint("read@*:read", "write@*:write", "export@*:export")).token
    listed = service.operations.list_documents(token)
    assert [(one.key.name, one.deleted) for one in listed] == [("read", False), ("write", True)]
    assert service.operations.newest(token, ConfigKey("write")).deleted
    with pytest.raises(AccessDeniedError):
        service.operations.newest(token, ConfigKey("export"))
    with pytest.raises(NotFoundError):
        service.operations.newest(token, ConfigKey("read", "prod"))


async def test_a_subscription_hears_what_is_published(service: Any) -> None:
    """In every environment that the token may read."""
    await service.publish("orders")
    token = (await service.mint("orders@default:read", "orders@prod:read")).token
    subscription = service.operations.streams.subscribe(token, "orders")
    await service.publish("orders", b'{"a": 1}', "prod")
    await service.publish("orders", b'{"a": 1}', "test")
    await service.publish("orders", b'{"a": 1}')
    frames = (await subscription.next()).decode()
    assert frames.count("event: config_changed") == 2
    assert '"environment":"prod"' in frames
    assert '"environment":"default"' in frames


async def test_what_never_was_cannot_be_watched_but_what_was_deleted_can(service: Any) -> None:
    """A deleted config may come back; its watcher hears of it."""
    token = (await service.mint("*@default:read")).token
    await service.publish("orders", b"{}", "prod")
    await service.publish("gone")
    await service.operations.delete(service.admin.token, ConfigKey("gone"))
    for name, label in (("unknown", "main"), ("orders", "main"), ("gone", "next")):
        with pytest.raises(NotFoundError):
            service.operations.streams.subscribe(token, name, label=label)
    subscription = service.operations.streams.subscribe(token, "gone")
    await service.publish("gone")
    assert b"config_changed" in await subscription.next()


async def test_a_watch_of_one_environment_needs_the_right_to_read_it(service: Any) -> None:
    """Named: exactly that one."""
    await service.publish("orders")
    await service.publish("orders", b"{}", "prod")
    token = (await service.mint("*@default:read")).token
    with pytest.raises(AccessDeniedError):
        service.operations.streams.subscribe(token, "orders", environment="prod")
    subscription = service.operations.streams.subscribe(token, "orders", environment="default")
    await service.publish("orders", b'{"a": 1}', "prod")
    await service.publish("orders", b'{"a": 1}')
    assert (await subscription.next()).count(b"config_changed") == 1


async def test_secrets_are_authenticated_against_the_clock(service: Any) -> None:
    """An expired token is refused from its moment on."""
    minted = await service.mint("*@*:read", expires_at=service.clock.now + timedelta(seconds=10))
    assert service.operations.authenticate(minted.secret).id == minted.token.id
    service.clock.advance(10)
    with pytest.raises(UnauthenticatedError):
        service.operations.authenticate(minted.secret)


async def test_a_restart_serves_the_same(service: Any, start: Any) -> None:
    """A second application on the same store knows configs, tokens, versions and the position."""
    await publish(service, b'{"a": 1}')
    again = await start()
    assert (await again.operations.read(service.admin.token, ORDERS)).content == b'{"a": 1}'
    assert again.operations.authenticate(service.admin.secret).id == service.admin.token.id
    assert again.operations.position.epoch == service.operations.position.epoch


async def test_the_conflict_of_a_store_names_both_versions() -> None:
    """For logs: which version was there, and which one the change was made on."""
    error = VersionConflictError(ORDERS, 1, 3)
    assert error.newest == 3
    assert "newest version is 3" in str(error)
