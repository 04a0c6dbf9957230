"""The contract of versions for later: they are kept like all others, and run from their activation on."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from ...backup.reading import read_everything
from ...domain.keys import ConfigKey
from ...domain.records import Activation, ChangeKind, LogEntry, Record, Version
from ...store.protocol import RunningConflictError, ScheduleConflictError, VersionConflictError
from .suite import HUGE, NOON, ORDERS, StoreSuite, everything, new_version, scenario, told

LATER: Final = NOON + timedelta(hours=1)
_BILLING: Final = ConfigKey("billing")


class SchedulingLaws(StoreSuite):
    """One version of a config may wait for its moment, its newest; whatever comes about by it is in the log."""

    @scenario
    async def test_a_version_for_later_is_kept_and_does_not_run(self, tmp_path: Path) -> None:
        """It takes its number, and what was running still is; without one before it, nothing is."""
        async with self.opened(tmp_path) as store:
            first = await store.commit_version(new_version())
            later = await store.commit_version(new_version(base=1, document=b"later", valid_from=LATER))
            assert (later.version, later.kind, later.valid_from) == (2, ChangeKind.SCHEDULED, LATER)
            assert (later.served, later.awaited) == (False, True)
            assert await store.log(1, 10) == [told(later)]
            alone = await store.commit_version(new_version(_BILLING, valid_from=LATER))
            assert [await store.running_version(key) for key in (ORDERS, _BILLING)] == [first, None]
            assert {one.key: one async for one in store.newest_versions()} == {ORDERS: later, _BILLING: alone}
        async with self.opened(tmp_path) as store:
            assert await store.version(ORDERS, 2) == later
            assert await store.versions(ORDERS) == [first.info, later.info]
            assert await store.running_version(ConfigKey("unknown")) is None

    @scenario
    async def test_an_activation_is_a_change_of_its_own(self, tmp_path: Path) -> None:
        """It takes a revision, names the author of the version, and from then on the version runs."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            later = await store.commit_version(new_version(base=1, document=b"later", valid_from=LATER))
            made = await store.activate_version(ORDERS, 2, LATER)
            assert made == replace(later, activation=Activation(3, LATER))
            assert await store.log(2, 10) == [
                LogEntry(3, ChangeKind.ACTIVATED, later.changed_by, LATER, key=ORDERS, version=2)
            ]
            assert await store.running_version(ORDERS) == made == await store.version(ORDERS, 2)
            assert (await store.commit_version(new_version(base=2))).version == 3
        async with self.opened(tmp_path) as store:
            assert await store.version(ORDERS, 2) == made

    @scenario
    async def test_a_cancelled_schedule_is_told_and_never_comes_about(self, tmp_path: Path) -> None:
        """The version stays, its number too; the next one follows it."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            later = await store.commit_version(new_version(base=1, valid_from=LATER))
            entry = await store.cancel_schedule(ORDERS, 2, 9, NOON)
            assert entry == LogEntry(3, ChangeKind.SCHEDULE_CANCELLED, 9, NOON, key=ORDERS, version=2)
            assert await store.log(2, 10) == [entry]
            assert await store.version(ORDERS, 2) == replace(later, cancelled=3)
            for end in (store.activate_version(ORDERS, 2, LATER), store.cancel_schedule(ORDERS, 2, 9, NOON)):
                with pytest.raises(ScheduleConflictError):
                    await end
            assert (await store.commit_version(new_version(base=2, valid_from=LATER))).version == 3

    @scenario
    async def test_only_the_newest_version_is_activated_and_only_once(self, tmp_path: Path) -> None:
        """Any newer version ends the schedule of an older one; what does not wait is refused and changes nothing."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version(valid_from=LATER))
            await store.commit_version(new_version(base=1, valid_from=LATER))
            await store.commit_version(new_version(_BILLING))
            before = await everything(store)
            for key, number in ((ORDERS, 1), (ORDERS, 3), (ORDERS, 0), (ORDERS, HUGE), (_BILLING, 1)):
                with pytest.raises(ScheduleConflictError):
                    await store.activate_version(key, number, LATER)
                with pytest.raises(ScheduleConflictError):
                    await store.cancel_schedule(key, number, 7, LATER)
            assert await everything(store) == before
            await store.activate_version(ORDERS, 2, LATER)
            with pytest.raises(ScheduleConflictError):
                await store.activate_version(ORDERS, 2, LATER)

    @scenario
    async def test_of_activations_at_once_one_is_made(self, tmp_path: Path) -> None:
        """As when several processes see the moment come; a cancellation beside them wins or loses, never both."""
        async with self.opened(tmp_path) as store:
            for base in range(4):
                await store.commit_version(new_version(base=base, valid_from=LATER))
                outcomes = await asyncio.gather(
                    *(store.activate_version(ORDERS, base + 1, LATER) for _ in range(6)),
                    store.cancel_schedule(ORDERS, base + 1, 7, LATER),
                    return_exceptions=True,
                )
                assert sum(isinstance(outcome, (Version, LogEntry)) for outcome in outcomes) == 1
                assert sum(isinstance(outcome, ScheduleConflictError) for outcome in outcomes) == 6
                assert (await store.position()).revision == 2 * (base + 1)

    @scenario
    async def test_a_commit_may_be_conditional_on_what_runs(self, tmp_path: Path) -> None:
        """The newest version stays the same when it is activated: whoever has seen another one run is refused."""
        async with self.opened(tmp_path) as store:
            with pytest.raises(RunningConflictError):
                await store.commit_version(new_version(running=1))
            await store.commit_version(new_version(running=0))
            await store.commit_version(new_version(base=1, valid_from=LATER))
            with pytest.raises(VersionConflictError):
                await store.commit_version(new_version(base=1, running=1))
            await store.activate_version(ORDERS, 2, LATER)
            before = await everything(store)
            with pytest.raises(RunningConflictError) as caught:
                await store.commit_version(new_version(base=2, running=1))
            assert (caught.value.key, caught.value.running) == (ORDERS, 2)
            assert await everything(store) == before
            assert (await store.commit_version(new_version(base=2, running=2))).version == 3

    @scenario
    async def test_a_commit_and_an_activation_at_once_come_about_in_one_order(self, tmp_path: Path) -> None:
        """Either the version runs and the other follows it, or the other ends its schedule."""
        async with self.opened(tmp_path) as store:
            for base in range(0, 12, 2):
                await store.commit_version(new_version(base=base, valid_from=LATER))
                activated, committed = await asyncio.gather(
                    store.activate_version(ORDERS, base + 1, LATER),
                    store.commit_version(new_version(base=base + 1)),
                    return_exceptions=True,
                )
                assert isinstance(committed, Version)
                assert isinstance(activated, (Version, ScheduleConflictError))
                assert await store.running_version(ORDERS) == committed

    @scenario
    async def test_what_happens_to_a_version_that_was_read_for_a_backup_is_in_the_backup(self, tmp_path: Path) -> None:
        """Each entry that is in it is told by the restored versions as by the log."""
        (tmp_path / "first").mkdir()
        (tmp_path / "second").mkdir()
        async with self.opened(tmp_path / "first") as first, self.opened(tmp_path / "second") as second:
            for key in (ORDERS, _BILLING):
                await first.commit_version(new_version(key, valid_from=LATER))
            records: list[Record] = []
            async for record in read_everything(first):
                records.append(record)
                if isinstance(record, Version) and record.key == _BILLING:
                    await first.activate_version(ORDERS, 1, LATER)
                    await first.cancel_schedule(_BILLING, 1, 7, LATER)
            position = await second.restore(_stream(records), "f" * 24)
            assert position.revision == 4
            told_by_first = replace(await everything(first), position=position, head=await second.head())
            assert await everything(second) == told_by_first


async def _stream(records: list[Record]) -> AsyncIterator[Record]:
    for record in records:
        yield record
