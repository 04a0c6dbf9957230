"""Creating, listing and revoking tokens."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from config_client.crypto import key_id
from config_service.delivery.subscription import End
from config_service.domain.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StoreFullError,
    UnauthenticatedError,
)
from config_service.domain.records import ChangeKind
from config_service.domain.scopes import ADMIN_SCOPES, SERVICE_SCOPES, Scope
from config_service.security.tokens import MintedKey, MintedToken
from config_service.store.protocol import KeyConflictError
from config_service.token_operations import MAX_KEYS, MAX_OVERLAP

pytestmark = pytest.mark.anyio
HOUR = 3600


async def test_a_new_token_is_accepted_at_once(service: Any) -> None:
    """With read and export everywhere, unless told otherwise."""
    minted = await service.operations.tokens.create(service.admin.token, "orders")
    token = service.operations.authenticate(minted.secret)
    assert token.scopes == SERVICE_SCOPES
    assert (token.name, token.default_environment, token.created_by) == ("orders", "default", service.admin.token.id)
    assert token.keys == (minted.key,)
    assert token.expires_at is None


async def test_the_first_token_is_made_by_the_system(service: Any) -> None:
    """Bootstrap needs no caller and is told apart by its creator, 0."""
    minted = await service.operations.tokens.bootstrap("first")
    assert minted.token.created_by == 0
    assert minted.token.scopes == ADMIN_SCOPES
    named = await service.operations.tokens.bootstrap("dev", SERVICE_SCOPES, environment="dev")
    assert named.token.default_environment == "dev"


async def test_every_token_has_a_secret_and_a_key_of_its_own(service: Any) -> None:
    """Nothing is shared between tokens."""
    minted = [await service.mint() for _ in range(5)]
    assert len({one.secret for one in minted}) == 5
    assert len({one.key for one in minted}) == 5
    assert len({one.token.id for one in minted}) == 5


@pytest.mark.parametrize("name", ["", " padded", "padded ", "x" * 129, "line\nbreak", "nul\0"])
async def test_a_name_that_cannot_be_shown_is_refused(service: Any, name: str) -> None:
    """Names are printed in lists; white space at the ends and control characters would deceive."""
    with pytest.raises(InvalidRequestError, match="token name"):
        await service.operations.tokens.create(service.admin.token, name)


@pytest.mark.parametrize(
    "change",
    [
        {"environment": "not a slug"},
        {"scopes": ()},
        {"scopes": tuple(Scope.parse("a@b:read") for _ in range(65))},
        {"expires_at": datetime(2030, 1, 1)},  # noqa: DTZ001 - without an offset on purpose
    ],
)
async def test_what_makes_no_sense_is_refused(service: Any, change: dict[str, Any]) -> None:
    """Environment, scopes and expiry are checked before anything is stored."""
    stored = len(service.store.held_tokens)
    with pytest.raises(InvalidRequestError):
        await service.operations.tokens.create(service.admin.token, "orders", **change)
    assert len(service.store.held_tokens) == stored


async def test_an_expiry_in_the_past_is_refused(service: Any) -> None:
    """A token that is never valid is a mistake."""
    with pytest.raises(InvalidRequestError, match="passed"):
        await service.mint("*@*:read", expires_at=service.clock.now)
    await service.mint("*@*:read", expires_at=service.clock.now + timedelta(seconds=1))


async def test_only_admins_do_anything_with_tokens(service: Any) -> None:
    """Every other right together is not enough, and existence is not told."""
    token = (await service.mint("*@*:read,export,write")).token
    tokens = service.operations.tokens
    with pytest.raises(AccessDeniedError):
        await tokens.create(token, "x")
    with pytest.raises(AccessDeniedError):
        tokens.list(token)
    for token_id in (1, 99):
        with pytest.raises(AccessDeniedError):
            await tokens.revoke(token, token_id)
        for overlap in (0, -1):
            with pytest.raises(AccessDeniedError):
                await tokens.rotate_key(token, token_id, overlap)


async def test_a_revoked_token_is_refused_and_its_streams_end(service: Any) -> None:
    """At once; other tokens go on."""
    await service.publish("orders")
    revoked, other = await service.mint(), await service.mint()
    streams = [service.operations.streams.subscribe(one.token, "orders") for one in (revoked, other)]
    token = await service.operations.tokens.revoke(service.admin.token, revoked.token.id)
    assert token.revoked_at == service.clock.now
    assert [stream.ended for stream in streams] == [End.REVOKED, None]
    with pytest.raises(UnauthenticatedError):
        service.operations.authenticate(revoked.secret)
    service.operations.authenticate(other.secret)


async def test_revoking_again_changes_nothing(service: Any) -> None:
    """The first revocation is the one that counts."""
    minted = await service.mint()
    first = await service.operations.tokens.revoke(service.admin.token, minted.token.id)
    entries = len(service.store.entries)
    service.clock.advance(60)
    again = await service.operations.tokens.revoke(service.admin.token, minted.token.id)
    assert again.revoked_at == first.revoked_at
    assert len(service.store.entries) == entries


@pytest.mark.parametrize("token_id", [0, -1, 99, 10**30])
async def test_an_unknown_token_cannot_be_revoked(service: Any, token_id: int) -> None:
    """Not found, also for numbers that no store could hold."""
    with pytest.raises(NotFoundError):
        await service.operations.tokens.revoke(service.admin.token, token_id)


async def test_the_list_has_every_token_by_id(service: Any) -> None:
    """Revoked and expired ones included."""
    minted = await service.mint()
    await service.mint("*@*:read", expires_at=service.clock.now + timedelta(seconds=1))
    await service.operations.tokens.revoke(service.admin.token, minted.token.id)
    service.clock.advance(2)
    listed = service.operations.tokens.list(service.admin.token)
    assert [token.id for token in listed] == [1, 2, 3]
    assert [token.revoked_at is not None for token in listed] == [False, True, False]


async def test_a_store_that_fails_makes_no_token(service: Any) -> None:
    """The error passes, and no secret is valid that nobody was given."""
    service.store.fail = StoreFullError("no space left")
    with pytest.raises(StoreFullError):
        await service.mint()
    assert len(service.operations.tokens.list(service.admin.token)) == 1


async def test_a_creation_that_is_cancelled_goes_to_its_end(service: Any) -> None:
    """The token exists, though nobody knows its secret; it can be listed and revoked."""
    service.store.gate.clear()
    service.store.held_up.clear()
    creating = asyncio.create_task(service.mint())
    await service.store.held_up.wait()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    service.store.gate.set()
    await service.app._commits.drain()
    assert [token.id for token in service.operations.tokens.list(service.admin.token)] == [1, 2]


async def rotate(service: Any, token_id: int, overlap: int = HOUR) -> MintedKey:
    """Rotate the key of a token as the admin."""
    minted: MintedKey = await service.operations.tokens.rotate_key(service.admin.token, token_id, overlap)
    return minted


def chosen(service: Any, minted: MintedToken, *held: bytes) -> bytes:
    """Return the key that is sealed with now for a client with these keys; without any, for one that does not say."""
    token = service.operations.authenticate(minted.secret)
    key: bytes = token.key_for([key_id(one) for one in held] if held else None, service.clock.now).key
    return key


async def test_a_new_key_is_used_at_once_and_the_old_one_until_its_overlap_ends(service: Any) -> None:
    """By whoever holds it; who holds the old one only keeps it for the overlap, to the moment, without a restart."""
    minted = await service.mint()
    rotated = await rotate(service, minted.token.id)
    assert rotated.key != minted.key
    assert rotated.token.keys == (rotated.key, minted.key)
    assert rotated.token.key_ends()[1][1] == service.clock.now + timedelta(seconds=HOUR)
    assert service.operations.authenticate(minted.secret).keys == rotated.token.keys
    for now, old_client in ((0, minted.key), (HOUR - 1, minted.key), (1, rotated.key)):
        service.clock.advance(now)
        assert chosen(service, minted) == old_client
        assert chosen(service, minted, minted.key) == old_client
        assert chosen(service, minted, rotated.key, minted.key) == rotated.key
        assert chosen(service, minted, rotated.key) == rotated.key


async def test_a_rotation_without_overlap_leaves_one_key(service: Any) -> None:
    """What was there before is forgotten in memory and in the store, also keys of rotations still under way."""
    minted = await service.mint()
    await rotate(service, minted.token.id)
    rotated = await rotate(service, minted.token.id, 0)
    assert service.operations.authenticate(minted.secret).keys == (rotated.key,)
    assert len(service.store.held_tokens[1].keys) == 1


async def test_a_rotation_changes_nothing_but_the_keys(service: Any) -> None:
    """Secret, scopes and times stay, streams go on, and other tokens keep their keys; the store holds it sealed."""
    await service.publish("orders")
    minted, other = await service.mint(), await service.mint()
    stream = service.operations.streams.subscribe(minted.token, "orders")
    rotated = await rotate(service, minted.token.id)
    token = service.operations.authenticate(minted.secret)
    assert stream.ended is None
    for name in ("id", "name", "default_environment", "scopes", "created_by", "created_at", "expires_at", "revoked_at"):
        assert getattr(token, name) == getattr(minted.token, name)
    assert service.operations.authenticate(other.secret).keys == (other.key,)
    for key in service.store.held_tokens[1].keys:
        assert rotated.key not in key.sealed
        assert minted.key not in key.sealed


async def test_an_end_that_was_announced_is_never_put_off(service: Any) -> None:
    """A later rotation with a longer overlap leaves an earlier end where it is; a shorter one brings it nearer."""
    minted = await service.mint()
    first = await rotate(service, minted.token.id, 2 * HOUR)
    announced = first.token.key_ends()[1][1]
    second = await rotate(service, minted.token.id, 5 * HOUR)
    assert [end for _, end in second.token.key_ends()] == [
        None,
        service.clock.now + timedelta(seconds=5 * HOUR),
        announced,
    ]
    third = await rotate(service, minted.token.id, HOUR)
    assert [end for _, end in third.token.key_ends()] == [None, *[service.clock.now + timedelta(seconds=HOUR)] * 3]


async def test_keys_that_have_retired_are_forgotten_by_the_next_rotation(service: Any) -> None:
    """They need not be kept at rest, and do not count."""
    minted = await service.mint()
    await rotate(service, minted.token.id)
    service.clock.advance(HOUR)
    listed = service.operations.tokens.list(service.admin.token)[1]
    assert len(listed.key_ids) == 1
    rotated = await rotate(service, minted.token.id)
    assert minted.key not in rotated.token.keys
    assert len(service.store.held_tokens[1].keys) == 2


async def test_a_token_holds_a_handful_of_keys_at_a_time(service: Any) -> None:
    """One more is refused with the remedy, and changes nothing; when a key has retired there is room again."""
    minted = await service.mint()
    for number in range(1, MAX_KEYS):
        await rotate(service, minted.token.id, number * HOUR)
    entries = len(service.store.entries)
    with pytest.raises(ConflictError, match="overlap of 0"):
        await rotate(service, minted.token.id)
    assert len(service.store.entries) == entries
    service.clock.advance(HOUR)
    assert len((await rotate(service, minted.token.id)).token.keys) <= MAX_KEYS
    assert len((await rotate(service, minted.token.id, 0)).token.keys) == 1


@pytest.mark.parametrize("overlap", [-1, MAX_OVERLAP + 1, 10**30])
async def test_an_overlap_that_makes_no_sense_is_refused(service: Any, overlap: int) -> None:
    """Nobody means to keep an old key for years; nothing is stored."""
    entries = len(service.store.entries)
    with pytest.raises(InvalidRequestError, match="overlap"):
        await rotate(service, 1, overlap)
    assert len(service.store.entries) == entries
    await rotate(service, 1, MAX_OVERLAP)


@pytest.mark.parametrize("token_id", [0, -1, 99, 10**30])
async def test_an_unknown_token_gets_no_key(service: Any, token_id: int) -> None:
    """Not found, also for numbers that no store could hold."""
    with pytest.raises(NotFoundError):
        await rotate(service, token_id)


async def test_a_token_that_is_no_longer_valid_gets_no_key(service: Any) -> None:
    """Neither a revoked one nor an expired one; the remedy is a new token."""
    revoked = await service.mint()
    expired = await service.mint("*@*:read", expires_at=service.clock.now + timedelta(seconds=1))
    await service.operations.tokens.revoke(service.admin.token, revoked.token.id)
    service.clock.advance(1)
    entries = len(service.store.entries)
    for token_id in (revoked.token.id, expired.token.id):
        with pytest.raises(ConflictError, match="create a new token"):
            await rotate(service, token_id)
    assert len(service.store.entries) == entries


@pytest.mark.parametrize("step", ["token", "rotate_token_keys"])
async def test_a_revocation_during_a_rotation_wins(service: Any, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever it comes in between, the rotation is refused, and no key of the token is left in memory."""
    minted = await service.mint()
    goes_on = getattr(service.store, step)

    async def revoked_first(*arguments: object) -> object:
        await service.operations.tokens.revoke(service.admin.token, minted.token.id)
        return await goes_on(*arguments)

    monkeypatch.setattr(service.store, step, revoked_first)
    with pytest.raises(ConflictError, match="create a new token"):
        await rotate(service, minted.token.id)
    assert [token.keys for token in service.operations.tokens.list(service.admin.token)][1] == ()
    assert service.store.entries[-1].kind is ChangeKind.TOKEN_REVOKED


async def test_rotations_at_once_all_take_effect(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All planned on the same keys; each answer's key is held by the token afterwards, none is lost to another."""
    minted = await service.mint()
    goes_on, all_read, reads = service.store.token, asyncio.Barrier(MAX_KEYS - 1), 0

    async def read_together(token_id: int) -> object:
        nonlocal reads
        stored, reads = await goes_on(token_id), reads + 1
        if reads < MAX_KEYS:
            await all_read.wait()
        return stored

    monkeypatch.setattr(service.store, "token", read_together)
    rotated = await asyncio.gather(*(rotate(service, minted.token.id) for _ in range(MAX_KEYS - 1)))
    assert reads > MAX_KEYS - 1
    held = service.operations.authenticate(minted.secret).keys
    assert sorted(held) == sorted([minted.key, *(one.key for one in rotated)])
    assert held[-1] == minted.key


async def test_a_rotation_that_others_always_outrun_is_a_conflict(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After enough rounds it gives up, and says so; its key is nowhere."""
    minted = await service.mint()

    async def outrun(rotation: Any, _link: Any) -> Any:
        raise KeyConflictError(rotation.token_id)

    monkeypatch.setattr(service.store, "rotate_token_keys", outrun)
    with pytest.raises(ConflictError, match="try again"):
        await rotate(service, minted.token.id)
    assert service.operations.authenticate(minted.secret).keys == (minted.key,)


async def test_a_store_that_fails_rotates_nothing(service: Any) -> None:
    """The error passes, and the old key stays as it was."""
    minted = await service.mint()
    service.store.fail = StoreFullError("no space left")
    with pytest.raises(StoreFullError):
        await rotate(service, minted.token.id)
    assert service.operations.authenticate(minted.secret).key_ends() == minted.token.key_ends()


async def test_a_rotated_key_outlives_a_restart(service: Any, start: Any) -> None:
    """Keys and their ends come from the store again."""
    minted = await service.mint()
    rotated = await rotate(service, minted.token.id)
    begun = await start()
    token = begun.operations.authenticate(minted.secret)
    assert token.keys == rotated.token.keys
    assert token.key_ends() == rotated.token.key_ends()


async def test_an_admin_whose_token_was_revoked_meanwhile_rotates_nothing(service: Any) -> None:
    """Rights are those of the moment at which something is changed."""
    admin = await service.mint("*@*:admin")
    await service.operations.tokens.revoke(service.admin.token, admin.token.id)
    with pytest.raises(UnauthenticatedError):
        await service.operations.tokens.rotate_key(admin.token, service.admin.token.id, 0)
