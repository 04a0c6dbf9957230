"""The SQL store on SQLite keeps every law of a store of record, and the suite that says so would notice a breach."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from turnstile import Turnstile, before_every_commit

from config_service.domain.keys import ConfigKey
from config_service.domain.records import (
    Draft,
    KeyRotation,
    Link,
    LogEntry,
    NewArchive,
    NewSavepoint,
    NewSchema,
    NewToken,
    NewVersion,
    StoredKey,
    StoredSchema,
    StoredToken,
    Version,
    VersionInfo,
)
from config_service.domain.sealing import NewKeys, Resealed, SealedKind, SealedPlace, SealedValue
from config_service.store.protocol import (
    ConfigStore,
    KeyConflictError,
    SavepointConflictError,
    ScheduleConflictError,
    SealingKeyError,
    VersionConflictError,
)
from config_service.store.sql import SqlStore
from config_service.testing import StoreContract, new_version

TURNSTILE = Turnstile()


@pytest.fixture(scope="module", autouse=True)
def _turnstile_before_every_commit() -> Iterator[None]:
    with before_every_commit(TURNSTILE):
        yield


class SqliteContract(StoreContract):
    """The contract on SQLite; below it runs as it is, and on stores with a law broken."""

    store_type: type[SqlStore] = SqlStore

    def create_store(self, directory: Path) -> ConfigStore:
        """Return a store in a file of ``directory``."""
        return self.store_type(f"sqlite:///{directory}/store.db")

    def stalled(self, store: ConfigStore) -> AbstractAsyncContextManager[Callable[[], Awaitable[None]]]:
        """Stop the store's thread that writes where SQLAlchemy is about to commit."""
        return TURNSTILE.armed()


class TestSqlite(SqliteContract):
    """Every law, on SQLite."""


class LosesCommits(SqlStore):
    """Acknowledges every commit, and keeps the first one only."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        if change.base:
            return Version(change.key, change.version, change.version, change.kind, 7, change.timestamp, b"")
        return await super().commit_version(change, link)


class IgnoresTheBase(SqlStore):
    """Lets the last writer win."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        while True:
            try:
                return await super().commit_version(change, link)
            except VersionConflictError as conflict:
                change = replace(change, base=conflict.newest)


class CommitsOneByOne(SqlStore):
    """Makes a transaction of each of several versions."""

    async def commit_versions(self, changes: Sequence[NewVersion], link: Link | None = None) -> list[Version]:
        return [await self.commit_version(change, link) for change in changes]


class RunsEarly(SqlStore):
    """Takes a version that waits for its moment for the running one."""

    async def running_version(self, key: ConfigKey) -> Version | None:
        history = await self.versions(key)
        return await self.version(key, len(history))


class ActivatesAgain(SqlStore):
    """Takes every activation for the first."""

    async def activate_version(self, key: ConfigKey, number: int, at: datetime, link: Link | None = None) -> Version:
        try:
            return await super().activate_version(key, number, at, link)
        except ScheduleConflictError:
            version = await self.version(key, number)
            if version is None:
                raise
            return version


class IgnoresWhatRuns(SqlStore):
    """Looks at the newest version alone."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        return await super().commit_version(replace(change, running=None), link)


class MovesNames(SqlStore):
    """Lets a name stand for whatever was asked for last."""

    async def commit_savepoint(self, change: NewSavepoint, link: Link | None = None) -> LogEntry:
        try:
            return await super().commit_savepoint(change, link)
        except SavepointConflictError as conflict:
            return await super().commit_savepoint(replace(change, base=conflict.found), link)


class ArchivesOnce(SqlStore):
    """Says of what is archived already that it was archived."""

    async def archive_versions(self, change: NewArchive, link: Link | None = None) -> LogEntry | None:
        return await super().archive_versions(change, link) or (await self.log(0, 1000))[-1]


class TrimsDocuments(SqlStore):
    """Takes an empty document for none."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        return await super().commit_version(replace(change, document=change.document or None), link)


class HidesTombstones(SqlStore):
    """Leaves deleted configs out."""

    async def newest_versions(self) -> AsyncIterator[Version]:
        async for version in super().newest_versions():
            if not version.deleted:
                yield version


class IgnoresCase(SqlStore):
    """Takes keys that differ in case for the same."""

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        return await super().versions(ConfigKey(key.name.lower(), key.environment.lower(), key.label.lower()))


class ReordersTheLog(SqlStore):
    """Tells the newest change first."""

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        return (await super().log(after, limit))[::-1]


class RevokesAgain(SqlStore):
    """Takes every revocation for the first."""

    async def revoke_token(
        self, token_id: int, revoked_by: int, at: datetime, link: Link | None = None
    ) -> LogEntry | None:
        await super().revoke_token(token_id, revoked_by, at, link)
        return (await self.log(0, 100))[-1]


class ForgetsKeys(SqlStore):
    """Keeps the preferred key only."""

    async def commit_token(self, token: NewToken, link: Link | None = None) -> tuple[StoredToken, LogEntry]:
        return await super().commit_token(replace(token, keys=token.keys[:1]), link)


class LosesKeys(SqlStore):
    """Lets the last rotation win."""

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        while True:
            try:
                return await super().rotate_token_keys(rotation, link)
            except KeyConflictError:
                held = await self.token(rotation.token_id)
                rotation = replace(rotation, base=held.keys if held else ())


class NeverRetires(SqlStore):
    """Forgets when a key is to end."""

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        return await super().rotate_token_keys(
            replace(rotation, keys=tuple(StoredKey(key.sealed) for key in rotation.keys)), link
        )


class RevivesTokens(SqlStore):
    """Takes a rotation of any token for one of the first."""

    async def rotate_token_keys(
        self, rotation: KeyRotation, link: Link | None = None
    ) -> tuple[StoredToken, LogEntry] | None:
        return await super().rotate_token_keys(rotation, link) or ((await self.tokens())[0], (await self.log(0, 1))[0])


class HidesRotations(SqlStore):
    """Changes the keys, and tells nobody."""

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        return [entry for entry in await super().log(after, limit) if entry.kind.value != "token_rekeyed"]


class MistakesEmptyForDeleted(SqlStore):
    """Takes a document without bytes for a deletion in its histories."""

    async def versions(self, key: ConfigKey) -> list[VersionInfo]:
        told = await super().versions(key)
        return [replace(one, deleted=not (await self._document(one))) for one in told]

    async def _document(self, one: VersionInfo) -> bytes | None:
        version = await self.version(one.key, one.version)
        return version.document if version else None


class ChecksAnything(SqlStore):
    """Takes whatever check value it is given last."""

    async def seal_check(self, candidate: bytes) -> bytes:
        return candidate


class Overtakes(SqlStore):
    """Tells a change before it is durable, whenever another one is still on its way."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._coming: list[NewVersion] = []

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        self._coming.append(change)
        version = await super().commit_version(change, link)
        self._coming.remove(change)
        return version

    async def log(self, after: int, limit: int) -> list[LogEntry]:
        told = await super().log(after, limit)
        early = self._coming[1:] if not told else []
        return told + [
            LogEntry(after + 2 + place, change.kind, 7, change.timestamp, key=change.key, version=change.version)
            for place, change in enumerate(early)
        ]


class KeepsPublishedDrafts(SqlStore):
    """Publishes a draft and leaves it where it was."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        return await super().commit_version(replace(change, draft=None), link)


class IgnoresSchemas(SqlStore):
    """Does not look under which schema a version was validated."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        return await super().commit_version(replace(change, schema=None), link)


class OverwritesDrafts(SqlStore):
    """Lets the last edit of a draft win."""

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        there = await self.draft(key)
        await super().replace_draft(key, None if there is None else there.document, after)


class ForgetsRemovals(SqlStore):
    """Leaves out configs whose schema was removed."""

    async def newest_schemas(self) -> AsyncIterator[StoredSchema]:
        async for schema in super().newest_schemas():
            if not schema.removed:
                yield schema


class ForgetsTheLink(SqlStore):
    """Chains every change to nothing."""

    async def commit_version(self, change: NewVersion, link: Link | None = None) -> Version:
        return await super().commit_version(change, link and (lambda entry, _: link(entry, None)))


class CommitsBeforeItLinks(SqlStore):
    """Makes a change, whatever becomes of its entry in the audit."""

    async def commit_schema(self, change: NewSchema, link: Link | None = None) -> StoredSchema:
        made = await super().commit_schema(change)
        if link is not None:
            link((await self.log(made.revision - 1, 1))[0], None)
        return made


class SealsUnderAnyKey(SqlStore):
    """Takes a draft whatever it is sealed under."""

    async def replace_draft(self, key: ConfigKey, before: bytes | None, after: Draft | None) -> None:
        try:
            await super().replace_draft(key, before, after)
        except SealingKeyError:
            kept = await self.keys()
            await self.commit_keys(NewKeys(kept, (), None, 7, datetime.now(timezone.utc)))
            await super().replace_draft(key, before, after)
            await self.commit_keys(NewKeys((), kept, None, 7, datetime.now(timezone.utc)))


class ResealsBlindly(SqlStore):
    """Puts a draft back that was edited meanwhile."""

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        for change in changes:
            key = change.place.key
            draft = await self.draft(key) if key and change.place.kind is SealedKind.DRAFT else None
            if key and draft:
                await self.replace_draft(key, draft.document, replace(draft, document=change.after))
        return await super().reseal(changes)


class SkipsRetiredTokenKeys(SqlStore):
    """Tells the newest key of a token only, so that an older one is never sealed anew."""

    async def sealed_values(self, after: SealedPlace | None, limit: int) -> list[SealedValue]:
        found = await super().sealed_values(after, limit)
        first = {value.place: value for value in reversed(found)}
        return [value for value in found if first[value.place] is value]


class LosesRotations(SqlStore):
    """Lets the last change of the keys win."""

    async def commit_keys(self, change: NewKeys, link: Link | None = None) -> LogEntry | None:
        return await super().commit_keys(replace(change, base=await self.keys()), link)


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (ForgetsTheLink, "test_every_change_is_linked_to_the_one_before_it"),
        (CommitsBeforeItLinks, "test_a_change_whose_link_fails_has_not_happened"),
        (SealsUnderAnyKey, "test_nothing_new_is_sealed_under_a_key_that_is_not_active"),
        (ResealsBlindly, "test_a_value_that_changed_meanwhile_is_not_overwritten"),
        (SkipsRetiredTokenKeys, "test_every_sealed_value_is_told_once_in_order_whatever_the_page"),
        (LosesRotations, "test_keys_change_only_on_those_that_there_are"),
        (KeepsPublishedDrafts, "test_publishing_a_draft_removes_it_with_the_same_commit"),
        (IgnoresSchemas, "test_a_publish_that_is_refused_keeps_the_draft"),
        (OverwritesDrafts, "test_a_draft_is_replaced_and_removed_by_who_has_seen_it"),
        (ForgetsRemovals, "test_reopening_keeps_everything"),
        (LosesCommits, "test_a_rollback_remembers_where_its_document_came_from"),
        (IgnoresTheBase, "test_exactly_one_of_many_concurrent_commits_on_a_base_wins"),
        (IgnoresTheBase, "test_a_commit_on_another_base_is_refused_and_changes_nothing"),
        (CommitsOneByOne, "test_one_that_is_refused_refuses_all"),
        (RunsEarly, "test_a_version_for_later_is_kept_and_does_not_run"),
        (ActivatesAgain, "test_only_the_newest_version_is_activated_and_only_once"),
        (ActivatesAgain, "test_of_activations_at_once_one_is_made"),
        (IgnoresWhatRuns, "test_a_commit_may_be_conditional_on_what_runs"),
        (MovesNames, "test_a_savepoint_on_another_base_or_on_no_document_is_refused"),
        (ArchivesOnce, "test_archiving_again_changes_nothing"),
        (TrimsDocuments, "test_documents_are_kept_byte_for_byte"),
        (HidesTombstones, "test_a_delete_is_a_version_and_the_next_publish_comes_after_it"),
        (IgnoresCase, "test_keys_of_every_legal_shape_are_kept_apart"),
        (ReordersTheLog, "test_the_log_is_read_in_pages"),
        (ReordersTheLog, "test_a_follower_of_the_log_misses_nothing_that_concurrent_writers_do"),
        (RevokesAgain, "test_a_token_is_revoked_once"),
        (ForgetsKeys, "test_tokens_are_kept_whole_and_numbered_from_1"),
        (LosesKeys, "test_of_rotations_at_once_none_loses_the_key_of_another"),
        (LosesKeys, "test_a_rotation_on_other_keys_is_refused_and_changes_nothing"),
        (NeverRetires, "test_a_rotation_puts_other_keys_in_place_and_takes_a_revision"),
        (RevivesTokens, "test_only_a_token_that_is_not_revoked_gets_other_keys"),
        (HidesRotations, "test_a_rotation_may_drop_every_older_key"),
        (MistakesEmptyForDeleted, "test_a_history_tells_every_version_without_its_document"),
        (ChecksAnything, "test_the_first_check_value_stays"),
        (Overtakes, "test_commit_order_is_revision_order_with_a_stalled_writer"),
    ],
)
def test_a_store_that_breaks_a_law_fails_the_suite(broken: type[SqlStore], law: str, tmp_path: Path) -> None:
    """The suite is not satisfied by whatever it is given: each of these stores breaks one law, and is caught at it."""

    class Contract(SqliteContract):
        store_type = broken

    with pytest.raises((AssertionError, VersionConflictError, pytest.fail.Exception)):
        getattr(Contract(), law)(tmp_path)


def test_a_history_of_large_documents_loads_none_of_them(tmp_path: Path) -> None:
    """Telling eight versions of a mebibyte each takes less memory than a single one of their documents."""
    size = 2**20

    async def scenario() -> int:
        store = SqlStore(f"sqlite:///{tmp_path}/store.db")
        await store.open()
        try:
            for base in range(8):
                await store.commit_version(new_version(base=base, document=bytes([base]) * size))
            await store.versions(ConfigKey("unknown"))
            tracemalloc.start()
            try:
                assert len(await store.versions(ConfigKey("orders"))) == 8
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        finally:
            await store.close()

    assert asyncio.run(scenario()) < size


def test_a_suite_that_is_given_no_store_says_what_is_missing(tmp_path: Path) -> None:
    """Forgetting one of the two things that a subclass has to provide is an error, and no suite that passes."""
    with pytest.raises(NotImplementedError):
        StoreContract().create_store(tmp_path)
    with pytest.raises(NotImplementedError):
        StoreContract().stalled(SqlStore(f"sqlite:///{tmp_path}/store.db"))
