"""The keys of the store on their way into the vault: at the start, after a rotation, and whenever one is missed.

Knows the store and the vault. A store that has no keys yet is given its first ones here; one that is older than data
keys also gets the first link of its log, which covers all that was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from .auditing import Auditor
from .beforehand import told_before
from .domain.errors import ConflictError, StoreCorruptError
from .domain.records import ChangeKind, LogEntry
from .domain.sealing import NewKeys
from .security.at_rest import Vault
from .security.tokens import TokenRegistry
from .store.protocol import ConfigStore, KeysConflictError

_SYSTEM: Final = 0
_ROUNDS: Final = 16
"""How often the log of an old store is read anew because it grew meanwhile."""


class KeyHolder:
    """Sees to it that the vault holds the keys that the store has."""

    def __init__(self, store: ConfigStore, vault: Vault, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    async def unlock(self) -> None:
        """Hold the keys of the store, which is given its first ones if it has none.

        Raises WrongMasterKeyError, StoreCorruptError or another StoreError.
        """
        for _ in range(_ROUNDS):
            if await self._store.keys():
                await self.refresh()
                return
            try:
                await self._give_first_keys()
            except KeysConflictError:
                continue  # another replica was faster, or the log grew
        raise ConflictError("other replicas changed the store all the time while its log was read; start again")

    async def refresh(self) -> None:
        """Hold the keys that the store has now. Raises what ``unlock`` raises."""
        self._vault.hold(await self._store.keys())

    async def hold(self, *sealed: bytes | None) -> None:
        """Hold the keys under which ``sealed`` are sealed: one may be newer than what was heard of so far.

        Whether there is such a key shows when they are opened. Raises StoreError.
        """
        if not all(value is None or self._vault.opens(value) for value in sealed):
            await self.refresh()

    async def _give_first_keys(self) -> None:
        master_key = self._vault.verify_check(await self._store.seal_check(self._vault.new_check()))
        head, now = await self._store.head(), self._clock()
        if head.link is not None:
            raise StoreCorruptError(
                "the log of the store is chained, but its keys are gone: it was damaged or altered; restore it from a "
                "backup"
            )
        keys = self._vault.master_keys.first(now, master_key, before=head.revision > 0)
        if not head.revision:
            await self._store.commit_keys(NewKeys((), keys, None, _SYSTEM, now))
            return
        # A vault of its own: if another replica is faster, these keys were never those of the store.
        vault = self._vault.twin()
        vault.hold(keys)
        change = NewKeys((), keys, ChangeKind.AUDIT_STARTED, _SYSTEM, now)
        auditor = Auditor(vault=vault, registry=TokenRegistry(), epoch=lambda: head.epoch)
        link = auditor.keys(change, await told_before(self._store, vault, head.revision))

        def only_next(entry: LogEntry, previous: bytes | None) -> LogEntry:
            if entry.revision != head.revision + 1:
                raise KeysConflictError
            return link(entry, previous)

        await self._store.commit_keys(change, only_next)
