"""Sealing at rest: what opens, what does not, and what is told of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vaults import new_vault

from config_service.domain.errors import StoreCorruptError, WrongMasterKeyError
from config_service.domain.keys import ConfigKey
from config_service.security.at_rest import Vault

MASTER = bytes(range(32))
KEY = ConfigKey("orders", "prod", "main")
HASH = b"\x11" * 32


@given(st.binary(max_size=2000))
@settings(max_examples=50, deadline=None)
def test_a_document_opens_as_what_was_sealed(document: bytes) -> None:
    """Every byte comes back, and no two seals of the same document are alike."""
    vault = new_vault(MASTER)
    sealed = vault.seal_document(document, KEY, 1)
    assert vault.open_document(sealed, KEY, 1) == document
    assert sealed != vault.seal_document(document, KEY, 1)
    assert sealed[:5] == b"\2\0\0\0\2"
    assert len(sealed) == len(document) + 33


@pytest.mark.parametrize(
    ("key", "version"),
    [
        (KEY, 2),
        (ConfigKey("orderz", "prod", "main"), 1),
        (ConfigKey("orders", "test", "main"), 1),
        (ConfigKey("orders", "prod", "next"), 1),
        # The same letters, divided otherwise.
        (ConfigKey("ordersp", "rod", "main"), 1),
    ],
)
def test_a_document_moved_to_another_place_does_not_open(key: ConfigKey, version: int) -> None:
    """Who can write to the store cannot serve one config as another, or an old version as a new one."""
    vault = new_vault(MASTER)
    sealed = vault.seal_document(b"{}", KEY, 1)
    with pytest.raises(StoreCorruptError, match=rf"{key.name} .* version {version}"):
        vault.open_document(sealed, key, version)


@pytest.mark.parametrize("position", [0, 1, 4, 5, 16, 17, 20, -1])
def test_an_altered_document_does_not_open(position: int) -> None:
    """Format byte, key id, nonce, ciphertext, tag: any altered bit is found, and the version is named."""
    vault = new_vault(MASTER)
    sealed = bytearray(vault.seal_document(b'{"a": "secret"}', KEY, 7))
    sealed[position] ^= 1
    with pytest.raises(StoreCorruptError, match=r"orders .* version 7") as caught:
        vault.open_document(bytes(sealed), KEY, 7)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("length", [0, 1, 5, 32])
def test_a_truncated_document_does_not_open(length: int) -> None:
    """Too short to be sealed at all is the same fault."""
    vault = new_vault(MASTER)
    with pytest.raises(StoreCorruptError):
        vault.open_document(vault.seal_document(b"{}", KEY, 1)[:length], KEY, 1)


def test_a_token_key_opens_for_its_own_token_only() -> None:
    """A sealed key moved to another token does not open; the token is named by its id."""
    vault = new_vault(MASTER)
    sealed = vault.seal_token_key(b"k" * 32, HASH)
    assert vault.open_token_key(sealed, HASH, 4) == b"k" * 32
    with pytest.raises(StoreCorruptError, match="token 4"):
        vault.open_token_key(sealed, b"\x12" * 32, 4)


def test_a_value_of_one_purpose_does_not_open_as_another() -> None:
    """Every purpose has a key of its own, derived from the master key."""
    vault = new_vault(MASTER)
    with pytest.raises(StoreCorruptError):
        vault.open_token_key(vault.new_check(), HASH, 1)
    with pytest.raises(WrongMasterKeyError):
        vault.verify_check(vault.seal_token_key(b"k" * 32, HASH))


def test_the_check_value_knows_its_master_key_again() -> None:
    """A store checked under the wrong master key is refused with a sentence that says what to do."""
    check = Vault(MASTER).new_check()
    Vault(MASTER).verify_check(check)
    with pytest.raises(WrongMasterKeyError, match="CONFIG_SERVER_MASTER_KEY"):
        Vault(bytes(32)).verify_check(check)


def test_documents_do_not_open_under_the_keys_of_another_store() -> None:
    """Never garbage: a typed error."""
    with pytest.raises(StoreCorruptError):
        new_vault(MASTER).open_document(new_vault(MASTER).seal_document(b"{}", KEY, 1), KEY, 1)


def test_a_master_key_of_another_length_is_refused() -> None:
    """A short key would be weaker than it looks."""
    with pytest.raises(ValueError, match="32 bytes"):
        Vault(b"short")


def test_the_repr_shows_no_key() -> None:
    """Nothing of the master key is reachable by printing."""
    assert repr(Vault(MASTER)) == "Vault()"
