"""What may be done with the keys of the store: rotating the data key and the master key, and sealing anew.

Knows rights, keys, and how they are committed. Knows nothing of HTTP or SQL. All of it happens while the service runs:

- A rotation of the data key makes a new one the active one. What is new is sealed under it from then on, whichever
  process seals: a store refuses anything else. What is there opens as before.
- Sealing anew goes through everything that is sealed, in batches, and replaces what is sealed under an older key by the
  same under the active one, if it is still the same. It keeps no state of its own, so it may be cut and begun again
  anywhere. When it has come to an end, keys under which nothing is sealed any more are destroyed.
- A rotation of the master key wraps the keys of the store anew. It touches nothing that is sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .background import LARGE, beside
from .commits import Commits
from .domain.errors import ConflictError, StoreCorruptError
from .domain.records import ChangeKind, KeyUse, WrappedKey
from .domain.sealing import NewKeys, Resealed, SealedKind, SealedPlace, SealedValue, data_key_id
from .security.at_rest import Vault
from .security.keyring import wrapping_id
from .security.tokens import Token, TokenRegistry
from .store.protocol import ConfigStore, KeysConflictError, SealingKeyError
from .unlocking import KeyHolder

MAX_BATCH: Final = 1000
"""Sealed values that are looked at in one step, at most."""
DEFAULT_BATCH: Final = 32
"""How many when nothing is asked for: their commit holds up a publish for a few milliseconds."""
_ROUNDS: Final = 16


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key of the store, and how much is sealed under it. ``master_key`` is the id of the one that wraps it."""

    id: int
    use: KeyUse
    created_at: datetime
    master_key: str
    values: int


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys of the store, and the id of the master key under which a rotation would wrap them."""

    keys: tuple[DataKey, ...]
    master_key: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of sealing anew came to. ``after``: where the next one begins; None: that was the last one."""

    checked: int
    resealed: int
    changed_meanwhile: int
    damaged: tuple[str, ...]
    after: SealedPlace | None
    remaining: int | None
    destroyed: tuple[int, ...] = ()


class KeyOperations:
    """Everything that holders of an admin token may do with the keys of the store."""

    def __init__(
        self,
        *,
        store: ConfigStore,
        vault: Vault,
        keys: KeyHolder,
        commits: Commits,
        registry: TokenRegistry,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._vault = vault
        self._keys = keys
        self._commits = commits
        self._registry = registry
        self._clock = clock

    async def list(self, caller: Token) -> KeyRing:
        """Return the keys of the store, by id. Raises AccessDeniedError without admin, or StoreError."""
        self._require(caller)
        counts = await self._store.sealed_counts()
        return KeyRing(
            tuple(
                DataKey(key.id, key.use, key.created_at, wrapping_id(key), counts.get(key.id, 0))
                for key in await self._store.keys()
            ),
            self._vault.master_keys.current_id,
        )

    async def rotate(self, caller: Token) -> KeyRing:
        """Seal everything new under a fresh data key from now on.

        Raises AccessDeniedError without admin; WrongMasterKeyError when the keys are wrapped under a master key that
        this process was not given; ConflictError when others were faster every time; StoreError.
        """
        now = self._clock()
        await self._change(caller, ChangeKind.DATA_KEY_CREATED, lambda keys: self._vault.master_keys.rotated(keys, now))
        return await self.list(caller)

    async def rotate_master(self, caller: Token) -> tuple[KeyRing, bool]:
        """Wrap every key under the current master key; tell whether any was wrapped under another one.

        Raises what ``rotate`` raises.
        """
        self._require(caller)
        if self._vault.master_keys.wraps(await self._store.keys()):
            return await self.list(caller), False
        await self._change(
            caller, ChangeKind.MASTER_KEY_ROTATED, self._vault.master_keys.rewrapped, check=self._vault.new_check()
        )
        return await self.list(caller), True

    async def reseal(self, caller: Token, after: SealedPlace | None, limit: int = DEFAULT_BATCH) -> Step:
        """Seal anew what of the next ``limit`` sealed values is not sealed under the active data key.

        A value that does not open is left as it is and told. Raises AccessDeniedError without admin, ConflictError when
        the data key was rotated every time meanwhile, or StoreError.
        """
        self._require(caller)
        for _ in range(_ROUNDS):
            values = await self._store.sealed_values(after, max(1, min(limit, MAX_BATCH)))
            active = self._vault.active
            stale = [value for value in values if data_key_id(value.sealed) != active]
            damaged: list[str] = []
            changes: list[Resealed] = []
            for value in stale:
                try:
                    anew = await self._anew(value)
                except StoreCorruptError as error:
                    damaged.append(str(error))
                else:
                    if anew is not None:
                        changes.append(Resealed(value.place, value.sealed, anew))
            try:
                resealed = await self._commits.reseal(changes) if changes else 0
            except SealingKeyError:
                await self._keys.refresh()
                continue
            missed = len(changes) - resealed
            if values:
                return Step(len(values), resealed, missed, tuple(damaged), values[-1].place, None)
            destroyed, remaining = await self._destroy_unused(caller)
            return Step(0, 0, 0, (), None, remaining, destroyed)
        raise ConflictError(f"the data key was rotated {_ROUNDS} times meanwhile; try again")

    async def _anew(self, value: SealedValue) -> bytes | None:
        """Return ``value`` sealed under the active key; None when it is not there any more."""
        await self._keys.hold(value.sealed)
        vault, place, key = self._vault, value.place, value.place.key
        if place.kind is SealedKind.TOKEN_KEY or key is None:
            token = await self._store.token(place.number)
            if token is None:
                return None
            opened = vault.open_token_key(value.sealed, token.secret_hash, token.id)
            return vault.seal_token_key(opened, token.secret_hash)
        if place.kind is SealedKind.DRAFT:
            return vault.seal_draft(vault.open_draft(value.sealed, key, place.number), key, place.number)
        if place.kind is SealedKind.SCHEMA:
            return vault.seal_schema(vault.open_schema(value.sealed, key, place.number), key, place.number)

        def document() -> bytes:
            return vault.seal_document(vault.open_document(value.sealed, key, place.number), key, place.number)

        return document() if len(value.sealed) < LARGE else await beside(document)

    async def _destroy_unused(self, caller: Token) -> tuple[tuple[int, ...], int]:
        """Destroy retired keys under which nothing is sealed; return their ids, and how much is left under others.

        Nothing new can be sealed under a retired key, so what counts as unused stays unused.
        """
        keys = await self._store.keys()
        retired = {key.id for key in keys if key.use is KeyUse.RETIRED}
        counts = await self._store.sealed_counts()
        unused = sorted(retired - counts.keys())
        if unused:
            await self._change(
                caller,
                ChangeKind.DATA_KEYS_DESTROYED,
                lambda held: tuple(key for key in held if key.id not in unused),
                more={"destroyed": unused},
            )
        return tuple(unused), sum(counts.get(key_id, 0) for key_id in retired)

    async def _change(
        self,
        caller: Token,
        kind: ChangeKind,
        change: Callable[[tuple[WrappedKey, ...]], tuple[WrappedKey, ...]],
        check: bytes | None = None,
        more: dict[str, object] | None = None,
    ) -> None:
        self._require(caller)
        for _ in range(_ROUNDS):
            base = await self._store.keys()
            try:
                await self._commits.keys(NewKeys(base, change(base), kind, caller.id, self._clock(), check), more)
            except KeysConflictError:
                continue
            return
        raise ConflictError(f"the keys of the store were changed {_ROUNDS} times meanwhile; try again")

    def _require(self, caller: Token) -> None:
        caller.require_admin()
        self._registry.confirm(caller.id, self._clock())
