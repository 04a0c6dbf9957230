"""What was there before the log was chained, in one digest; and what an entry of the log made.

Knows the store, the vault and the chain. Whoever starts the chain of an old store, and whoever verifies it, takes the
digest here.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from hashlib import sha256
from typing import Final

from .domain.records import VERSION_KINDS, ChangeKind, LogEntry, StoredSchema, StoredToken, Version
from .security import fingerprints
from .security.at_rest import Vault
from .security.chain import Detail, encode
from .store.protocol import ConfigStore

_PAGE: Final = 256
_SCHEMAS: Final = frozenset({ChangeKind.SCHEMA_SET, ChangeKind.SCHEMA_REMOVED})


class Before:
    """The digest over entries from before the chain: SHA-256 over the encoding of each, with what it made."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._digest = sha256()

    def add(self, entry: LogEntry, made: Version | StoredSchema | None) -> None:
        """Take the next entry, and the version or schema that it made. Raises StoreCorruptError when that is sealed."""
        told: dict[str, object] = {one.name: getattr(entry, one.name) for one in fields(entry)}
        if made is not None:
            told["made"] = fingerprint_of(self._vault, made)
        self._digest.update(encode({"entry": told}))

    def hexdigest(self) -> str:
        """Return the digest of all entries taken so far, as 64 hex characters."""
        return self._digest.hexdigest()


async def told_before(store: ConfigStore, vault: Vault, until: int) -> Detail:
    """Return what the first linked entry says of the ``until`` revisions before it. Raises StoreError."""
    before, revision = Before(vault), 0
    while revision < until and (page := await store.log(revision, min(_PAGE, until - revision))):
        for entry in page:
            before.add(entry, await made_by(store, entry))
        revision = page[-1].revision
    tokens = {
        str(token.id): {
            "fingerprint": fingerprints.of_token(vault.chain, token),
            "keys": fingerprints.of_keys(vault.chain, opened_keys(vault, token)),
        }
        for token in await store.tokens()
    }
    return {"before": until, "digest": before.hexdigest(), "tokens": tokens}


def makes_version(entry: LogEntry) -> bool:
    """Tell whether ``entry`` is the one that made its version."""
    return entry.kind in VERSION_KINDS and entry.key is not None and entry.version is not None


def makes_schema(entry: LogEntry) -> bool:
    """Tell whether ``entry`` is the one that made its schema."""
    return entry.kind in _SCHEMAS and entry.key is not None and entry.schema is not None


async def made_by(store: ConfigStore, entry: LogEntry) -> Version | StoredSchema | None:
    """Return the version or schema that ``entry`` made; None when there is none, or it made something else."""
    if entry.key is not None and entry.version is not None and makes_version(entry):
        return await store.version(entry.key, entry.version)
    if entry.key is not None and entry.schema is not None and makes_schema(entry):
        return await store.schema(entry.key, entry.schema)
    return None


def sealed_of(made: Version | StoredSchema | None) -> bytes | None:
    """Return what is sealed of a version or schema; None when nothing is."""
    if made is None:
        return None
    return made.document if isinstance(made, Version) else made.schema


def fingerprint_of(vault: Vault, made: Version | StoredSchema) -> str:
    """Return the fingerprint of what the store has. Raises StoreCorruptError when it does not open."""
    if isinstance(made, Version):
        sealed = made.document
        content = None if sealed is None else vault.open_document(sealed, made.key, made.version)
        return fingerprints.of_version(vault.chain, made, content)
    content = None if made.schema is None else vault.open_schema(made.schema, made.key, made.number)
    return fingerprints.of_schema(vault.chain, made, content)


def opened_keys(vault: Vault, token: StoredToken) -> list[tuple[bytes, datetime | None]]:
    """Return the keys of ``token`` in the clear, each with its retirement. Raises StoreCorruptError."""
    return [(vault.open_token_key(key.sealed, token.secret_hash, token.id), key.retires_at) for key in token.keys]
