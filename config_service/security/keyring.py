"""The keys over everything at rest: master keys wrap the keys of a store, and the keys of a store do the rest.

Knows keys, wrapped and not, and bytes. Knows nothing of stores, HTTP or time.

A store has data keys, of which one is active, and a chain key, each of 32 random bytes. A key is kept wrapped:

    version 0x03 ‖ id of the master key (8 bytes) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)

AES-256-GCM (NIST SP 800-38D) under HKDF-SHA256 (RFC 5869) of the master key, which is uniformly random, so that HKDF
needs no salt (RFC 5869 §3.1). The additional data is everything before the nonce, and the row of the key: its id
(8 bytes, big-endian), its use, and the time of its creation, each behind its length (4 bytes). Who can write to the
store can make no key of his own, and cannot make a retired key the active one again. The id of a master key is derived
from it as well: it is no secret, and tells a wrong master key from a damaged row.

Stores that are older than data keys hold values sealed under keys that come from the master key itself. Those four keys
become the key 0 of such a store, always retired: so they outlive a change of the master key like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config_client.crypto import GCM_TAG_SIZE, KEY_SIZE, NONCE_SIZE
from config_client.protocol import format_timestamp

from ..domain.errors import StoreCorruptError, WrongMasterKeyError
from ..domain.records import KeyUse, WrappedKey
from ..domain.sealing import MASTER_KEY_ID

PURPOSES: Final = (b"documents", b"drafts", b"schemas", b"token keys")
"""What is sealed under data keys; each purpose has a key of its own, derived from the data key."""

_WRAPPED: Final = b"\x03"
_ID_SIZE: Final = 8
_OVERHEAD: Final = len(_WRAPPED) + _ID_SIZE + NONCE_SIZE + GCM_TAG_SIZE
_ROTATE: Final = "`config-service keys rotate-master`"


class MasterKeys:
    """The master key that wraps, and those before it, which open only. Its repr shows nothing of them."""

    __slots__ = ("_by_id", "_current")

    def __init__(self, current: bytes, *previous: bytes) -> None:
        """Take keys of 32 bytes each. Raises ValueError for any other length."""
        for key in (current, *previous):
            if len(key) != KEY_SIZE:
                raise ValueError(f"master key: expected {KEY_SIZE} bytes, got {len(key)}")
        self._by_id = {_master_id(key): key for key in (*previous, current)}
        self._current = _master_id(current)

    def __repr__(self) -> str:
        return "MasterKeys()"

    def __iter__(self) -> Iterator[bytes]:
        """Return every master key, the current one first."""
        return iter((self._by_id[self._current], *(key for id_, key in self._by_id.items() if id_ != self._current)))

    @property
    def current_id(self) -> str:
        """The id of the master key that wraps, as 16 hex characters."""
        return self._current.hex()

    def first(self, now: datetime, master_key: bytes, *, before: bool) -> tuple[WrappedKey, ...]:
        """Return the first keys of a store, wrapped under ``master_key``.

        With ``before`` they begin with what the store's values were sealed under until now.
        """
        keys = [(1, KeyUse.CHAIN, os.urandom(KEY_SIZE)), (2, KeyUse.ACTIVE, os.urandom(KEY_SIZE))]
        if before:
            derived = b"".join(derive(master_key, b"config-service at rest v1: " + purpose) for purpose in PURPOSES)
            keys.insert(0, (MASTER_KEY_ID, KeyUse.RETIRED, derived))
        return tuple(_wrap(master_key, key, WrappedKey(id_, use, b"", now)) for id_, use, key in keys)

    def rotated(self, keys: Sequence[WrappedKey], now: datetime) -> tuple[WrappedKey, ...]:
        """Return ``keys`` with one more, which is the active one; wrapped under the master key that wraps them now.

        Raises WrongMasterKeyError when that is none of these, or StoreCorruptError.
        """
        master_key = self._by_id[self._wrapping(keys[-1])] if keys else self._by_id[self._current]
        kept = [
            _wrap(master_key, self.unwrap(key), replace(key, use=KeyUse.RETIRED)) if key.use is KeyUse.ACTIVE else key
            for key in keys
        ]
        newest = WrappedKey(max(key.id for key in keys) + 1, KeyUse.ACTIVE, b"", now)
        return (*kept, _wrap(master_key, os.urandom(KEY_SIZE), newest))

    def rewrapped(self, keys: Sequence[WrappedKey]) -> tuple[WrappedKey, ...]:
        """Return ``keys`` wrapped under the current master key. Raises WrongMasterKeyError or StoreCorruptError."""
        master_key = self._by_id[self._current]
        return tuple(_wrap(master_key, self.unwrap(key), key) for key in keys)

    def wraps(self, keys: Iterable[WrappedKey]) -> bool:
        """Tell whether every key of ``keys`` is wrapped under the current master key."""
        return all(wrapping_id(key) == self.current_id for key in keys)

    def unwrap(self, key: WrappedKey) -> bytes:
        """Return what ``key`` wraps.

        Raises WrongMasterKeyError when it is wrapped under none of these, StoreCorruptError when it does not open.
        """
        master_key = self._by_id[self._wrapping(key)]
        header, rest = key.wrapped[: 1 + _ID_SIZE], key.wrapped[1 + _ID_SIZE :]
        try:
            return _cipher(master_key).decrypt(rest[:NONCE_SIZE], rest[NONCE_SIZE:], _bind(header, key))
        except InvalidTag:
            pass
        raise StoreCorruptError(
            f"data key {key.id} does not open under the master key: the store was damaged or altered; restore it from "
            "a backup"
        )

    def _wrapping(self, key: WrappedKey) -> bytes:
        """Return the id of the master key that wraps ``key``, which is one of these."""
        if len(key.wrapped) < _OVERHEAD or key.wrapped[:1] != _WRAPPED:
            raise StoreCorruptError(
                f"data key {key.id} is none: the store was damaged or altered; restore it from a backup"
            )
        master_id = key.wrapped[1 : 1 + _ID_SIZE]
        if master_id not in self._by_id:
            raise WrongMasterKeyError(
                "neither CONFIG_SERVER_MASTER_KEY nor CONFIG_SERVER_PREVIOUS_MASTER_KEYS is the master key of this "
                f"store, whose id is {master_id.hex()}; nothing was opened or changed. Start with the key that the "
                f"store was created with, or that {_ROTATE} was last run with"
            )
        return master_id


def wrapping_id(key: WrappedKey) -> str:
    """Return the id of the master key that ``key`` is wrapped under, as 16 hex characters."""
    return key.wrapped[1 : 1 + _ID_SIZE].hex()


def derive(key: bytes, info: bytes) -> bytes:
    """Return the key that HKDF-SHA256 (RFC 5869) makes of ``key`` for ``info``, without a salt."""
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=info).derive(key)


def lengthy(*parts: bytes) -> bytes:
    """Return ``parts`` as one text, each behind its length (4 bytes, big-endian), so that none runs into the next."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _wrap(master_key: bytes, key: bytes, row: WrappedKey) -> WrappedKey:
    header, nonce = _WRAPPED + _master_id(master_key), os.urandom(NONCE_SIZE)
    return replace(row, wrapped=header + nonce + _cipher(master_key).encrypt(nonce, key, _bind(header, row)))


def _bind(header: bytes, row: WrappedKey) -> bytes:
    created = format_timestamp(row.created_at)
    return header + lengthy(row.id.to_bytes(8, "big"), row.use.value.encode(), created.encode())


def _cipher(master_key: bytes) -> AESGCM:
    return AESGCM(derive(master_key, b"config-service at rest v2: wrapping"))


def _master_id(master_key: bytes) -> bytes:
    return derive(master_key, b"config-service at rest v2: master key id")[:_ID_SIZE]
