"""Sealing and opening of configuration payloads.

Knows keys and bytes. Knows nothing of HTTP, of which config a payload belongs to, or of time. The only module of the
SDK that imports ``cryptography``.

Sealed format 1 is ``nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)``: AES-256-GCM (NIST SP 800-38D) without
additional data. A nonce is drawn at random for every seal; at 96 bits that is safe for 2³² seals under one key
(SP 800-38D §8.3), which the service stays far below because it seals once per key, format and version.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import ConfigClientError, DecryptionError

NONCE_SIZE: Final = 12
"""Bytes of the nonce in front of every sealed payload."""
GCM_TAG_SIZE: Final = 16
"""Bytes of the authentication tag behind every sealed payload."""
KEY_SIZE: Final = 32
"""Bytes of an AES-256 key."""
KEY_ID_SIZE: Final = 8
"""Bytes of a key id."""


def parse_encryption_key(hex_key: str) -> bytes:
    """Return the 32 bytes that ``hex_key`` spells in 64 hexadecimal characters.

    Raises ConfigClientError, which never repeats the key.
    """
    text = hex_key.strip()
    if len(text) != 2 * KEY_SIZE:
        raise ConfigClientError(f"encryption key: expected 64 hex characters (32 bytes), got {len(text)} characters")
    # bytes.fromhex skips white space, so the alphabet is checked first.
    if not all(character in "0123456789abcdefABCDEF" for character in text):
        raise ConfigClientError("encryption key: only hexadecimal characters (0-9, a-f) are allowed")
    return bytes.fromhex(text)


def parse_encryption_keys(hex_keys: str) -> tuple[bytes, ...]:
    """Return the keys of a comma-separated list, the one to prefer first.

    Raises ConfigClientError when a key is malformed or the list is empty.
    """
    return tuple(parse_encryption_key(part) for part in hex_keys.split(","))


def key_id(key: bytes) -> str:
    """Return the id of ``key``: the first 8 bytes of its SHA-256, as 16 hex characters. Not a secret."""
    return sha256(key).digest()[:KEY_ID_SIZE].hex()


def seal(plaintext: bytes, key: bytes) -> bytes:
    """Return ``plaintext`` sealed in format 1 under a fresh random nonce. Raises ConfigClientError for a bad key."""
    _check_size(key)
    nonce = os.urandom(NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, None)


def decrypt(ciphertext: bytes, key: bytes) -> bytes:
    """Return the plaintext of a format 1 payload.

    Raises DecryptionError when the payload is shorter than 28 bytes or does not authenticate.
    """
    return Keyring((key,)).open(ciphertext)


class Keyring:
    """The keys of one token: several while a rotation is under way. Its repr shows key ids only.

    A cipher object is built once per key, because building one costs more than opening a small payload.
    """

    __slots__ = ("_ciphers", "ids")

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ConfigClientError("a keyring needs at least one key")
        for key in keys:
            _check_size(key)
        self.ids: Final = tuple(key_id(key) for key in keys)
        self._ciphers = tuple(AESGCM(key) for key in keys)

    def __repr__(self) -> str:
        return f"Keyring(ids={list(self.ids)})"

    def open(self, payload: bytes) -> bytes:
        """Return the plaintext of a format 1 payload sealed under any key of this ring.

        Raises DecryptionError when the payload is shorter than 28 bytes or no key authenticates it.
        """
        if len(payload) < NONCE_SIZE + GCM_TAG_SIZE:
            raise DecryptionError(
                f"sealed payload of {len(payload)} bytes is too short: nonce and tag alone take "
                f"{NONCE_SIZE + GCM_TAG_SIZE}; is something else answering in place of the service?"
            )
        nonce, sealed = payload[:NONCE_SIZE], payload[NONCE_SIZE:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, sealed, None)
            except InvalidTag:
                continue
        raise DecryptionError(
            f"payload of {len(payload)} bytes does not authenticate under this client's keys {list(self.ids)}: "
            "the key belongs to another token, was rotated, or the payload was altered"
        )


def _check_size(key: bytes) -> None:
    # AESGCM would take 16 or 24 bytes too, and seal under a weaker cipher in silence.
    if len(key) != KEY_SIZE:
        raise ConfigClientError(f"encryption key: expected {KEY_SIZE} bytes (64 hex characters), got {len(key)}")
