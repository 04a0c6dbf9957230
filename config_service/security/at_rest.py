"""Sealing at rest: documents, drafts, schemas and token keys under keys derived from the master key.

Knows the master key, bytes, and what each sealed value belongs to. Knows nothing of stores, HTTP or time.

One 256-bit key per purpose comes from the master key by HKDF-SHA256 (RFC 5869), so that a value of one purpose never
opens as another. The master key is uniformly random, so HKDF needs no salt (RFC 5869 §3.1). A sealed value is

    version 0x01 ‖ nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)

AES-256-GCM (NIST SP 800-38D). The additional data is the version byte and the identity of the value, each part of it
behind its length (4 bytes, big-endian): a sealed document moved to another config or version, or a sealed key moved
to another token, does not open. Nonces are random; at 96 bits that is safe for 2³² values under one key (§8.3).
"""

from __future__ import annotations

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config_client.crypto import GCM_TAG_SIZE, KEY_SIZE, NONCE_SIZE

from ..domain.errors import StoreCorruptError, WrongMasterKeyError
from ..domain.keys import ConfigKey

_FORMAT: Final = b"\x01"
_OVERHEAD: Final = len(_FORMAT) + NONCE_SIZE + GCM_TAG_SIZE
_CHECK_VALUE: Final = b"config-service master key check"


class Vault:
    """Everything at rest goes in and out here. Its repr shows nothing of its keys."""

    __slots__ = ("_backups", "_check", "_documents", "_drafts", "_schemas", "_token_keys")

    def __init__(self, master_key: bytes) -> None:
        if len(master_key) != KEY_SIZE:
            raise ValueError(f"master key: expected {KEY_SIZE} bytes, got {len(master_key)}")
        self._documents = _cipher(master_key, b"documents")
        self._drafts = _cipher(master_key, b"drafts")
        self._schemas = _cipher(master_key, b"schemas")
        self._token_keys = _cipher(master_key, b"token keys")
        self._check = _cipher(master_key, b"check value")
        self._backups = _derive(master_key, b"backups")

    def __repr__(self) -> str:
        return "Vault()"

    def new_check(self) -> bytes:
        """Return a sealed check value, by which a store knows its master key again."""
        return _seal(self._check, _CHECK_VALUE, _bind())

    def verify_check(self, sealed: bytes) -> None:
        """Return when ``sealed`` was made under this master key, else raise WrongMasterKeyError."""
        if _open(self._check, sealed, _bind()) != _CHECK_VALUE:
            raise WrongMasterKeyError(
                "CONFIG_SERVER_MASTER_KEY is not the master key of this store; nothing was opened or changed. "
                "Start with the key that the store was created with"
            )

    def backup_mac(self, data: bytes) -> bytes:
        """Return HMAC-SHA256 of ``data``, by which a backup is known to be made under this master key."""
        return hmac.digest(self._backups, data, "sha256")

    def seal_document(self, document: bytes, key: ConfigKey, version: int) -> bytes:
        """Return ``document`` sealed as version ``version`` of ``key``."""
        return _seal(self._documents, document, _bind_document(key, version))

    def open_document(self, sealed: bytes, key: ConfigKey, version: int) -> bytes:
        """Return the document that was sealed as version ``version`` of ``key``, else raise StoreCorruptError."""
        document = _open(self._documents, sealed, _bind_document(key, version))
        if document is None:
            raise StoreCorruptError(
                f"{key} version {version} does not open under the master key: the store was damaged or altered; "
                "restore it from a backup"
            )
        return document

    def seal_draft(self, document: bytes, key: ConfigKey, base: int) -> bytes:
        """Return ``document`` sealed as the draft of ``key`` that was made on version ``base``."""
        return _seal(self._drafts, document, _bind_document(key, base))

    def open_draft(self, sealed: bytes, key: ConfigKey, base: int) -> bytes:
        """Return the document that was sealed as the draft of ``key`` on ``base``, else raise StoreCorruptError."""
        document = _open(self._drafts, sealed, _bind_document(key, base))
        if document is None:
            raise StoreCorruptError(
                f"the draft of {key} does not open under the master key: the store was damaged or altered; "
                "discard the draft, or restore the store from a backup"
            )
        return document

    def seal_schema(self, schema: bytes, key: ConfigKey, number: int) -> bytes:
        """Return ``schema`` sealed as schema ``number`` of ``key``: what it allows may be secret too."""
        return _seal(self._schemas, schema, _bind_document(key, number))

    def open_schema(self, sealed: bytes, key: ConfigKey, number: int) -> bytes:
        """Return what was sealed as schema ``number`` of ``key``, else raise StoreCorruptError."""
        schema = _open(self._schemas, sealed, _bind_document(key, number))
        if schema is None:
            raise StoreCorruptError(
                f"schema {number} of {key} does not open under the master key: the store was damaged or altered; "
                "restore it from a backup"
            )
        return schema

    def seal_token_key(self, token_key: bytes, secret_hash: bytes) -> bytes:
        """Return ``token_key`` sealed for the token whose secret has ``secret_hash``."""
        return _seal(self._token_keys, token_key, _bind(secret_hash))

    def open_token_key(self, sealed: bytes, secret_hash: bytes, token_id: int) -> bytes:
        """Return the key of a token, else raise StoreCorruptError, which names ``token_id``."""
        token_key = _open(self._token_keys, sealed, _bind(secret_hash))
        if token_key is None:
            raise StoreCorruptError(
                f"a key of token {token_id} does not open under the master key: the store was damaged or altered; "
                "restore it from a backup"
            )
        return token_key


def _cipher(master_key: bytes, purpose: bytes) -> AESGCM:
    return AESGCM(_derive(master_key, purpose))


def _derive(master_key: bytes, purpose: bytes) -> bytes:
    info = b"config-service at rest v1: " + purpose
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=info).derive(master_key)


def _seal(cipher: AESGCM, value: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_SIZE)
    return _FORMAT + nonce + cipher.encrypt(nonce, value, bound)


def _open(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes | None:
    if len(sealed) < _OVERHEAD or sealed[:1] != _FORMAT:
        return None
    nonce = sealed[1 : 1 + NONCE_SIZE]
    try:
        return cipher.decrypt(nonce, sealed[1 + NONCE_SIZE :], bound)
    except InvalidTag:
        return None


def _bind_document(key: ConfigKey, version: int) -> bytes:
    return _bind(key.name.encode(), key.environment.encode(), key.label.encode(), version.to_bytes(8, "big"))


def _bind(*parts: bytes) -> bytes:
    return _FORMAT + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
