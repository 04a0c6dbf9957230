"""Creating, listing, rekeying and revoking tokens: the part of the operations that concerns who may come in.

Knows rights, secrets and commits. Knows nothing of HTTP or SQL. Secrets and keys leave here once, in a MintedToken or
a MintedKey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

from config_client.protocol import DEFAULT_ENVIRONMENT

from .commits import Commits
from .domain.errors import ConflictError, InvalidRequestError, NotFoundError
from .domain.keys import check_environment
from .domain.records import KeyRotation, NewToken, StoredKey, StoredToken
from .domain.scopes import ADMIN_SCOPES, SERVICE_SCOPES, Scope
from .security.at_rest import Vault
from .security.tokens import (
    MintedKey,
    MintedToken,
    Token,
    TokenRegistry,
    hash_secret,
    new_key,
    new_secret,
    open_token,
)

SYSTEM: Final = 0
"""The id that stands for the service itself where a token's would stand."""
DEFAULT_OVERLAP: Final = 86_400
"""Seconds for which the keys before a rotation stay valid when nothing else is asked for."""
MAX_OVERLAP: Final = 90 * 86_400
"""Seconds for which they may, at most."""
MAX_KEYS: Final = 4
"""Keys of one token that may be valid at a time."""
_MAX_NAME: Final = 128
_MAX_SCOPES: Final = 64


class TokenOperations:
    """What holders of an admin token may do with tokens, and how the first token comes into being."""

    def __init__(
        self, *, commits: Commits, vault: Vault, registry: TokenRegistry, clock: Callable[[], datetime]
    ) -> None:
        self._commits = commits
        self._vault = vault
        self._registry = registry
        self._clock = clock

    async def create(
        self,
        caller: Token,
        name: str,
        *,
        environment: str = DEFAULT_ENVIRONMENT,
        scopes: Sequence[Scope] = SERVICE_SCOPES,
        expires_at: datetime | None = None,
    ) -> MintedToken:
        """Return a new token with its secret and key. ``environment`` is the one its requests mean by default.

        An admin may grant any scopes: who creates tokens could grant them to itself anyway.

        Raises AccessDeniedError without admin, InvalidRequestError, or StoreError.
        """
        caller.require_admin()
        self._registry.confirm(caller.id, self._clock())
        return await self._mint(caller.id, name, environment, scopes, expires_at)

    async def bootstrap(
        self,
        name: str,
        scopes: Sequence[Scope] = ADMIN_SCOPES,
        *,
        environment: str = DEFAULT_ENVIRONMENT,
    ) -> MintedToken:
        """Return a token that the service itself creates: for the first admin of a store, and never for a request.

        Raises InvalidRequestError or StoreError.
        """
        return await self._mint(SYSTEM, name, environment, scopes, None)

    def list(self, caller: Token) -> list[Token]:
        """Return every token by id, revoked and expired ones included, without keys that have retired.

        Raises AccessDeniedError without admin.
        """
        caller.require_admin()
        now = self._clock()
        return [token.without_retired(now) for token in sorted(self._registry, key=lambda token: token.id)]

    async def rotate_key(self, caller: Token, token_id: int, overlap_seconds: int) -> MintedKey:
        """Return a token with a fresh key, which is the newest from now on.

        The keys before it retire in ``overlap_seconds``, or earlier when they were to retire earlier; with 0 they
        retire at once. What is sealed for a client meanwhile is told by ``Token.key_for``. Keys that have retired are
        forgotten here.

        Raises AccessDeniedError without admin; InvalidRequestError for an overlap below 0 or over ``MAX_OVERLAP``;
        NotFoundError when there is no such token; ConflictError when it is revoked or expired, or holds ``MAX_KEYS``
        keys already; StoreError.
        """
        caller.require_admin()
        self._registry.confirm(caller.id, self._clock())
        if not 0 <= overlap_seconds <= MAX_OVERLAP:
            raise InvalidRequestError(
                f"invalid overlap: 0 (the old keys end at once) to {MAX_OVERLAP} seconds ({MAX_OVERLAP // 86_400} days)"
            )
        token = self._registry.get(token_id)
        if token is None:
            raise NotFoundError(f"there is no token {token_id}")
        if not token.valid_at(self._clock()):
            raise _no_longer_valid(token_id)
        key, overlap = new_key(), timedelta(seconds=overlap_seconds)

        def plan(held: StoredToken) -> KeyRotation:
            sealed = self._vault.seal_token_key(key, held.secret_hash)
            return _rotated(held, sealed, overlap, caller.id, self._clock())

        stored = await self._commits.rotation(token_id, plan)
        if stored is None:
            raise _no_longer_valid(token_id)
        return MintedKey(open_token(stored, self._vault), key)

    async def revoke(self, caller: Token, token_id: int) -> Token:
        """Revoke a token, ending its streams at once, and return it; revoking it again changes nothing.

        Raises AccessDeniedError without admin, NotFoundError when there is no such token, or StoreError.
        """
        caller.require_admin()
        self._registry.confirm(caller.id, self._clock())
        if self._registry.get(token_id) is not None:
            await self._commits.revocation(token_id, caller.id, self._clock())
        token = self._registry.get(token_id)
        if token is None:
            raise NotFoundError(f"there is no token {token_id}")
        return token.without_retired(self._clock())

    async def _mint(
        self, creator: int, name: str, environment: str, scopes: Sequence[Scope], expires_at: datetime | None
    ) -> MintedToken:
        now = self._clock()
        _check(name, scopes, expires_at, now)
        secret, key = new_secret(), new_key()
        secret_hash = hash_secret(secret)
        stored = await self._commits.token(
            lambda: NewToken(
                name=name,
                secret_hash=secret_hash,
                keys=(StoredKey(self._vault.seal_token_key(key, secret_hash)),),
                default_environment=check_environment(environment),
                scopes=tuple(scopes),
                created_by=creator,
                created_at=now,
                expires_at=expires_at,
            )
        )
        return MintedToken(open_token(stored, self._vault), secret, key)


def _rotated(stored: StoredToken, sealed: bytes, overlap: timedelta, rotated_by: int, now: datetime) -> KeyRotation:
    """Return the rotation that puts ``sealed`` before the keys of ``stored`` and lets those end after ``overlap``."""
    end = now + overlap
    # An end that was announced is never put off: it may have been set because that key is known to others.
    older = [StoredKey(key.sealed, min(key.retires_at or end, end)) for key in stored.keys]
    kept = [key for key in older if key.valid_at(now)]
    if len(kept) >= MAX_KEYS:
        raise ConflictError(
            f"token {stored.id} holds {len(kept)} keys that have not retired, the most that a token may: wait until "
            "one has, or rotate with an overlap of 0, which ends all of them at once"
        )
    return KeyRotation(
        token_id=stored.id,
        base=stored.keys,
        keys=(StoredKey(sealed), *kept),
        rotated_by=rotated_by,
        rotated_at=now,
    )


def _no_longer_valid(token_id: int) -> ConflictError:
    return ConflictError(f"token {token_id} is expired or revoked, and needs no key any more; create a new token")


def _check(name: str, scopes: Sequence[Scope], expires_at: datetime | None, now: datetime) -> None:
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable() or name != name.strip():
        raise InvalidRequestError(
            f"invalid token name: 1 to {_MAX_NAME} printable characters, without white space at either end"
        )
    if not 1 <= len(scopes) <= _MAX_SCOPES:
        raise InvalidRequestError(f"a token needs 1 to {_MAX_SCOPES} scopes; without one it may do nothing")
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidRequestError("invalid expiry: the time needs an offset, such as 2030-01-01T00:00:00+00:00")
    try:
        # What the store keeps is in UTC, which ends with the year 9999.
        _ = expires_at and expires_at.astimezone(timezone.utc)
    except OverflowError:
        raise InvalidRequestError("invalid expiry: the time lies outside the years 1 to 9999") from None
    if expires_at is not None and expires_at <= now:
        raise InvalidRequestError("invalid expiry: the time has passed")
