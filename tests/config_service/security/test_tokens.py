"""Tokens: secrets, rights, expiry and the registry that authenticates."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256

import pytest
from vaults import new_vault

from config_client.crypto import key_id
from config_service.domain.errors import AccessDeniedError, StoreCorruptError, UnauthenticatedError
from config_service.domain.records import KeyRotation, StoredKey, StoredToken
from config_service.domain.scopes import ADMIN_SCOPES, Right, Scope
from config_service.security.tokens import (
    MintedKey,
    MintedToken,
    Token,
    TokenKey,
    TokenRegistry,
    hash_secret,
    new_key,
    new_secret,
    open_token,
)

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
VAULT = new_vault()


def stored(secret: str = "cst_test", key: bytes = b"k" * 32, *scopes: str, **changes: object) -> StoredToken:
    secret_hash = hash_secret(secret)
    token = StoredToken(
        id=7,
        name="orders",
        secret_hash=secret_hash,
        keys=(StoredKey(VAULT.seal_token_key(key, secret_hash)),),
        default_environment="default",
        scopes=tuple(Scope.parse(scope) for scope in scopes or ("*@*:read",)),
        created_by=1,
        created_at=NOW,
    )
    return replace(token, **changes)


OLDEST, MIDDLE, NEWEST = b"1" * 32, b"2" * 32, b"3" * 32
HOUR = timedelta(hours=1)


def rotated() -> Token:
    """Return a token in the middle of two rotations: the oldest of its keys retires in an hour, the next one in two."""
    secret_hash = hash_secret("cst_test")
    ends = ((NEWEST, None), (MIDDLE, NOW + 2 * HOUR), (OLDEST, NOW + HOUR))
    keys = tuple(StoredKey(VAULT.seal_token_key(key, secret_hash), end) for key, end in ends)
    return open_token(stored(keys=keys), VAULT)


def registry(*tokens: Token) -> TokenRegistry:
    held = TokenRegistry()
    held.load(tokens)
    return held


def test_secrets_are_256_random_bits_behind_a_public_prefix() -> None:
    """The prefix makes leaked secrets recognisable; 32 random bytes make them unguessable."""
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    assert all(secret.startswith("cst_") and len(secret) == 47 for secret in secrets)
    assert len(new_key()) == 32


def test_the_store_keeps_a_hash() -> None:
    """SHA-256 of the secret, also of text that no header can hold."""
    assert hash_secret("cst_x") == sha256(b"cst_x").digest()
    assert len(hash_secret("\udcff")) == 32


def test_a_stored_token_opens_with_its_keys_and_their_ids() -> None:
    """Opened, it holds what sealing needs."""
    token = open_token(stored(key=b"q" * 32), VAULT)
    assert token.keys == (b"q" * 32,)
    assert token.key_ids == (key_id(b"q" * 32),)


def test_a_revoked_token_keeps_the_ids_of_its_keys_only() -> None:
    """Keys that nothing may be sealed with any more need not be in memory."""
    token = open_token(stored(revoked_at=NOW), VAULT)
    assert token.keys == ()
    assert len(token.key_ids) == 1


@pytest.mark.parametrize(
    ("hours", "expected"), [(0, OLDEST), (0.99, OLDEST), (1, MIDDLE), (1.99, MIDDLE), (2, NEWEST), (10_000, NEWEST)]
)
def test_who_does_not_say_what_it_holds_gets_the_oldest_key_that_has_not_retired(hours: float, expected: bytes) -> None:
    """While a rotation is under way, that is the key that every client has; a key retires at its moment."""
    chosen = rotated().key_for(None, NOW + hours * HOUR)
    assert chosen == TokenKey(key_id(expected), expected)


@pytest.mark.parametrize(
    ("held", "hours", "expected"),
    [
        ((NEWEST,), 0, NEWEST),
        ((MIDDLE,), 0, MIDDLE),
        ((OLDEST,), 0, OLDEST),
        ((OLDEST, NEWEST), 0, NEWEST),
        ((OLDEST, MIDDLE), 0, MIDDLE),
        ((OLDEST, MIDDLE), 1, MIDDLE),
        ((OLDEST,), 1, NEWEST),
        ((OLDEST, MIDDLE), 2, NEWEST),
        ((b"foreign" + bytes(25),), 0, NEWEST),
        ((b"foreign" + bytes(25), OLDEST), 0, OLDEST),
        ((), 0, NEWEST),
    ],
)
def test_who_says_what_it_holds_gets_the_newest_of_it_that_has_not_retired(
    held: tuple[bytes, ...], hours: float, expected: bytes
) -> None:
    """Whoever holds none of the keys gets the newest, by whose id it learns what it lacks."""
    for told in ([key_id(key) for key in held], frozenset(map(key_id, held))):
        assert rotated().key_for(told, NOW + hours * HOUR).key == expected


def test_a_token_with_one_key_seals_with_it_whatever_is_held() -> None:
    """There is no choice, and the only key of a token never retires, whatever a store says."""
    retired = StoredKey(VAULT.seal_token_key(b"q" * 32, hash_secret("cst_test")), NOW - HOUR)
    for token in (open_token(stored(key=b"q" * 32), VAULT), open_token(stored(keys=(retired,)), VAULT)):
        for held in (None, (), ("0" * 16,), (key_id(b"q" * 32),)):
            assert token.key_for(held, NOW) == TokenKey(key_id(b"q" * 32), b"q" * 32)


def test_the_newest_key_never_retires() -> None:
    """Not even where a store says so: a token is never left without a key."""
    secret_hash = hash_secret("cst_test")
    keys = tuple(StoredKey(VAULT.seal_token_key(key, secret_hash), NOW - HOUR) for key in (NEWEST, OLDEST))
    token = open_token(stored(keys=keys), VAULT)
    for held in (None, (), (key_id(OLDEST),)):
        assert token.key_for(held, NOW).key == NEWEST
    assert token.without_retired(NOW).keys == (NEWEST,)


def test_a_revoked_token_has_no_key_to_seal_with() -> None:
    """It is refused like any other request of that token."""
    held = registry(rotated())
    held.revoke(7, NOW)
    revoked = held.get(7)
    assert revoked is not None
    assert len(revoked.key_ids) == 3
    for ids in (None, (key_id(NEWEST),)):
        with pytest.raises(UnauthenticatedError):
            revoked.key_for(ids, NOW)


def test_keys_that_have_retired_can_be_left_out() -> None:
    """Ids, keys and retirements stay side by side; of a revoked token the ids alone are left."""
    token = rotated()
    held = registry(token)
    held.revoke(7, NOW)
    revoked = held.get(7)
    assert revoked is not None
    for hours, left in ((0, (NEWEST, MIDDLE, OLDEST)), (1, (NEWEST, MIDDLE)), (2, (NEWEST,)), (99, (NEWEST,))):
        now = token.without_retired(NOW + hours * HOUR)
        assert now.keys == left
        assert now.key_ids == tuple(map(key_id, left))
        assert now.key_ends() == token.key_ends()[: len(left)]
        gone = revoked.without_retired(NOW + hours * HOUR)
        assert (gone.keys, gone.key_ids) == ((), now.key_ids)


def test_a_key_that_does_not_open_names_its_token() -> None:
    """A damaged key is a damaged store, not a token without keys."""
    with pytest.raises(StoreCorruptError, match="token 7"):
        open_token(stored(keys=(StoredKey(b"damaged"),)), VAULT)


def test_a_token_that_was_put_into_the_store_does_not_open() -> None:
    """Neither without a key, nor with the key of another token: only the master key seals one for a secret."""
    of_another = stored().keys
    for keys in ((), of_another):
        with pytest.raises(StoreCorruptError, match="token 7"):
            open_token(stored(secret="cst_put_in", keys=keys), VAULT)


def test_the_secret_authenticates_and_nothing_else_does() -> None:
    """Unknown, similar and empty secrets all fail with the same message."""
    held = registry(open_token(stored("cst_right"), VAULT))
    assert held.authenticate("cst_right", NOW).id == 7
    messages = set()
    for wrong in ("cst_wrong", "cst_righ", "cst_right ", "", "\udcff"):
        with pytest.raises(UnauthenticatedError) as caught:
            held.authenticate(wrong, NOW)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_token_expires_at_its_moment() -> None:
    """Valid until the moment before, refused from the moment on."""
    expires = NOW + timedelta(hours=1)
    held = registry(open_token(stored(expires_at=expires), VAULT))
    assert held.authenticate("cst_test", expires - timedelta(microseconds=1)).id == 7
    with pytest.raises(UnauthenticatedError):
        held.authenticate("cst_test", expires)


def test_a_revoked_token_is_refused_and_forgets_its_keys() -> None:
    """Revocation takes effect in the registry at once."""
    held = registry(open_token(stored(), VAULT))
    held.revoke(7, NOW)
    held.revoke(8, NOW)
    with pytest.raises(UnauthenticatedError):
        held.authenticate("cst_test", NOW)
    token = held.get(7)
    assert token is not None
    assert token.keys == ()
    assert token.revoked_at == NOW


def test_loading_replaces_what_was_held() -> None:
    """The registry holds exactly the tokens it was given."""
    held = registry(open_token(stored("cst_old"), VAULT))
    held.load([open_token(stored("cst_new", id=8), VAULT)])
    assert [token.id for token in held] == [8]
    assert held.get(7) is None
    with pytest.raises(UnauthenticatedError):
        held.authenticate("cst_old", NOW)


@pytest.mark.parametrize(
    ("right", "name", "environment", "allowed"),
    [
        (Right.READ, "orders-eu", "prod", True),
        (Right.EXPORT, "orders-eu", "prod", False),
        (Right.READ, "orders-eu", "test", False),
        (Right.READ, "billing", "prod", False),
        (Right.WRITE, "billing", "test", True),
        (Right.READ, "billing", "test", False),
    ],
)
def test_rights_are_granted_by_scope_and_denied_by_default(
    right: Right, name: str, environment: str, allowed: bool
) -> None:
    """One scope must grant the right, the name and the environment together."""
    token = open_token(stored("cst_test", b"k" * 32, "orders-*@prod:read", "billing@test:write"), VAULT)
    assert token.may(right, name, environment) is allowed
    if allowed:
        token.require(right, name, environment)
    else:
        with pytest.raises(AccessDeniedError, match=right.value):
            token.require(right, name, environment)


def test_a_right_in_some_environment_is_enough_for_require_any() -> None:
    """A watch without an environment needs one environment that may be read, whichever it is."""
    token = open_token(stored("cst_test", b"k" * 32, "orders-*@prod:read"), VAULT)
    token.require_any(Right.READ, "orders-eu")
    for right, name in ((Right.READ, "billing"), (Right.WRITE, "orders-eu")):
        with pytest.raises(AccessDeniedError):
            token.require_any(right, name)


def test_only_admin_administers() -> None:
    """Every other right together is not admin."""
    with pytest.raises(AccessDeniedError, match="admin"):
        open_token(stored("cst_test", b"k" * 32, "*@*:read,export,write"), VAULT).require_admin()
    open_token(stored(scopes=ADMIN_SCOPES), VAULT).require_admin()


def test_no_repr_shows_a_secret_a_hash_or_a_key() -> None:
    """Tokens may be logged."""
    secret, key = new_secret(), new_key()
    token = open_token(stored(secret, key), VAULT)
    sealed = stored(secret, key)
    shown = repr(token) + repr(MintedToken(token, secret, key)) + repr(MintedKey(token, key)) + repr(sealed)
    shown += repr(sealed.keys) + repr(token.key_for(None, NOW)) + repr(KeyRotation(7, sealed.keys, sealed.keys, 1, NOW))
    at_rest = sealed.keys[0].sealed
    for hidden in (secret, key.hex(), repr(key), hash_secret(secret).hex(), repr(hash_secret(secret)), repr(at_rest)):
        assert hidden not in shown
