"""Who is asking: secrets, the tokens they prove, and the registry of all tokens.

Knows hashes, scopes and opened keys. Knows nothing of HTTP or stores.

A token may hold several keys while its key is rotated: the newest, and older ones until they retire. What is sealed for
a client is sealed under a key that this client holds, as far as that is known.

A secret is ``cst_`` and 32 random bytes in base64url. The service keeps SHA-256 of it: a slow password hash would
protect guessable secrets, and 2²⁵⁶ random ones cannot be guessed, so a fast hash loses nothing and costs a request a
microsecond. A look-up compares digests, whose bytes an attacker cannot choose, and ends in a constant-time comparison.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from config_client.crypto import KEY_SIZE, key_id

from ..domain.errors import AccessDeniedError, StoreCorruptError, UnauthenticatedError
from ..domain.records import StoredToken
from ..domain.scopes import Right, Scope, allows, allows_admin
from .at_rest import Vault

SECRET_PREFIX: Final = "cst_"  # noqa: S105 - the public part of every secret
_SECRET_BYTES: Final = 32
_REFUSED: Final = "the token in X-Service-Token is unknown, expired or revoked; ask an operator for a new one"


@dataclass(frozen=True, slots=True, repr=False)
class TokenKey:
    """A key to seal with, and its id. Its repr shows the id alone."""

    id: str
    key: bytes

    def __repr__(self) -> str:
        return f"TokenKey(id={self.id!r})"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Token:
    """A token with its keys opened, the newest one first. Its repr shows no secret.

    ``key_ids`` and ``retirements`` go with ``keys``, one by one; a revoked token has them without the keys. From its
    retirement on (None: never) a key is not used; ``retirements`` may be empty when no key has one.
    """

    id: int
    name: str
    secret_hash: bytes
    keys: tuple[bytes, ...]
    key_ids: tuple[str, ...]
    default_environment: str
    scopes: tuple[Scope, ...]
    created_by: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    retirements: tuple[datetime | None, ...] = ()

    def __repr__(self) -> str:
        return f"Token(id={self.id}, name={self.name!r})"

    def key_for(self, held: Collection[str] | None, now: datetime) -> TokenKey:
        """Return the key to seal with at ``now`` for a client that holds the keys with the ids ``held``.

        The newest of the client's keys that has not retired; the newest of all when there is none, so that the client
        learns the id of the key that it lacks. A client that does not say what it holds (None) gets the oldest that
        has not retired: until every client has the new key, that is the one that all of them hold.

        Raises UnauthenticatedError when the token is revoked: it has no keys any more.
        """
        if not self.keys:
            raise UnauthenticatedError(_REFUSED)
        place = 0
        if len(self.keys) > 1:
            valid = self._valid_places(now)
            place = valid[-1] if held is None else next((one for one in valid if self.key_ids[one] in held), 0)
        return TokenKey(self.key_ids[place], self.keys[place])

    def without_retired(self, now: datetime) -> Token:
        """Return this token as it is at ``now``: without the keys that have retired."""
        valid = self._valid_places(now)
        return replace(
            self,
            keys=tuple(self.keys[place] for place in valid) if self.keys else (),
            key_ids=tuple(self.key_ids[place] for place in valid),
            retirements=tuple(self.retirements[place] for place in valid) if self.retirements else (),
        )

    def key_ends(self) -> tuple[tuple[str, datetime | None], ...]:
        """Return the id of every key with its retirement, the newest key first."""
        return tuple(zip(self.key_ids, self.retirements or (None,) * len(self.key_ids), strict=True))

    def _valid_places(self, now: datetime) -> list[int]:
        """Return where the keys stand that have not retired; the newest never does."""
        ends = (end for _, end in self.key_ends())
        return [place for place, end in enumerate(ends) if place == 0 or end is None or now < end]

    def may(self, right: Right, name: str, environment: str) -> bool:
        """Tell whether this token holds ``right`` over config ``name`` in ``environment``."""
        return allows(self.scopes, right, name, environment)

    def may_administer(self) -> bool:
        """Tell whether this token may create, list and revoke tokens."""
        return allows_admin(self.scopes)

    def require(self, right: Right, name: str, environment: str) -> None:
        """Return when ``may`` holds, else raise AccessDeniedError."""
        if not self.may(right, name, environment):
            raise AccessDeniedError(
                f"the token's scopes do not grant {right.value} on this config in environment {environment}; "
                "ask for a token with a scope that does"
            )

    def require_any(self, right: Right, name: str) -> None:
        """Return when ``right`` over config ``name`` is held in some environment, else raise AccessDeniedError."""
        if not any(right in scope.rights and fnmatchcase(name, scope.configs) for scope in self.scopes):
            raise AccessDeniedError(
                f"the token's scopes do not grant {right.value} on this config in any environment; "
                "ask for a token with a scope that does"
            )

    def require_admin(self) -> None:
        """Return when this token may administer tokens, else raise AccessDeniedError."""
        if not self.may_administer():
            raise AccessDeniedError("the token's scopes do not grant admin; ask for a token that has it")

    def valid_at(self, moment: datetime) -> bool:
        """Tell whether this token is neither revoked nor expired at ``moment``."""
        return self.revoked_at is None and (self.expires_at is None or moment < self.expires_at)


@dataclass(frozen=True, slots=True, repr=False)
class MintedToken:
    """A token at its creation: the only moment at which its secret and key can be seen. Its repr shows neither."""

    token: Token
    secret: str
    key: bytes

    def __repr__(self) -> str:
        return f"MintedToken({self.token!r})"


@dataclass(frozen=True, slots=True, repr=False)
class MintedKey:
    """A token and its new key, at the only moment at which that key can be seen. Its repr does not show it."""

    token: Token
    key: bytes

    def __repr__(self) -> str:
        return f"MintedKey({self.token!r})"


def new_secret() -> str:
    """Return a fresh secret with 256 random bits."""
    return SECRET_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def new_key() -> bytes:
    """Return a fresh AES-256 key."""
    return secrets.token_bytes(KEY_SIZE)


def hash_secret(secret: str) -> bytes:
    """Return what the store keeps of ``secret``: its SHA-256."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def open_token(stored: StoredToken, vault: Vault) -> Token:
    """Return ``stored`` with its keys opened; a revoked token keeps the ids of its keys only.

    Raises StoreCorruptError when a key does not open, or there is none: a key is sealed for the secret of its token, so
    that who can write to the store and has no master key can put in no token.
    """
    if not stored.keys:
        raise StoreCorruptError(
            f"token {stored.id} has no key, which every token is given: the store was damaged or altered; restore it "
            "from a backup"
        )
    keys = tuple(vault.open_token_key(key.sealed, stored.secret_hash, stored.id) for key in stored.keys)
    return Token(
        id=stored.id,
        name=stored.name,
        secret_hash=stored.secret_hash,
        keys=() if stored.revoked_at else keys,
        key_ids=tuple(key_id(key) for key in keys),
        default_environment=stored.default_environment,
        scopes=stored.scopes,
        created_by=stored.created_by,
        created_at=stored.created_at,
        expires_at=stored.expires_at,
        revoked_at=stored.revoked_at,
        retirements=tuple(key.retires_at for key in stored.keys),
    )


class TokenRegistry:
    """Every token of the store, in memory: authentication costs a hash and a look-up. Written by the feed alone."""

    __slots__ = ("_by_hash", "_by_id")

    def __init__(self) -> None:
        self._by_id: dict[int, Token] = {}
        self._by_hash: dict[bytes, Token] = {}

    def load(self, tokens: Iterable[Token]) -> None:
        """Hold exactly ``tokens``."""
        self._by_id.clear()
        self._by_hash.clear()
        for token in tokens:
            self.put(token)

    def put(self, token: Token) -> None:
        """Add ``token``, or replace the one of its id."""
        self._by_id[token.id] = token
        self._by_hash[token.secret_hash] = token

    def revoke(self, token_id: int, at: datetime) -> None:
        """Mark a token revoked and forget its keys."""
        token = self._by_id.get(token_id)
        if token is not None:
            self.put(replace(token, revoked_at=at, keys=()))

    def get(self, token_id: int) -> Token | None:
        """Return the token of that id, revoked and expired ones included, or None."""
        return self._by_id.get(token_id)

    def confirm(self, token_id: int, now: datetime) -> None:
        """Return when the token is still valid at ``now``, else raise UnauthenticatedError.

        A request may take its time between its head, which proves the token, and its body.
        """
        token = self._by_id.get(token_id)
        if token is None or not token.valid_at(now):
            raise UnauthenticatedError(_REFUSED)

    def __iter__(self) -> Iterator[Token]:
        return iter(tuple(self._by_id.values()))

    def authenticate(self, secret: str, now: datetime) -> Token:
        """Return the token that ``secret`` proves, valid at ``now``.

        Raises UnauthenticatedError, with one message for all reasons: whoever holds no valid token learns nothing.
        """
        digest = hash_secret(secret)
        token = self._by_hash.get(digest)
        if token is None or not compare_digest(token.secret_hash, digest) or not token.valid_at(now):
            raise UnauthenticatedError(_REFUSED)
        return token
