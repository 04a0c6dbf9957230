"""The contract of tokens, and of the log that they share with versions."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import pytest

from ...domain.records import ChangeKind, LogEntry, NewToken, StoredKey
from ...domain.scopes import ADMIN_SCOPES, Right, Scope
from ...store.protocol import KeyConflictError
from .suite import HUGE, NOON, StoreSuite, everything, new_rotation, new_token, new_version, scenario


class TokenLaws(StoreSuite):
    """Tokens are kept whole, under ids of their own for ever, and revoked once; a rotation changes their keys alone."""

    @scenario
    async def test_versions_and_tokens_share_one_line_of_revisions(self, tmp_path: Path) -> None:
        """Every change of whatever kind takes the next revision, and its entry tells what it was."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            _, created = await store.commit_token(new_token())
            await store.commit_version(new_version(base=1, document=None, kind=ChangeKind.DELETED))
            revoked = await store.revoke_token(1, 9, NOON + timedelta(seconds=1))
            assert created == LogEntry(2, ChangeKind.TOKEN_CREATED, 7, NOON, token_id=1)
            assert revoked == LogEntry(4, ChangeKind.TOKEN_REVOKED, 9, NOON + timedelta(seconds=1), token_id=1)
            log = await store.log(0, 10)
            assert [entry.kind for entry in log] == [
                ChangeKind.PUBLISHED,
                ChangeKind.TOKEN_CREATED,
                ChangeKind.DELETED,
                ChangeKind.TOKEN_REVOKED,
            ]
            assert (log[1], log[3]) == (created, revoked)

    @scenario
    async def test_tokens_are_kept_whole_and_numbered_from_1(self, tmp_path: Path) -> None:
        """Every field reads back, the keys in their order; names may be of any script and are not normalised."""
        scopes = (*ADMIN_SCOPES, Scope("orders-?", "prod*", frozenset({Right.READ})))
        later = (NOON + timedelta(days=1)).astimezone(timezone(timedelta(hours=-3)))
        keys = (StoredKey(b""), StoredKey(bytes(range(256)), NOON), StoredKey(b"third", later))
        tokens = [
            new_token("Zoë's Laptop ‖ 名前 🦊\u2028", keys, scopes, NOON),
            new_token("e\u0301", (), ()),
            new_token("\u00e9"),
        ]
        async with self.opened(tmp_path) as store:
            committed = [(await store.commit_token(token))[0] for token in tokens]
            assert [token.id for token in committed] == [1, 2, 3]
            for token, kept in zip(tokens, await store.tokens(), strict=True):
                assert {name: getattr(kept, name) for name in NewToken.__slots__} == {
                    name: getattr(token, name) for name in NewToken.__slots__
                }
                assert kept.revoked_at is None
            assert await store.tokens() == committed

    @scenario
    async def test_a_rotation_puts_other_keys_in_place_and_takes_a_revision(self, tmp_path: Path) -> None:
        """Keys and retirements, to the microsecond, are those of the rotation; nothing else of a token changes."""
        async with self.opened(tmp_path) as store:
            first, _ = await store.commit_token(new_token("first", expires_at=NOON))
            second, _ = await store.commit_token(new_token("second"))
            at = NOON + timedelta(seconds=1)
            made = await store.rotate_token_keys(new_rotation(first, b"newer", NOON + timedelta(microseconds=7), at))
            assert made is not None
            rotated, entry = made
            kept = (StoredKey(b"newer"), StoredKey(first.keys[0].sealed, NOON + timedelta(microseconds=7)))
            assert rotated == replace(first, keys=kept)
            assert entry == LogEntry(3, ChangeKind.TOKEN_REKEYED, 7, at, token_id=first.id)
            assert (await store.log(2, 10)) == [entry]
            assert await store.tokens() == [rotated, second]
        async with self.opened(tmp_path) as store:
            assert await store.tokens() == [rotated, second]

    @scenario
    async def test_a_rotation_may_drop_every_older_key(self, tmp_path: Path) -> None:
        """What a rotation leaves out is gone, and is no base for the next one."""
        async with self.opened(tmp_path) as store:
            created, _ = await store.commit_token(new_token(keys=(StoredKey(b"a"), StoredKey(b"b", NOON))))
            alone = replace(new_rotation(created), keys=(StoredKey(b"alone"),))
            assert await store.rotate_token_keys(alone) is not None
            kept = await store.token(created.id)
            assert kept == replace(created, keys=(StoredKey(b"alone"),))

    @scenario
    async def test_a_rotation_on_other_keys_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        """A base that is missing a key, has one too many, or one that retires at another time, is not the token's."""
        async with self.opened(tmp_path) as store:
            created, _ = await store.commit_token(new_token(keys=(StoredKey(b"a"), StoredKey(b"b", NOON))))
            before = await everything(store)
            a, b = created.keys
            for base in ((), (a,), (b, a), (a, b, b), (a, StoredKey(b.sealed)), (StoredKey(b"c"), b)):
                with pytest.raises(KeyConflictError):
                    await store.rotate_token_keys(replace(new_rotation(created), base=base))
            assert await everything(store) == before

    @scenario
    async def test_only_a_token_that_is_not_revoked_gets_other_keys(self, tmp_path: Path) -> None:
        """Neither a revoked one nor one that does not exist, and nothing is changed on the way."""
        async with self.opened(tmp_path) as store:
            created, _ = await store.commit_token(new_token())
            await store.revoke_token(created.id, 7, NOON)
            before = await everything(store)
            for token_id in (created.id, -1, 0, 2, HUGE):
                assert await store.rotate_token_keys(replace(new_rotation(created), token_id=token_id)) is None
            assert await everything(store) == before

    @scenario
    async def test_one_token_is_told_as_among_all(self, tmp_path: Path) -> None:
        """By its id, revoked or not; there is none of any other id."""
        async with self.opened(tmp_path) as store:
            await store.commit_token(new_token("first"))
            await store.commit_token(new_token("second"))
            await store.revoke_token(1, 7, NOON)
            assert [await store.token(token_id) for token_id in (1, 2)] == await store.tokens()
            for unknown in (-1, 0, 3, HUGE):
                assert await store.token(unknown) is None

    @scenario
    async def test_a_token_is_revoked_once(self, tmp_path: Path) -> None:
        """The first revocation counts, with its time; a second one, or one of an unknown token, changes nothing."""
        async with self.opened(tmp_path) as store:
            first, _ = await store.commit_token(new_token("first"))
            second, _ = await store.commit_token(new_token("second"))
            outcomes = await asyncio.gather(*(store.revoke_token(1, 7, NOON) for _ in range(4)))
            assert sum(outcome is not None for outcome in outcomes) == 1
            before = await everything(store)
            assert await store.revoke_token(1, 8, NOON + timedelta(days=1)) is None
            for unknown in (-1, 0, 3, HUGE):
                assert await store.revoke_token(unknown, 7, NOON) is None
            assert await everything(store) == before
            assert await store.tokens() == [replace(first, revoked_at=NOON), second]

    @scenario
    async def test_token_ids_are_never_used_again(self, tmp_path: Path) -> None:
        """A revoked token keeps its id, also over a restart; concurrent creations get ids of their own."""
        async with self.opened(tmp_path) as store:
            await store.commit_token(new_token())
            await store.revoke_token(1, 7, NOON)
        async with self.opened(tmp_path) as store:
            created = await asyncio.gather(*(store.commit_token(new_token(f"t{number}")) for number in range(5)))
            assert sorted(token.id for token, _ in created) == [2, 3, 4, 5, 6]
