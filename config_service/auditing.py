"""What the log says of a change beside what it is: who, from where, and a fingerprint of what was made; no value.

Knows the chain, the vault and where a request comes from. Every commit of the service takes its link from here. The
fingerprint is taken of what the sealed values open as: of what is committed, not of what a caller says it commits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from config_client.protocol import format_timestamp

from . import origin
from .background import LARGE, beside
from .domain.records import KeyRotation, Link, LogEntry, NewSchema, NewToken, NewVersion
from .domain.sealing import NewKeys
from .security import fingerprints
from .security.at_rest import Vault
from .security.chain import Detail
from .security.keyring import wrapping_id
from .security.tokens import TokenRegistry


class Auditor:
    """Makes the link of every change. Each method raises StoreCorruptError when what it is given does not open."""

    def __init__(self, *, vault: Vault, registry: TokenRegistry, epoch: Callable[[], str]) -> None:
        self._vault = vault
        self._registry = registry
        self._epoch = epoch

    async def versions(self, changes: Sequence[NewVersion]) -> Link:
        """Return the link of the entries that ``changes`` make."""
        details = {}
        for change in changes:
            size = 0 if change.document is None else len(change.document)
            fingerprint = self._of_version(change) if size < LARGE else await beside(_bind(self._of_version, change))
            details[change.key, change.version] = {"fingerprint": fingerprint}
        common = self._common(changes[0].changed_by)
        return self._link(lambda entry: common | details[entry.key, entry.version])  # type: ignore[index]

    def schema(self, change: NewSchema) -> Link:
        """Return the link of the entry that ``change`` makes."""
        content = None
        if change.schema is not None:
            content = self._vault.open_schema(change.schema, change.key, change.number)
        fingerprint = fingerprints.of_schema(self._vault.chain, change, content)
        return self._detailed(change.changed_by, {"fingerprint": fingerprint})

    def token(self, token: NewToken) -> Link:
        """Return the link of the entry that the creation of ``token`` makes."""
        keys = [(self._vault.open_token_key(key.sealed, token.secret_hash, 0), key.retires_at) for key in token.keys]
        detail = {
            "name": token.name,
            "environment": token.default_environment,
            "scopes": [str(scope) for scope in token.scopes],
            "expires_at": None if token.expires_at is None else format_timestamp(token.expires_at),
            "fingerprint": fingerprints.of_token(self._vault.chain, token),
            "keys": fingerprints.of_keys(self._vault.chain, keys),
        }
        return self._detailed(token.created_by, detail)

    def rotation(self, rotation: KeyRotation, secret_hash: bytes) -> Link:
        """Return the link of the entry that ``rotation`` makes, of the token whose secret has ``secret_hash``."""
        keys = [
            (self._vault.open_token_key(key.sealed, secret_hash, rotation.token_id), key.retires_at)
            for key in rotation.keys
        ]
        detail = {"name": self._name(rotation.token_id), "keys": fingerprints.of_keys(self._vault.chain, keys)}
        return self._detailed(rotation.rotated_by, detail)

    def revocation(self, token_id: int, revoked_by: int) -> Link:
        """Return the link of the entry that the revocation of a token makes."""
        return self._detailed(revoked_by, {"name": self._name(token_id)})

    def lifecycle(self, changed_by: int, more: Detail | None = None) -> Link:
        """Return the link of an entry about versions that are there: of a schedule, a savepoint or an archive."""
        return self._detailed(changed_by, more or {})

    def keys(self, change: NewKeys, more: Detail | None = None) -> Link:
        """Return the link of the entry that ``change`` of the keys makes, which says ``more``."""
        told = [{"id": key.id, "use": key.use.value} for key in change.keys]
        master = sorted({wrapping_id(key) for key in change.keys})
        return self._detailed(change.changed_by, {"data_keys": told, "master_keys": master, **(more or {})})

    def _of_version(self, change: NewVersion) -> str:
        content = None
        if change.document is not None:
            content = self._vault.open_document(change.document, change.key, change.version)
        return fingerprints.of_version(self._vault.chain, change, content)

    def _detailed(self, changed_by: int, detail: Detail) -> Link:
        told = {**self._common(changed_by), **detail}
        return self._link(lambda _: told)

    def _link(self, detail: Callable[[LogEntry], Mapping[str, object]]) -> Link:
        chain = self._vault.chain

        def link(entry: LogEntry, previous: bytes | None) -> LogEntry:
            told = {name: value for name, value in detail(entry).items() if value is not None}
            return chain.linked(entry, previous, told)

        return link

    def _common(self, changed_by: int) -> dict[str, object]:
        """Return what is told of every change; taken where the request is known, as links are made on other threads."""
        here = origin.current()
        return {
            "epoch": self._epoch(),
            "token": self._name(changed_by),
            "request": here.request_id or None,
            "peer": here.address or None,
        }

    def _name(self, token_id: int) -> str | None:
        token = self._registry.get(token_id)
        return None if token is None else token.name


def _bind(work: Callable[[NewVersion], str], change: NewVersion) -> Callable[[], str]:
    return lambda: work(change)
