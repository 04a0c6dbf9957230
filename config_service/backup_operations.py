"""What may be done with the store as a whole: the part of the operations that copies all of it.

Knows rights, the store and the format of backups. Knows nothing of HTTP or files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final

from .backup.files import write_lines
from .backup.reading import read_everything
from .domain.records import Record, SealCheck
from .security.at_rest import Vault
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore

_CHUNK: Final = 64 * 1024
"""Bytes that are handed on at a time, so that small records do not cost a step each."""


class BackupOperations:
    """What holders of an admin token may copy."""

    def __init__(
        self, *, store: ConfigStore, vault: Vault, registry: TokenRegistry, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._vault = vault
        self._registry = registry
        self._clock = clock

    def backup(self, caller: Token) -> AsyncIterator[bytes]:
        """Return the chunks of a backup of everything, as of one revision; the store may be written to meanwhile.

        Raises AccessDeniedError without admin. The chunks raise StoreError, and UnauthenticatedError once the token has
        ended; then the end of the backup is missing, and whoever restores it is told so.
        """
        caller.require_admin()
        return self._chunks(caller.id)

    async def _chunks(self, token_id: int) -> AsyncIterator[bytes]:
        pending, size = [], 0
        async for line in backup_lines(self._store, self._vault, self._clock()):
            pending.append(line)
            size += len(line)
            if size >= _CHUNK:
                self._registry.confirm(token_id, self._clock())
                yield b"".join(pending)
                pending, size = [], 0
        yield b"".join(pending)


async def backup_lines(store: ConfigStore, vault: Vault, now: datetime) -> AsyncIterator[bytes]:
    """Yield the lines of a backup of ``store``, which is open and sealed by ``vault``. Raises StoreError."""
    epoch = (await store.position()).epoch
    async for line in write_lines(epoch, _records(store, vault), now, vault.backup_mac):
        yield line


async def _records(store: ConfigStore, vault: Vault) -> AsyncIterator[Record]:
    # First, so that a restore under another master key ends before it has begun.
    yield SealCheck(await store.seal_check(vault.new_check()))
    async for record in read_everything(store):
        yield record
