"""Creating, listing and revoking tokens."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from config_service.delivery.subscription import End
from config_service.domain.errors import (
    AccessDeniedError,
    InvalidRequestError,
    NotFoundError,
    StoreFullError,
    UnauthenticatedError,
)
from config_service.domain.scopes import ADMIN_SCOPES, SERVICE_SCOPES, Scope

pytestmark = pytest.mark.anyio


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


async def test_a_revoked_token_is_refused_and_its_streams_end(service: Any) -> None:
    """At once; other tokens go on."""
    await service.publish("orders")
    revoked, other = await service.mint(), await service.mint()
    streams = [service.operations.subscribe(one.token, "orders") for one in (revoked, other)]
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
