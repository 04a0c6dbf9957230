"""The keys over a store and the chain of its log, held to docs/SECURITY.md by the standard library alone."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from vaults import new_vault

from config_service.domain.errors import StoreCorruptError, WrongMasterKeyError
from config_service.domain.keys import ConfigKey
from config_service.domain.records import ChangeKind, KeyUse, LogEntry, WrappedKey
from config_service.security.at_rest import Vault
from config_service.security.chain import Chain, encode, same
from config_service.security.keyring import MasterKeys

NOON = datetime(2026, 2, 3, 12, 0, 0, 250, tzinfo=timezone.utc)
MASTER, OTHER = bytes(range(32)), bytes(range(1, 33))
KEY = b"chain key of 32 bytes for tests!"
ENTRY = LogEntry(7, ChangeKind.PUBLISHED, 3, NOON, key=ConfigKey("orders", "prod", "next/1"), version=2)
FIELDS = (
    b"\0\0\0\x05audity\0\0\0\0\0\0\0\x06sealed"
    b"\0\0\0\x0achanged_byi\0\0\0\0\0\0\0\x013"
    b"\0\0\0\x03keyo\0\0\0\0\0\0\0\x4b"
    b"\0\0\0\x0benvironments\0\0\0\0\0\0\0\x04prod"
    b"\0\0\0\x05labels\0\0\0\0\0\0\0\x06next/1"
    b"\0\0\0\x04names\0\0\0\0\0\0\0\x06orders"
    b"\0\0\0\x04kinds\0\0\0\0\0\0\0\x09published"
    b"\0\0\0\x08revisioni\0\0\0\0\0\0\0\x017"
    b"\0\0\0\x09timestampt\0\0\0\0\0\0\0\x202026-02-03T12:00:00.000250+00:00"
    b"\0\0\0\x07versioni\0\0\0\0\0\0\0\x012"
)


def hkdf(key: bytes, info: bytes) -> bytes:
    """RFC 5869 with one block and no salt."""
    return hmac.digest(hmac.digest(bytes(32), key, "sha256"), info + b"\1", "sha256")


def lengthy(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def test_a_link_is_what_the_manual_says() -> None:
    """HMAC-SHA256 over the link before it, behind its length, and every field of the entry, to the byte."""
    entry = replace(ENTRY, audit=b"sealed")
    key = hkdf(KEY, b"config-service log v1: links")
    for previous in (None, b"\xff" * 32):
        expected = hmac.digest(key, lengthy(previous or b"") + FIELDS, hashlib.sha256)
        assert Chain(1, KEY).link(entry, previous) == expected
        assert Chain(1, KEY).link(replace(entry, link=b"old"), previous) == expected


@pytest.mark.parametrize(
    "changed",
    [
        {"revision": 8},
        {"kind": ChangeKind.ROLLED_BACK},
        {"changed_by": 4},
        {"timestamp": NOON + timedelta(microseconds=1)},
        {"key": ConfigKey("orders", "prod", "next/2")},
        {"key": None},
        {"version": None},
        {"version": None, "schema": 2},
        {"token_id": 2},
        {"audit": b"other"},
        {"savepoint": "name"},
        {"archived": (1, 2)},
    ],
)
def test_every_field_counts(changed: dict[str, object]) -> None:
    """An entry that differs in any one of them has another link; so has the same entry behind another one."""
    chain = Chain(1, KEY)
    entry = replace(ENTRY, audit=b"sealed")
    assert chain.link(replace(entry, **changed), None) != chain.link(entry, None)  # type: ignore[arg-type]
    assert chain.link(entry, b"before") != chain.link(entry, None)
    assert Chain(1, KEY[::-1]).link(entry, None) != chain.link(entry, None)


values = st.one_of(st.text(), st.binary(), st.integers(), st.booleans(), st.lists(st.text(max_size=3), max_size=3))


@given(
    st.dictionaries(st.text(max_size=4), values, max_size=4), st.dictionaries(st.text(max_size=4), values, max_size=4)
)
@settings(max_examples=200, deadline=None)
def test_no_two_things_have_one_encoding(one: dict[str, object], other: dict[str, object]) -> None:
    """Types, names and lengths keep them apart; the order in which fields are given does not count."""
    typed = [{name: (type(value), value) for name, value in what.items()} for what in (one, other)]
    assert (encode(one) == encode(other)) is (typed[0] == typed[1])
    assert encode(dict(reversed(one.items()))) == encode(one)


def test_a_field_that_is_none_counts_as_none_at_all() -> None:
    """So an entry may be given a new field, and older links stay what they are."""
    assert encode({"a": None, "b": 1}) == encode({"b": 1})
    with pytest.raises(TypeError, match="teach the chain"):
        encode({"a": object()})


def test_a_detail_opens_for_its_own_entry_only() -> None:
    """Bound to the revision, under a key that comes from the chain key; anything else is none."""
    chain = Chain(9, KEY)
    linked = chain.linked(ENTRY, None, {"token": "naïve \u2028"})
    assert chain.detail(linked) == {"token": "naïve \u2028"}
    assert linked.audit is not None
    assert linked.audit[:5] == b"\2\0\0\0\x09"
    cipher = AESGCM(hkdf(KEY, b"config-service log v1: details"))
    told = cipher.decrypt(linked.audit[5:17], linked.audit[17:], linked.audit[:5] + (7).to_bytes(8, "big"))
    assert told.decode() == '{"token":"naïve \u2028"}'
    for other in (
        replace(linked, revision=8),
        replace(linked, audit=linked.audit[:-1]),
        replace(linked, audit=linked.audit[:16]),
        replace(linked, audit=b"\1" + linked.audit[1:]),
        replace(linked, audit=None),
    ):
        assert chain.detail(other) is None
    assert Chain(8, KEY).detail(linked) is None
    assert repr(chain) == "Chain(key_id=9)"


def test_comparing_takes_none_for_what_it_is() -> None:
    """No link is the same as no link, and as nothing else."""
    assert same(None, None)
    assert same(b"a", b"a")
    assert not same(None, b"")
    assert not same(b"a", b"b")


def test_a_wrapped_key_is_what_the_manual_says() -> None:
    """Version, id of the master key, nonce, ciphertext; bound to the row that it stands in."""
    chain, active = MasterKeys(MASTER).first(NOON, MASTER, before=False)
    assert (chain.use, active.use) == (KeyUse.CHAIN, KeyUse.ACTIVE)
    header = b"\3" + hkdf(MASTER, b"config-service at rest v2: master key id")[:8]
    assert active.wrapped[:9] == header
    bound = header + lengthy((2).to_bytes(8, "big"), b"active", b"2026-02-03T12:00:00.000250+00:00")
    cipher = AESGCM(hkdf(MASTER, b"config-service at rest v2: wrapping"))
    assert cipher.decrypt(active.wrapped[9:21], active.wrapped[21:], bound) == MasterKeys(MASTER).unwrap(active)
    assert "wrapped" not in repr(active)


def test_a_sealed_value_is_what_the_manual_says() -> None:
    """Format 2 to the byte, opened without the code that made it."""
    vault = Vault(MASTER)
    keys = vault.master_keys.first(NOON, MASTER, before=False)
    vault.hold(keys)
    sealed = vault.seal_document(b"{}", ConfigKey("orders", "prod", "next/1"), 3)
    key = hkdf(vault.master_keys.unwrap(keys[1]), b"config-service at rest v2: documents")
    bound = b"\2\0\0\0\2" + lengthy(b"orders", b"prod", b"next/1", (3).to_bytes(8, "big"))
    assert AESGCM(key).decrypt(sealed[5:17], sealed[17:], bound) == b"{}"


def test_a_value_of_format_1_is_opened_by_key_0_and_by_no_other() -> None:
    """Made here as the first service made it; a store that never held any does not open one."""
    identity = lengthy(b"orders", b"default", b"main", (1).to_bytes(8, "big"))
    key = hkdf(MASTER, b"config-service at rest v1: documents")
    sealed = b"\1" + b"nonce of 12." + AESGCM(key).encrypt(b"nonce of 12.", b"{}", b"\1" + identity)
    vault = Vault(OTHER, MASTER)
    vault.hold(vault.master_keys.first(NOON, MASTER, before=True))
    assert vault.opens(sealed)
    assert vault.open_document(sealed, ConfigKey("orders"), 1) == b"{}"
    with pytest.raises(StoreCorruptError, match="master key of format 1"):
        new_vault(MASTER).open_document(sealed, ConfigKey("orders"), 1)


def test_a_rotation_keeps_the_master_key_that_wraps_and_a_rewrap_changes_it() -> None:
    """So replicas that have only one of two master keys open a data key that is made while the other is handed out."""
    old, both, new = MasterKeys(MASTER), MasterKeys(OTHER, MASTER), MasterKeys(OTHER)
    first = old.first(NOON, MASTER, before=False)
    rotated = both.rotated(first, NOON)
    assert [(key.id, key.use) for key in rotated] == [(1, KeyUse.CHAIN), (2, KeyUse.RETIRED), (3, KeyUse.ACTIVE)]
    assert all(old.unwrap(key) for key in rotated)
    assert not both.wraps(rotated)
    rewrapped = both.rewrapped(rotated)
    assert both.wraps(rewrapped)
    assert [new.unwrap(key) for key in rewrapped] == [old.unwrap(key) for key in rotated]
    with pytest.raises(WrongMasterKeyError, match="rotate-master"):
        old.unwrap(rewrapped[0])
    with pytest.raises(WrongMasterKeyError):
        new.rotated(first, NOON)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": 3},
        {"use": KeyUse.RETIRED},
        {"created_at": NOON + timedelta(1)},
        {"wrapped": b""},
        {"wrapped": b"\3" * 69},
    ],
)
def test_a_wrapped_key_opens_in_its_own_row_only(changed: dict[str, object]) -> None:
    """Neither under another id or use, nor cut, nor made up."""
    _, active = MasterKeys(MASTER).first(NOON, MASTER, before=False)
    moved: WrappedKey = replace(active, **changed)  # type: ignore[arg-type]
    with pytest.raises((StoreCorruptError, WrongMasterKeyError)):
        MasterKeys(MASTER).unwrap(moved)
