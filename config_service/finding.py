"""Finding a version of a config: the running one in memory, an older one in the store. Asks nobody for rights."""

from __future__ import annotations

from .delivery.running import Running, Standing
from .domain.documents import Document
from .domain.errors import ArchivedError, NotFoundError
from .domain.keys import ConfigKey
from .domain.names import Which
from .security.at_rest import Vault
from .store.protocol import ConfigStore
from .unlocking import KeyHolder


class Finder:
    """Finds documents, in the clear."""

    def __init__(self, *, store: ConfigStore, vault: Vault, keys: KeyHolder, running: Running) -> None:
        self._store = store
        self._keys = keys
        self._vault = vault
        self._running = running

    def standing(self, key: ConfigKey) -> Standing:
        """Return how ``key`` stands: what runs, what waits, and which version is the newest."""
        return self._running.standing(key)

    def running(self, key: ConfigKey) -> Document:
        """Return the running version of ``key``; it has content. Raises NotFoundError when nothing runs."""
        return _with_content(self._running.get(key), key, "running version")

    async def number(self, key: ConfigKey, which: Which) -> int:
        """Return the number of the version that ``which`` names, whether or not there is one of that number.

        Raises NotFoundError when there is no such savepoint, or StoreError.
        """
        if isinstance(which, int):
            return which
        for savepoint in await self._store.savepoints(key):
            if savepoint.name == which:
                return savepoint.version
        raise NotFoundError(f"{key}: there is no savepoint of that name")

    async def find(self, key: ConfigKey, number: int | None = None, *, served: bool = True) -> Document:
        """Return the running version of ``key``, or version ``number``; it has content.

        Raises NotFoundError when nothing runs, or there is no such version, or it is a tombstone, or it was never
        served, unless such a version will do too (``served`` is False); ArchivedError; StoreError.
        """
        if number is None:
            return self.running(key)
        document = self._running.get(key)
        if (document is not None and number != document.version) or (document is None and not served):
            stored = await self._store.version(key, number)
            sealed = None if stored is None or (served and not stored.served) else stored.document
            document = None
            if stored is not None and stored.archived is not None and (stored.served or not served):
                raise ArchivedError(
                    f"{key}: version {number} was archived at revision {stored.archived}; its document is not kept here"
                )
            if stored is not None and sealed is not None:
                await self._keys.hold(sealed)
                document = Document.of(stored, self._vault.open_document(sealed, key, stored.version))
        return _with_content(document, key, f"version {number}")


def _with_content(document: Document | None, key: ConfigKey, what: str) -> Document:
    if document is None or document.deleted:
        raise NotFoundError(f"{key}: there is no {what}")
    return document
