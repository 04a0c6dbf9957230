"""Sealing at rest: documents, drafts, schemas and token keys under the data keys of a store.

Knows keys, bytes, and what each sealed value belongs to. Knows nothing of stores, HTTP or time.

What is new is sealed in format 2 under the active data key; whatever a key that is held seals is opened:

    version 0x02 ‖ id of the data key (4 bytes, big-endian) ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)

AES-256-GCM (NIST SP 800-38D). One 256-bit key per purpose comes from the data key by HKDF-SHA256 (RFC 5869), so that a
value of one purpose never opens as another. The additional data is version byte and key id, and the identity of the
value, each part of it behind its length (4 bytes, big-endian): a sealed document moved to another config or version, or
a sealed key moved to another token, does not open. Nonces are random; at 96 bits that is safe for 2³² values under one
key (§8.3), and a new data key begins anew.

Format 1 of older stores, ``0x01 ‖ nonce ‖ ciphertext ‖ tag`` under keys that come from the master key itself, is opened
by the key 0 of the store, and never made.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config_client.crypto import GCM_TAG_SIZE, KEY_SIZE, NONCE_SIZE

from ..domain.errors import StoreCorruptError, WrongMasterKeyError
from ..domain.keys import ConfigKey
from ..domain.records import KeyUse, WrappedKey
from ..domain.sealing import DATA_KEY_FORMAT, MASTER_KEY_ID, data_key_id
from .chain import Chain
from .keyring import PURPOSES, MasterKeys, derive, lengthy

_DOCUMENTS, _DRAFTS, _SCHEMAS, _TOKEN_KEYS = PURPOSES
_FORMAT_1: Final = b"\x01"
_KEY_ID_SIZE: Final = 4
_CHECK_VALUE: Final = b"config-service master key check"

_Ciphers = Mapping[bytes, AESGCM]
"""By purpose."""


class Vault:
    """Everything at rest goes in and out here, once it holds the keys of a store. Its repr shows nothing of them.

    A key that the store destroys is held until the process ends: what was read before may still be opened.
    """

    __slots__ = ("_active", "_chain", "_ciphers", "master_keys")

    def __init__(self, master_key: bytes, *previous: bytes) -> None:
        self.master_keys: Final = MasterKeys(master_key, *previous)
        self._ciphers: dict[int, _Ciphers] = {}
        self._active: int | None = None
        self._chain: Chain | None = None

    def __repr__(self) -> str:
        return "Vault()"

    # Keys

    def hold(self, keys: Sequence[WrappedKey]) -> None:
        """Open with ``keys`` from now on, and seal with the active one. Only those not held before are unwrapped.

        Raises WrongMasterKeyError or StoreCorruptError; then nothing has changed.
        """
        opened = {key.id: self.master_keys.unwrap(key) for key in keys if not self._holds(key)}
        active = [key.id for key in keys if key.use is KeyUse.ACTIVE]
        chains = [key.id for key in keys if key.use is KeyUse.CHAIN]
        if len(active) != 1 or len(chains) != 1:
            raise StoreCorruptError(
                "the store has not one active data key and one chain key: it was damaged or altered; restore it from a "
                "backup"
            )
        for id_, key in opened.items():
            if id_ == chains[0]:
                self._chain = Chain(id_, key)
            else:
                self._ciphers[id_] = _ciphers(id_, key)
        self._active = active[0]

    def twin(self) -> Vault:
        """Return a vault with the same master keys that holds no key of a store yet."""
        return Vault(*self.master_keys)

    def opens(self, sealed: bytes) -> bool:
        """Tell whether the key is held under which ``sealed`` is sealed."""
        return data_key_id(sealed) in self._ciphers

    @property
    def active(self) -> int:
        """The id of the data key under which everything new is sealed."""
        if self._active is None:
            raise RuntimeError("the vault holds no keys yet")
        return self._active

    @property
    def chain(self) -> Chain:
        """What chains the log."""
        if self._chain is None:
            raise RuntimeError("the vault holds no keys yet")
        return self._chain

    def _holds(self, key: WrappedKey) -> bool:
        return key.id in self._ciphers or (self._chain is not None and self._chain.key_id == key.id)

    # The check value, by which a store from before data keys knows its master key again

    def new_check(self) -> bytes:
        """Return a sealed check value under the current master key."""
        cipher = _check_cipher(next(iter(self.master_keys)))
        return _FORMAT_1 + _encrypt(cipher, _CHECK_VALUE, _FORMAT_1)

    def verify_check(self, sealed: bytes) -> bytes:
        """Return the master key under which ``sealed`` was made, else raise WrongMasterKeyError."""
        for master_key in self.master_keys:
            if sealed[:1] == _FORMAT_1 and _decrypt(_check_cipher(master_key), sealed[1:], _FORMAT_1) == _CHECK_VALUE:
                return master_key
        raise WrongMasterKeyError(
            "CONFIG_SERVER_MASTER_KEY is not the master key of this store; nothing was opened or changed. "
            "Start with the key that the store was created with"
        )

    def backup_mac(self, data: bytes) -> bytes:
        """Return HMAC-SHA256 of ``data``, by which a backup is known to be made under the current master key."""
        return _backup_mac(next(iter(self.master_keys)), data)

    def verify_backup(self, data: bytes, mac: bytes) -> bool:
        """Tell whether ``mac`` is that of ``data`` under the master key, or one of those in use before it."""
        return any(hmac.compare_digest(_backup_mac(master_key, data), mac) for master_key in self.master_keys)

    # Values

    def seal_document(self, document: bytes, key: ConfigKey, version: int) -> bytes:
        """Return ``document`` sealed as version ``version`` of ``key``."""
        return self._seal(_DOCUMENTS, document, _of(key, version))

    def open_document(self, sealed: bytes, key: ConfigKey, version: int) -> bytes:
        """Return the document that was sealed as version ``version`` of ``key``, else raise StoreCorruptError."""
        document = self._open(_DOCUMENTS, sealed, _of(key, version))
        if document is None:
            raise StoreCorruptError(
                f"{key} version {version} does not open under {_name(sealed)}: the store was damaged or altered; "
                "restore it from a backup"
            )
        return document

    def seal_draft(self, document: bytes, key: ConfigKey, base: int) -> bytes:
        """Return ``document`` sealed as the draft of ``key`` that was made on version ``base``."""
        return self._seal(_DRAFTS, document, _of(key, base))

    def open_draft(self, sealed: bytes, key: ConfigKey, base: int) -> bytes:
        """Return the document that was sealed as the draft of ``key`` on ``base``, else raise StoreCorruptError."""
        document = self._open(_DRAFTS, sealed, _of(key, base))
        if document is None:
            raise StoreCorruptError(
                f"the draft of {key} does not open under {_name(sealed)}: the store was damaged or altered; discard "
                "the draft, or restore the store from a backup"
            )
        return document

    def seal_schema(self, schema: bytes, key: ConfigKey, number: int) -> bytes:
        """Return ``schema`` sealed as schema ``number`` of ``key``: what it allows may be secret too."""
        return self._seal(_SCHEMAS, schema, _of(key, number))

    def open_schema(self, sealed: bytes, key: ConfigKey, number: int) -> bytes:
        """Return what was sealed as schema ``number`` of ``key``, else raise StoreCorruptError."""
        schema = self._open(_SCHEMAS, sealed, _of(key, number))
        if schema is None:
            raise StoreCorruptError(
                f"schema {number} of {key} does not open under {_name(sealed)}: the store was damaged or altered; "
                "restore it from a backup"
            )
        return schema

    def seal_token_key(self, token_key: bytes, secret_hash: bytes) -> bytes:
        """Return ``token_key`` sealed for the token whose secret has ``secret_hash``."""
        return self._seal(_TOKEN_KEYS, token_key, lengthy(secret_hash))

    def open_token_key(self, sealed: bytes, secret_hash: bytes, token_id: int) -> bytes:
        """Return the key of a token, else raise StoreCorruptError, which names ``token_id``."""
        token_key = self._open(_TOKEN_KEYS, sealed, lengthy(secret_hash))
        if token_key is None:
            raise StoreCorruptError(
                f"a key of token {token_id} does not open under {_name(sealed)}: the store was damaged or altered; "
                "restore it from a backup"
            )
        return token_key

    def _seal(self, purpose: bytes, value: bytes, identity: bytes) -> bytes:
        header = DATA_KEY_FORMAT + self.active.to_bytes(_KEY_ID_SIZE, "big")
        return header + _encrypt(self._ciphers[self.active][purpose], value, header + identity)

    def _open(self, purpose: bytes, sealed: bytes, identity: bytes) -> bytes | None:
        ciphers = self._ciphers.get(data_key_id(sealed))
        if ciphers is None:
            return None
        size = 1 if sealed[:1] == _FORMAT_1 else 1 + _KEY_ID_SIZE
        header = sealed[:size]
        if header[:1] not in {_FORMAT_1, DATA_KEY_FORMAT}:
            return None
        return _decrypt(ciphers[purpose], sealed[size:], header + identity)


def _ciphers(key_id: int, key: bytes) -> _Ciphers:
    if key_id == MASTER_KEY_ID:
        parts = (key[place : place + KEY_SIZE] for place in range(0, len(key), KEY_SIZE))
        return {purpose: AESGCM(part) for purpose, part in zip(PURPOSES, parts, strict=True)}
    return {purpose: AESGCM(derive(key, b"config-service at rest v2: " + purpose)) for purpose in PURPOSES}


def _check_cipher(master_key: bytes) -> AESGCM:
    return AESGCM(derive(master_key, b"config-service at rest v1: check value"))


def _encrypt(cipher: AESGCM, value: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_SIZE)
    return nonce + cipher.encrypt(nonce, value, bound)


def _decrypt(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes | None:
    if len(sealed) < NONCE_SIZE + GCM_TAG_SIZE:
        return None
    try:
        return cipher.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], bound)
    except InvalidTag:
        return None


def _of(key: ConfigKey, number: int) -> bytes:
    return lengthy(key.name.encode(), key.environment.encode(), key.label.encode(), number.to_bytes(8, "big"))


def _name(sealed: bytes) -> str:
    """Return what to call the key that ``sealed`` names."""
    key_id = data_key_id(sealed)
    return f"data key {key_id}" if key_id else "the master key of format 1"


def _backup_mac(master_key: bytes, data: bytes) -> bytes:
    return hmac.digest(derive(master_key, b"config-service at rest v1: backups"), data, "sha256")
