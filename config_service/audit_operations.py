"""What may be learnt from the log about who changed what, and whether it is still what it was.

Knows rights, the log and its chain. Knows nothing of HTTP or SQL. Changes nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .domain.records import ChangeKind, Head, LogEntry
from .findings import Anchor, Progress, Report
from .security.at_rest import Vault
from .security.chain import Detail
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore
from .unlocking import KeyHolder
from .verifying import Verification

MAX_ENTRIES: Final = 1000
"""Entries in one answer, at most."""
_PAGE: Final = 500
_LOOKED_AT: Final = 20_000
"""Entries that one question looks at; what comes behind is for the next one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are wanted: all those of which everything holds that is given."""

    name: str | None = None
    token: int | None = None
    since: datetime | None = None
    kind: ChangeKind | None = None

    def __call__(self, entry: LogEntry) -> bool:
        """Tell whether ``entry`` is one."""
        return (
            (self.name is None or (entry.key is not None and entry.key.name == self.name))
            and (self.token is None or self.token in {entry.changed_by, entry.token_id})
            and (self.since is None or entry.timestamp >= self.since)
            and (self.kind is None or entry.kind is self.kind)
        )


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the log, and its detail; None: it has none, being older than the chain, or it does not open."""

    entry: LogEntry
    detail: Detail | None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries in the order of revisions. ``after``: what to ask for next; None: there are no more."""

    entries: tuple[AuditEntry, ...]
    after: int | None


class AuditOperations:
    """What holders of an admin token may read of the log."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        keys: KeyHolder,
        registry: TokenRegistry,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._vault = vault
        self._keys = keys
        self._registry = registry
        self._clock = clock

    async def list(self, caller: Token, wanted: Wanted, after: int = 0, limit: int = MAX_ENTRIES) -> AuditPage:
        """Return at most ``limit`` entries behind revision ``after`` that are ``wanted``.

        Raises AccessDeniedError without admin, or StoreError.
        """
        self._require(caller)
        limit = max(1, min(limit, MAX_ENTRIES))
        found: list[AuditEntry] = []
        looked_at = 0
        while page := await self._store.log(after, _PAGE):
            for entry in page:
                after = entry.revision
                if wanted(entry):
                    found.append(AuditEntry(entry, self._vault.chain.detail(entry)))
                    if len(found) == limit:
                        return AuditPage(tuple(found), after)
            looked_at += len(page)
            if looked_at >= _LOOKED_AT:
                return AuditPage(tuple(found), after)
        return AuditPage(tuple(found), None)

    async def head(self, caller: Token) -> Head:
        """Return where the log ends, to be kept elsewhere as an anchor. Raises AccessDeniedError or StoreError."""
        self._require(caller)
        return await self._store.head()

    def verify(self, caller: Token, anchor: Anchor | None = None) -> AsyncIterator[Progress | Report]:
        """Return an iterator that tells how far it is, and at last what it found; it changes nothing.

        Raises AccessDeniedError without admin. The iterator raises StoreError, and UnauthenticatedError once the token
        has ended.
        """
        self._require(caller)
        return self._verify(caller.id, Verification(self._store, self._vault, self._keys.hold, anchor))

    async def _verify(self, token_id: int, verification: Verification) -> AsyncIterator[Progress | Report]:
        async for progress in verification.run():
            self._registry.confirm(token_id, self._clock())
            yield progress
        yield verification.report

    def _require(self, caller: Token) -> None:
        caller.require_admin()
        self._registry.confirm(caller.id, self._clock())
