"""Changing a config by compare-and-set: conditions, schema, commit, and again when another writer came in between.

Knows what is running, the schemas and how to commit. Asks nobody for rights: its callers have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final
from weakref import WeakValueDictionary

from .commits import Commits
from .delivery.feed import Feed
from .delivery.running import Running, Standing
from .delivery.schemas import Schemas
from .domain.documents import Document
from .domain.errors import (
    ConflictError,
    DraftOutdatedError,
    InvalidScheduleError,
    NotFoundError,
    SchemaViolationError,
)
from .domain.keys import ConfigKey
from .domain.preconditions import Precondition
from .domain.records import ChangeKind, Draft, NewVersion
from .security.at_rest import Vault
from .security.tokens import TokenRegistry
from .store.protocol import (
    DraftConflictError,
    RunningConflictError,
    SchemaConflictError,
    SealingKeyError,
    VersionConflictError,
)

ROUNDS: Final = 16
"""How often a change is tried on a new base before it counts as lost to other writers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a publish, rollback or delete led to: the version now running, and whether it is a new one.

    With ``valid_from``: the version that is to run later.
    """

    document: Document
    changed: bool


@dataclass(frozen=True, slots=True, repr=False)
class Intent:
    """What a change is to make of a config, whatever it is based on; ``content`` None is a delete.

    With ``draft`` it publishes that draft, on the version that the draft was made on and on no other one. With
    ``valid_from`` what it makes is to run from that moment on.
    """

    kind: ChangeKind
    changed_by: int
    content: bytes | None
    source_version: int | None = None
    draft: Draft | None = None
    valid_from: datetime | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """A change of one config, and what it is conditional on."""

    key: ConfigKey
    precondition: Precondition
    intent: Intent


class Changes:
    """The way by which every version comes about."""

    def __init__(
        self,
        *,
        commits: Commits,
        feed: Feed,
        running: Running,
        schemas: Schemas,
        registry: TokenRegistry,
        vault: Vault,
        clock: Callable[[], datetime],
    ) -> None:
        self._commits = commits
        self._feed = feed
        self._running = running
        self._schemas = schemas
        self._registry = registry
        self._vault = vault
        self._clock = clock
        self._locks: WeakValueDictionary[ConfigKey, asyncio.Lock] = WeakValueDictionary()

    async def apply(self, key: ConfigKey, precondition: Precondition, intent: Intent) -> Outcome:
        """Commit and serve what ``intent`` makes of ``key``. What runs already makes no new version.

        Raises PreconditionFailedError, DraftOutdatedError, NotFoundError (a delete of nothing), SchemaViolationError;
        DraftConflictError when the draft was changed meanwhile; ConflictError when other writers were faster every
        time; InvalidScheduleError; UnauthenticatedError when the token ended meanwhile; StoreError.
        """
        (outcome,) = await self.apply_all([Plan(key, precondition, intent)])
        return outcome

    async def apply_all(self, plans: Sequence[Plan]) -> list[Outcome]:
        """Commit and serve what ``plans``, each of another config, make: all of it at once or nothing.

        Raises what ``apply`` raises, for the first config at fault; SchemaViolationError tells the violations of all.
        """
        for plan in plans:
            if plan.intent.valid_from is not None:
                check_moment(plan.intent.valid_from, self._clock())
        # A condition, or "these bytes run already", is judged by no older state than the caller may know of.
        await self._feed.refresh()
        async with AsyncExitStack() as held:
            # In one order for everybody: two that name the same configs do not wait for each other.
            for key in sorted({plan.key for plan in plans}):
                await held.enter_async_context(self.lock(key))
            overtaken = plans[0].key
            for _ in range(ROUNDS):
                found = [self._running.standing(plan.key) for plan in plans]
                # Reading a large document may take its time: whatever changed meanwhile is seen at the commit.
                schemas = await self._check_all(plans, found)
                if found != [self._running.standing(plan.key) for plan in plans]:
                    continue
                for plan in plans:
                    self._registry.confirm(plan.intent.changed_by, self._clock())
                try:
                    return await self._commit(plans, found, schemas)
                except (VersionConflictError, RunningConflictError, SchemaConflictError) as conflict:
                    overtaken = conflict.key
                    await self._feed.catch_up()
                except SealingKeyError:
                    await self._feed.catch_up()
        raise ConflictError(f"{overtaken}: other writers changed it {ROUNDS} times meanwhile; try again")

    def lock(self, key: ConfigKey) -> asyncio.Lock:
        """Return the lock that lets the writers of one config pass one by one; compare-and-set remains the judge."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    async def _check_all(self, plans: Sequence[Plan], found: Sequence[Standing]) -> list[int | None]:
        """Return the number of the schema that each change fits; None where it needs to fit none."""
        for plan, standing in zip(plans, found, strict=True):
            self._check(plan, standing)
        numbers: list[int | None] = []
        refused: list[SchemaViolationError] = []
        for key, content in ((plan.key, plan.intent.content) for plan in plans):
            try:
                numbers.append(None if content is None else await self._schemas.check(key, content))
            except SchemaViolationError as error:
                refused.append(error if len(plans) == 1 else error.about(str(key)))
        if refused:
            raise SchemaViolationError(
                "; ".join(map(str, refused)), tuple(one for error in refused for one in error.violations)
            )
        return numbers

    def _check(self, plan: Plan, standing: Standing) -> None:
        """Return when every condition of ``plan`` holds, its schema aside."""
        key, intent = plan.key, plan.intent
        self._registry.confirm(intent.changed_by, self._clock())
        if intent.content is None and not standing.runs:
            raise NotFoundError(f"{key}: nothing is running that could be deleted")
        plan.precondition.check(key, standing.number, running=standing.runs)
        if intent.draft is not None:
            check_base(key, intent.draft.base, standing)

    async def _commit(
        self, plans: Sequence[Plan], found: Sequence[Standing], schemas: Sequence[int | None]
    ) -> list[Outcome]:
        """Commit what is new, and only then let go of the drafts that say what runs already."""
        changes: list[NewVersion] = []
        unchanged: dict[ConfigKey, Document] = {}
        for plan, standing, schema in zip(plans, found, schemas, strict=True):
            there = _there_already(standing, plan.intent)
            if there is not None:
                unchanged[plan.key] = there
            else:
                changes.append(self._prepare(plan.key, standing, schema, plan.intent))
        made = {version.key: version for version in await self._commits.versions(changes)} if changes else {}
        for plan in plans:
            draft = plan.intent.draft
            if plan.key in unchanged and draft is not None:
                try:
                    await self._commits.draft(plan.key, draft.document, None)
                except DraftConflictError:
                    # Beside others nothing is begun anew, as they may be committed: what was edited since is a draft.
                    if len(plans) == 1:
                        raise
        return [
            Outcome(unchanged[plan.key], changed=False)
            if plan.key in unchanged
            else Outcome(Document.of(made[plan.key], plan.intent.content), changed=True)
            for plan in plans
        ]

    def _prepare(self, key: ConfigKey, standing: Standing, schema: int | None, intent: Intent) -> NewVersion:
        base, content = standing.newest, intent.content
        return NewVersion(
            key=key,
            base=base,
            document=None if content is None else self._vault.seal_document(content, key, base + 1),
            kind=intent.kind if intent.valid_from is None else ChangeKind.SCHEDULED,
            changed_by=intent.changed_by,
            timestamp=self._clock(),
            source_version=intent.source_version,
            schema=schema,
            draft=None if intent.draft is None else intent.draft.document,
            # What waits may come due at any moment, by any process, and the newest version stays the same.
            running=None if standing.awaited is None else standing.number,
            valid_from=intent.valid_from,
        )


def check_base(key: ConfigKey, base: int, standing: Standing) -> None:
    """Return when a draft made on ``base`` may be published over ``standing``, else raise DraftOutdatedError.

    A version that waits for its moment counts like the one that runs: publishing would end its schedule.
    """
    if base < standing.latest:
        what = (
            "is the newest" if standing.awaited is None else f"is scheduled for {standing.awaited.moment.isoformat()}"
        )
        raise DraftOutdatedError(
            f"{key}: the draft was made on version {base}, but version {standing.latest} {what}; nothing was "
            f"overwritten: see what differs, merge, and set the draft again on base {standing.latest}, or revert it"
        )


def check_moment(moment: datetime, now: datetime) -> None:
    """Return when a version may be published for ``moment``, else raise InvalidScheduleError."""
    try:
        # What is kept is in UTC, which ends with the year 9999.
        to_come = moment.tzinfo is not None and moment.astimezone(timezone.utc) > now
    except OverflowError:
        to_come = False
    if not to_come:
        raise InvalidScheduleError(
            "invalid valid_from: a moment that is to come, with an offset and before the year 10000; without "
            "valid_from the version runs at once"
        )


def _there_already(standing: Standing, intent: Intent) -> Document | None:
    """Return the version that says already what ``intent`` is to make of the config, or None.

    While a version waits, only the same for the same moment is nothing new: anything else ends its schedule.
    """
    there = standing.running if standing.awaited is None else standing.awaited
    if there is None or there.content is None or there.content != intent.content:
        return None
    return there if standing.awaited is None or intent.valid_from == there.valid_from else None
