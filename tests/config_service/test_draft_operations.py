"""Drafts and schemas while others write: no edit is lost, and no version slips past a newer schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from config_service.app import create_app
from config_service.domain.errors import DraftOutdatedError, SchemaViolationError, UnauthenticatedError
from config_service.domain.keys import ConfigKey
from config_service.domain.patches import PatchKind
from config_service.domain.preconditions import UNCONDITIONAL
from config_service.domain.records import Link, NewVersion, Version

pytestmark = pytest.mark.anyio
ORDERS = ConfigKey("orders")


@pytest.fixture
async def neighbour(service: Any, settings: Any) -> Any:
    """The operations of another process on the same store, as far as a store in memory can tell."""
    app = create_app(settings, service.store, service.clock)
    await app.start()
    yield app.operations
    await app.stop()


async def test_of_patches_at_once_none_is_lost(service: Any, neighbour: Any) -> None:
    """Each begins again on what another one has left, from whichever process."""
    token = service.admin.token
    await service.operations.drafts.replace(token, ORDERS, b"{}")
    await asyncio.gather(
        *(
            calls.drafts.patch(token, ORDERS, json.dumps({f"{place}-{number}": 1}).encode(), PatchKind.MERGE)
            for place, calls in enumerate((service.operations, neighbour))
            for number in range(4)
        )
    )
    found = await service.operations.drafts.read(token, ORDERS)
    assert len(json.loads(found.content)) == 8


async def test_a_draft_that_is_edited_while_it_is_published_is_published_as_edited(
    service: Any, neighbour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is removed is what was published, and nothing else."""
    token, store = service.admin.token, service.store
    await service.operations.drafts.replace(token, ORDERS, b'{"a": 1}')
    commit = store.commit_version

    async def edit_first(change: NewVersion, link: Link) -> Version:
        monkeypatch.setattr(store, "commit_version", commit)
        await neighbour.drafts.replace(token, ORDERS, b'{"a": 2}')
        return await commit(change, link)

    monkeypatch.setattr(store, "commit_version", edit_first)
    outcome = await service.operations.drafts.publish(token, ORDERS)
    assert (outcome.document.version, outcome.document.content) == (1, b'{"a": 2}')
    assert await store.draft(ORDERS) is None


async def test_drafts_published_together_reach_watchers_in_revision_order(service: Any) -> None:
    """Each stream hears its own; the order of the log is the order asked for."""
    token = service.admin.token
    for name in ("billing", "orders"):
        await service.operations.drafts.replace(token, ConfigKey(name), b"{}")
        await service.publish(name, b'{"a": 0}', "prod")
    streams = [service.operations.streams.subscribe(token, name) for name in ("orders", "billing")]
    wanted = [(ConfigKey(name), UNCONDITIONAL) for name in ("orders", "billing")]
    outcomes = await service.operations.drafts.publish_together(token, wanted)
    revisions = [outcome.document.revision for outcome in outcomes]
    assert revisions == [revisions[0], revisions[0] + 1]
    heard = [(await stream.next()).decode() for stream in streams]
    assert [f"-{revision}\n" in frame for revision, frame in zip(revisions, heard, strict=True)] == [True, True]


async def test_another_writer_between_the_check_and_the_commit_of_several_refuses_all(
    service: Any, neighbour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of one of them in between makes that draft outdated: nothing of the others is published."""
    token, store = service.admin.token, service.store
    keys = (ORDERS, ConfigKey("billing"))
    for key in keys:
        await service.operations.drafts.replace(token, key, b'{"draft": 1}')
    commit = store.commit_versions

    async def publish_first(changes: Sequence[NewVersion], link: Link) -> list[Version]:
        monkeypatch.setattr(store, "commit_versions", commit)
        await neighbour.publish(token, keys[1], b'{"theirs": 1}')
        return await commit(changes, link)  # type: ignore[no-any-return]

    monkeypatch.setattr(store, "commit_versions", publish_first)
    with pytest.raises(DraftOutdatedError, match="billing"):
        await service.operations.drafts.publish_together(token, [(key, UNCONDITIONAL) for key in keys])
    assert await store.versions(ORDERS) == []
    assert len(store.held_drafts) == 2


async def test_two_that_publish_the_same_drafts_together_do_not_wait_for_each_other(service: Any) -> None:
    """Whatever order they name them in; one publishes them, the other had read them before and overwrites nothing."""
    token, keys = service.admin.token, (ORDERS, ConfigKey("billing"))
    for key in keys:
        await service.operations.drafts.replace(token, key, b"{}")
    rows = [[(key, UNCONDITIONAL) for key in order] for order in (keys, keys[::-1])]
    outcomes = await asyncio.gather(
        *(service.operations.drafts.publish_together(token, row) for row in rows), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["DraftOutdatedError", "list"]


async def test_a_version_that_was_validated_by_an_older_schema_is_validated_again(
    service: Any, neighbour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema that another process sets between the check and the commit counts."""
    token, store = service.admin.token, service.store
    commit = store.commit_version

    async def set_schema_first(change: NewVersion, link: Link) -> Version:
        monkeypatch.setattr(store, "commit_version", commit)
        await neighbour.schemas.set(token, ORDERS, b'{"required": ["b"]}')
        return await commit(change, link)

    monkeypatch.setattr(store, "commit_version", set_schema_first)
    with pytest.raises(SchemaViolationError):
        await service.operations.publish(token, ORDERS, b'{"a": 1}')
    assert await store.versions(ORDERS) == []


async def test_another_process_hears_of_a_schema_by_the_log(service: Any, neighbour: Any) -> None:
    """By an entry of its own kind, after which it validates by the schema; so too of its removal."""
    token = service.admin.token
    await service.operations.schemas.set(token, ORDERS, b'{"required": ["b"]}')
    await neighbour._feed.catch_up()
    with pytest.raises(SchemaViolationError):
        await neighbour.publish(token, ORDERS, b"{}")
    await service.operations.schemas.remove(token, ORDERS)
    await neighbour._feed.catch_up()
    assert (await neighbour.publish(token, ORDERS, b"{}")).changed
    assert [entry.kind.value for entry in service.store.entries[-3:]] == ["schema_set", "schema_removed", "published"]


async def test_a_token_that_is_revoked_meanwhile_changes_nothing(service: Any) -> None:
    """Rights are those of the moment of the change."""
    minted = await service.mint("*@*:write")
    await service.operations.tokens.revoke(service.admin.token, minted.token.id)
    with pytest.raises(UnauthenticatedError):
        await service.operations.drafts.replace(minted.token, ORDERS, b"{}")
    with pytest.raises(UnauthenticatedError):
        await service.operations.schemas.set(minted.token, ORDERS, b"{}")
    assert await service.store.draft(ORDERS) is None
    assert await service.store.schemas(ORDERS) == []


async def test_deleting_needs_to_fit_no_schema(service: Any) -> None:
    """A tombstone has no document; the next publish has to fit again."""
    token = service.admin.token
    await service.publish("orders", b'{"a": 1}')
    await service.operations.schemas.set(token, ORDERS, b'{"required": ["b"]}')
    assert (await service.operations.delete(token, ORDERS)).changed
    with pytest.raises(SchemaViolationError):
        await service.operations.publish(token, ORDERS, b"{}")
