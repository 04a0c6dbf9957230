"""The archive: removing the documents of old versions, explicitly, by an administrator, in batches.

Knows rights, what may go (``domain.archiving``) and how it is committed. Knows nothing of HTTP, SQL or files. Versions
and log entries stay, so every history is told without a gap. Each call does a bounded part of the work; whatever is
done already is not done again, so that the whole may be given up and begun anew at any time.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final

from .commits import Commits
from .delivery.running import Running
from .domain.archiving import archivable
from .domain.errors import InvalidRequestError
from .domain.keys import ConfigKey
from .domain.records import NewArchive, VersionInfo
from .security.at_rest import Vault
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore
from .unlocking import KeyHolder

_CONFIGS: Final = 200
"""Configs that one call looks at, at most."""
_BYTES: Final = 4 * 1024 * 1024
"""Bytes of documents after which a page ends."""


@dataclass(frozen=True, slots=True, repr=False)
class Candidate:
    """A version whose document may be archived; ``content`` is the document itself, where it was asked for."""

    info: VersionInfo
    content: bytes | None = None

    def __repr__(self) -> str:
        return f"Candidate({self.info.key}, version={self.info.version})"


@dataclass(frozen=True, slots=True)
class Place:
    """A version of a config, whether or not there is one of that number."""

    key: ConfigKey
    version: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some candidates, and the version after which the next page begins; None: this is the last one."""

    candidates: tuple[Candidate, ...]
    after: Place | None


@dataclass(frozen=True, slots=True)
class Archived:
    """What was archived of a config, by which revision."""

    key: ConfigKey
    versions: tuple[int, ...]
    revision: int


class ArchiveOperations:
    """What holders of an admin token may do to old documents."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        keys: KeyHolder,
        running: Running,
        registry: TokenRegistry,
        commits: Commits,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._vault = vault
        self._keys = keys
        self._running = running
        self._registry = registry
        self._commits = commits
        self._clock = clock

    async def candidates(
        self,
        token: Token,
        before: datetime,
        names: str = "*",
        after: Place | None = None,
        *,
        limit: int = 100,
        documents: bool = False,
    ) -> Page:
        """Return at most ``limit`` versions before ``before`` that may be archived, of configs named like ``names``.

        By config and number, those that come after ``after`` (None: from the first). With ``documents`` each with its
        document; then a page may be shorter.

        Raises AccessDeniedError without admin; InvalidRequestError for a ``before`` that is to come; StoreError.
        """
        token.require_admin()
        self._check(before)
        whole = await self._is_whole()
        every = sorted({one.key for one in self._running} | {one.key for one in self._running.schedules})
        rest = every[0 if after is None else bisect_left(every, after.key) :]
        found: list[Candidate] = []
        looked, size = 0, 0
        for key in (key for key in rest if fnmatchcase(key.name, names)):
            if looked == _CONFIGS:
                return Page(tuple(found), after)
            first = after.version + 1 if after is not None and after.key == key else 1
            for info in await self._archivable(key, before, range(first, sys.maxsize), whole=whole):
                if len(found) == limit or size > _BYTES:
                    return Page(tuple(found), after)
                content = await self._content(info) if documents else None
                size += len(content or b"")
                found.append(Candidate(info, content))
                after = Place(key, info.version)
            looked, after = looked + 1, Place(key, sys.maxsize)
        return Page(tuple(found), None)

    async def archive(
        self, token: Token, before: datetime, configs: Sequence[tuple[ConfigKey, Sequence[int]]]
    ) -> list[Archived]:
        """Archive the versions that are named, as far as they may be; one log entry tells what went of each config.

        Raises AccessDeniedError without admin; InvalidRequestError for a ``before`` that is to come;
        UnauthenticatedError; StoreError, and what came before it is archived.
        """
        token.require_admin()
        self._check(before)
        whole = await self._is_whole()
        done = []
        for key, wanted in configs:
            self._registry.confirm(token.id, self._clock())
            versions = tuple(info.version for info in await self._archivable(key, before, set(wanted), whole=whole))
            if not versions:
                continue
            entry = await self._commits.archive(NewArchive(key, versions, before, token.id, self._clock()))
            if entry is not None and entry.archived is not None:
                done.append(Archived(key, entry.archived, entry.revision))
        return done

    async def _archivable(
        self, key: ConfigKey, before: datetime, numbers: Container[int], *, whole: bool
    ) -> list[VersionInfo]:
        history = await self._store.versions(key)
        savepoints, draft = await self._store.savepoints(key), await self._store.draft(key)
        wanted = [info for info in archivable(history, savepoints, draft, before) if info.version in numbers]
        return wanted if whole else [info for info in wanted if await self._is_linked(info.revision)]

    async def _is_whole(self) -> bool:
        """Tell whether the log is chained from its first entry on."""
        return await self._is_linked(1)

    async def _is_linked(self, revision: int) -> bool:
        """Tell whether the entry of ``revision`` is chained.

        What was there before the chain is covered by one digest over the documents themselves: without them nobody
        could verify that it is unaltered, so these are never archived.
        """
        return any(entry.link is not None for entry in await self._store.log(revision - 1, 1))

    async def _content(self, info: VersionInfo) -> bytes | None:
        version = await self._store.version(info.key, info.version)
        if version is None or version.document is None:
            return None
        await self._keys.hold(version.document)
        return self._vault.open_document(version.document, info.key, info.version)

    def _check(self, before: datetime) -> None:
        if before.tzinfo is None or before > self._clock():
            raise InvalidRequestError("invalid cut-off: a time with an offset that is not to come")
