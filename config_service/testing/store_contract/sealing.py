"""The contract of the keys of a store, of its sealed values, and of the chain of its log."""

# ruff: noqa: S101 - a test asserts

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ...domain.errors import StoreError
from ...domain.keys import ConfigKey
from ...domain.records import BesideLog, ChangeKind, KeyUse, LogEntry, StoredKey, WrappedKey
from ...domain.sealing import (
    SEALED_KINDS,
    NewKeys,
    Resealed,
    SealedKind,
    SealedPlace,
)
from ...store.protocol import ConfigStore, DraftConflictError, KeyConflictError, KeysConflictError, SealingKeyError
from .suite import (
    HUGE,
    NOON,
    ORDERS,
    StoreSuite,
    every_sealed,
    everything,
    linked,
    new_draft,
    new_keys,
    new_rotation,
    new_savepoint,
    new_schema,
    new_token,
    new_version,
    scenario,
    sealed_under,
)

_OTHER = ConfigKey("orders", "prod", "next/1")


def refused(entry: LogEntry, previous: bytes | None) -> LogEntry:
    """Refuse ``entry``; a ``Link``."""
    raise StoreError(f"no room for the audit of revision {entry.revision} after {previous!r}")


async def fill(store: ConfigStore, key: int) -> None:
    """Put a value of every kind into ``store``, sealed under data key ``key``."""
    for base in range(3):
        await store.commit_version(new_version(base=base, document=sealed_under(key, bytes([base]))))
    await store.commit_version(new_version(_OTHER, document=sealed_under(key, b"other")))
    await store.commit_version(new_version(_OTHER, base=1, document=None, kind=ChangeKind.DELETED))
    for where, base in ((ORDERS, 0), (_OTHER, 2)):
        await store.replace_draft(where, None, new_draft(where, base, sealed_under(key, b"draft")))
    await store.commit_schema(new_schema(schema=sealed_under(key, b"schema")))
    await store.commit_schema(new_schema(base=1, schema=None))
    keys = (StoredKey(sealed_under(key, b"a")), StoredKey(sealed_under(key, b"b"), NOON))
    await store.commit_token(new_token("first", keys))
    await store.commit_token(new_token("second", keys[:1]))


class SealingLaws(StoreSuite):
    """Keys change as one; what is new is sealed under the active one; a change is logged with its link or not made."""

    @scenario
    async def test_the_first_keys_take_no_revision_and_are_given_once(self, tmp_path: Path) -> None:
        """Of several that give them at a time one wins; every field is read back, by id."""
        async with self.opened(tmp_path) as store:
            assert await store.keys() == ()
            given = [new_keys(kind=None), replace(new_keys(kind=None), keys=new_keys().keys[:1])]
            outcomes = await asyncio.gather(*(store.commit_keys(one) for one in given), return_exceptions=True)
            assert outcomes.count(None) == 1
            assert sum(isinstance(outcome, KeysConflictError) for outcome in outcomes) == 1
            kept = given[outcomes.index(None)].keys
            assert await store.keys() == kept
            assert (await store.position()).revision == 0
        async with self.opened(tmp_path) as store:
            assert await store.keys() == kept

    @scenario
    async def test_keys_are_kept_whole_and_change_by_a_log_entry(self, tmp_path: Path) -> None:
        """A change of the keys takes a revision, names its kind, and may drop or rewrap any of them."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version())
            base: tuple[WrappedKey, ...] = ()
            later = NOON + timedelta(microseconds=7)
            keys = (
                WrappedKey(1, KeyUse.CHAIN, bytes(range(256)), later),
                WrappedKey(2, KeyUse.RETIRED, b"", NOON),
                WrappedKey(70_000, KeyUse.ACTIVE, b"active", NOON),
            )
            for kept in (keys, keys[::2], keys[:1], ()):
                entry = await store.commit_keys(NewKeys(base, kept, ChangeKind.MASTER_KEY_ROTATED, 3, later))
                assert entry is not None
                assert entry == LogEntry(entry.revision, ChangeKind.MASTER_KEY_ROTATED, 3, later)
                assert (await store.log(entry.revision - 1, 1)) == [entry]
                assert await store.keys() == kept
                base = kept

    @scenario
    async def test_a_change_of_the_keys_may_replace_the_check_value(self, tmp_path: Path) -> None:
        """With the keys or not at all; without one the check value stays."""
        async with self.opened(tmp_path) as store:
            assert await store.seal_check(b"first") == b"first"
            await store.commit_keys(new_keys(kind=None))
            assert await store.seal_check(b"other") == b"first"
            with pytest.raises(KeysConflictError):
                await store.commit_keys(replace(new_keys(), check=b"refused"))
            await store.commit_keys(replace(new_keys(await store.keys()), check=b"second"))
        async with self.opened(tmp_path) as store:
            assert await store.seal_check(b"other") == b"second"

    @scenario
    async def test_what_is_beside_the_log_is_told_and_not_made(self, tmp_path: Path) -> None:
        """The last token id, the check value as it was kept or changed last, and the configs that have savepoints."""
        async with self.opened(tmp_path) as store:
            assert await store.beside_log() == BesideLog(0, None, frozenset())
            assert await store.beside_log() == BesideLog(0, None, frozenset())
            await store.seal_check(b"first")
            for _ in range(2):
                await store.commit_token(new_token())
            await store.revoke_token(2, 1, NOON)
            for key in (ORDERS, _OTHER):
                await store.commit_version(new_version(key))
                await store.commit_savepoint(new_savepoint(key=key))
            assert await store.beside_log() == BesideLog(2, b"first", frozenset({ORDERS, _OTHER}))
            await store.commit_savepoint(new_savepoint(key=_OTHER, version=None, base=1))
            await store.commit_keys(replace(new_keys(), check=b"second"))
        async with self.opened(tmp_path) as store:
            assert await store.beside_log() == BesideLog(2, b"second", frozenset({ORDERS}))

    @scenario
    async def test_keys_change_only_on_those_that_there_are(self, tmp_path: Path) -> None:
        """One that is missing, too many, used or wrapped otherwise: the change is refused and nothing is changed."""
        async with self.opened(tmp_path) as store:
            await store.commit_keys(new_keys(kind=None))
            chain, active = await store.keys()
            before = await everything(store)
            for base in ((), (chain,), (chain, replace(active, use=KeyUse.RETIRED)), (chain, replace(active, id=3))):
                with pytest.raises(KeysConflictError):
                    await store.commit_keys(replace(new_keys((chain, active)), base=base))
            with pytest.raises(KeysConflictError):
                await store.commit_keys(new_keys((chain, replace(active, wrapped=b"otherwise"))))
            assert await everything(store) == before

    @scenario
    async def test_nothing_new_is_sealed_under_a_key_that_is_not_active(self, tmp_path: Path) -> None:
        """Of any kind, by any way, under a retired, an unknown or the chain's key; and nothing is changed."""
        async with self.opened(tmp_path) as store:
            await store.commit_keys(new_keys(kind=None))
            await fill(store, 2)
            await store.commit_keys(new_keys(await store.keys()))
            (first, second), draft = await store.tokens(), await store.draft(ORDERS)
            assert draft is not None
            before = await everything(store)
            for key in (1, 2, 4):
                sealed = sealed_under(key)
                outcomes = await asyncio.gather(
                    store.commit_version(new_version(base=3, document=sealed)),
                    store.commit_version(new_version(ConfigKey("new"), document=sealed)),
                    store.commit_schema(new_schema(base=2, schema=sealed)),
                    store.replace_draft(ORDERS, draft.document, new_draft(document=sealed)),
                    store.replace_draft(ConfigKey("new"), None, new_draft(document=sealed)),
                    store.commit_token(new_token(keys=(StoredKey(sealed_under(3)), StoredKey(sealed)))),
                    store.rotate_token_keys(new_rotation(second, sealed)),
                    store.reseal([Resealed(SealedPlace(SealedKind.DRAFT, ORDERS, 0), draft.document, sealed)]),
                    return_exceptions=True,
                )
                assert [type(outcome) for outcome in outcomes] == [SealingKeyError] * len(outcomes)
            assert await everything(store) == before
            # What a token has already stays, whatever it is sealed under.
            assert await store.rotate_token_keys(new_rotation(first, sealed_under(3))) is not None
            await store.commit_version(new_version(base=3, document=sealed_under(3)))

    @scenario
    async def test_every_sealed_value_is_told_once_in_order_whatever_the_page(self, tmp_path: Path) -> None:
        """Documents of all versions, drafts, schemas, keys of tokens; a deletion has nothing that is sealed."""
        async with self.opened(tmp_path) as store:
            assert await store.sealed_values(None, 10) == []
            await store.commit_keys(new_keys(kind=None))
            await fill(store, 2)
            found = await every_sealed(store, 100)
            assert [value.place for value in found] == [
                *(SealedPlace(SealedKind.DOCUMENT, ORDERS, number) for number in (1, 2, 3)),
                SealedPlace(SealedKind.DOCUMENT, _OTHER, 1),
                SealedPlace(SealedKind.DRAFT, ORDERS, 0),
                SealedPlace(SealedKind.DRAFT, _OTHER, 2),
                SealedPlace(SealedKind.SCHEMA, ORDERS, 1),
                *(SealedPlace(SealedKind.TOKEN_KEY, None, number) for number in (1, 1, 2)),
            ]
            assert found[2].sealed == sealed_under(2, b"\2")
            assert [value.sealed for value in found[-3:]] == [sealed_under(2, one) for one in (b"a", b"b", b"a")]
            for limit in (1, 2, 3, 7):
                assert await every_sealed(store, limit) == found
            assert await store.sealed_counts() == {2: len(found)}
            for kind in SEALED_KINDS:
                await store.sealed_values(SealedPlace(kind, ORDERS, HUGE), 3)

    @scenario
    async def test_values_are_sealed_anew_in_their_places_and_nothing_else_changes(self, tmp_path: Path) -> None:
        """No revision, no other field; every version, draft, schema and key is told with its new seal from then on."""
        async with self.opened(tmp_path) as store:
            await store.commit_keys(new_keys(kind=None))
            await fill(store, 2)
            await store.commit_version(new_version(ConfigKey("old"), document=b"\1 of format 1"))
            await store.commit_keys(new_keys(await store.keys()))
            before = await everything(store)
            assert await store.sealed_counts() == {0: 1, 2: len(before.sealed) - 1}
            changes = [
                Resealed(value.place, value.sealed, sealed_under(3, value.sealed[5:])) for value in before.sealed
            ]
            assert await store.reseal(changes) == len(changes)
            assert await store.reseal(changes) == 0
            after = await everything(store)
            assert [value.sealed for value in after.sealed] == [change.after for change in changes]
            assert after.log == before.log
            assert after.histories == before.histories
            assert [
                [version.document and version.document[5:] for version in versions] for versions in after.versions
            ] == [[version.document and version.document[5:] for version in versions] for versions in before.versions]
            assert [replace(token, keys=()) for token in after.tokens] == [
                replace(token, keys=()) for token in before.tokens
            ]
        async with self.opened(tmp_path) as store:
            assert await everything(store) == after

    @scenario
    async def test_a_value_that_changed_meanwhile_is_not_overwritten(self, tmp_path: Path) -> None:
        """A draft edited and a key rotated in between stay as they are; who made them on the old seal begins again."""
        async with self.opened(tmp_path) as store:
            await store.commit_keys(new_keys(kind=None))
            await fill(store, 2)
            old = await every_sealed(store)
            (first, _), draft = await store.tokens(), await store.draft(ORDERS)
            assert draft is not None
            await store.replace_draft(ORDERS, draft.document, new_draft(document=sealed_under(2, b"edited")))
            await store.replace_draft(_OTHER, sealed_under(2, b"draft"), None)
            await store.rotate_token_keys(replace(new_rotation(first), keys=(StoredKey(sealed_under(2, b"alone")),)))
            changes = [Resealed(value.place, value.sealed, sealed_under(2, b"anew")) for value in old]
            gone = [SealedPlace(SealedKind.DRAFT, ORDERS, 0), SealedPlace(SealedKind.DRAFT, _OTHER, 2)]
            assert await store.reseal([change for change in changes if change.place in gone]) == 0
            assert await store.reseal([one for one in changes if one.place.kind is SealedKind.TOKEN_KEY]) == 1
            edited, rotated = await store.draft(ORDERS), await store.token(first.id)
            assert edited is not None
            assert edited.document == sealed_under(2, b"edited")
            assert await store.draft(_OTHER) is None
            assert rotated is not None
            assert [key.sealed for key in rotated.keys] == [sealed_under(2, b"alone")]
            await store.reseal([Resealed(gone[0], edited.document, sealed_under(2, b"again"))])
            with pytest.raises(DraftConflictError):
                await store.replace_draft(ORDERS, edited.document, None)
            place = SealedPlace(SealedKind.TOKEN_KEY, None, first.id)
            await store.reseal([Resealed(place, sealed_under(2, b"alone"), sealed_under(2, b"again"))])
            with pytest.raises(KeyConflictError):
                await store.rotate_token_keys(new_rotation(rotated, sealed_under(2)))

    @scenario
    async def test_every_change_is_linked_to_the_one_before_it(self, tmp_path: Path) -> None:
        """The link is asked with the entry as it is to be, and the last link before it; what it returns is kept."""
        async with self.opened(tmp_path) as store:
            assert (await store.head()).link is None
            await store.commit_version(new_version(), linked)
            await store.commit_version(new_version(base=1), linked)
            await store.commit_schema(new_schema(), linked)
            token, created = await store.commit_token(new_token(), linked)
            rotated = await store.rotate_token_keys(new_rotation(token), linked)
            revoked = await store.revoke_token(token.id, 7, NOON, linked)
            rekeyed = await store.commit_keys(new_keys(), linked)
            log = await store.log(0, 10)
            assert [entry.link for entry in log] == [
                b"".join(b"%d." % revision for revision in range(1, last + 1)) for last in range(1, 8)
            ]
            assert [entry.audit for entry in log] == [f"audit {revision}".encode() for revision in range(1, 8)]
            assert rotated is not None
            assert [created, rotated[1], revoked, rekeyed] == log[3:]
        async with self.opened(tmp_path) as store:
            assert (await store.head()).link == log[-1].link
            await store.commit_version(new_version(base=2))
            await store.commit_version(new_version(base=3), linked)
            unlinked, last = await store.log(7, 10)
            assert (unlinked.audit, unlinked.link) == (None, None)
            assert last.link == b"1.2.3.4.5.6.7.9."

    @scenario
    async def test_a_change_whose_link_fails_has_not_happened(self, tmp_path: Path) -> None:
        """Whatever the change: the failure is raised, and the store is as it was."""
        async with self.opened(tmp_path) as store:
            await store.commit_version(new_version(), linked)
            token, _ = await store.commit_token(new_token(), linked)
            await store.replace_draft(ORDERS, None, new_draft(base=1))
            before = await everything(store)
            outcomes = await asyncio.gather(
                store.commit_version(new_version(base=1, draft=b"sealed draft"), refused),
                store.commit_schema(new_schema(), refused),
                store.commit_token(new_token(), refused),
                store.rotate_token_keys(new_rotation(token), refused),
                store.revoke_token(token.id, 7, NOON, refused),
                store.commit_keys(new_keys(), refused),
                return_exceptions=True,
            )
            assert {type(outcome) for outcome in outcomes} == {StoreError}
            assert all("no room for the audit of revision 3" in str(outcome) for outcome in outcomes)
            assert await everything(store) == before
            assert (await store.commit_token(new_token(), linked))[0].id == token.id + 1

    @scenario
    async def test_concurrent_changes_are_linked_one_after_the_other(self, tmp_path: Path) -> None:
        """No two are linked to the same one, and none is left out."""
        async with self.opened(tmp_path) as store:
            await asyncio.gather(
                *(store.commit_version(new_version(ConfigKey(f"c{number}")), linked) for number in range(8)),
                *(store.commit_token(new_token(f"t{number}"), linked) for number in range(8)),
            )
            assert (await store.head()).link == b"".join(b"%d." % revision for revision in range(1, 17))
