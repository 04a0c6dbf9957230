"""Sealing and opening of configuration payloads.

Knows keys and bytes. Knows nothing of HTTP, of which config a payload belongs to, or of time. The only module of the
SDK that imports ``cryptography``.

Sealed format 1 is ``nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)``: AES-256-GCM (NIST SP 800-38D) without
additional data. A nonce is drawn at random for every seal; at 96 bits that is safe for 2³² seals under one key
(SP 800-38D §8.3), which the service stays far below because it seals once per key, format and version.

Sealed format 2 is ``header ‖ ciphertext ‖ tag (16 bytes)``, and the header (``_sealed_header``), which names the key
and what the payload is bound to, is the additional data: to change a bit of it breaks the tag. Neither format opens as
the other: format 1 authenticates no additional data, format 2 never none. Both draw their nonces from the same 96 bits
at random, so they may share a key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ._reloading import Reloading
from ._sealed_header import (
    GCM_TAG_SIZE,
    KEY_ID_SIZE,
    NONCE_SIZE,
    Binding,
    SealedHeader,
    dump_header,
    parse_header,
)
from .errors import ConfigClientError, DecryptionError

__all__ = [
    "GCM_TAG_SIZE",
    "KEY_ID_SIZE",
    "KEY_SIZE",
    "NONCE_SIZE",
    "Binding",
    "Keyring",
    "SealedHeader",
    "decrypt",
    "key_id",
    "parse_encryption_key",
    "parse_encryption_keys",
    "parse_header",
    "seal",
    "seal_bound",
]

KEY_SIZE: Final = 32
"""Bytes of an AES-256 key."""


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


def seal_bound(plaintext: bytes, key: bytes, binding: Binding) -> bytes:
    """Return ``plaintext`` sealed in format 2 under a fresh random nonce, bound to ``binding``.

    Raises ConfigClientError for a bad key, a text over 1024 bytes, or a number that is negative or over 2⁶³-1.
    """
    return _Key(key).seal(plaintext, binding)


def decrypt(ciphertext: bytes, key: bytes) -> bytes:
    """Return the plaintext of a format 1 payload.

    Raises DecryptionError when the payload is shorter than 28 bytes or does not authenticate.
    """
    return Keyring((key,)).open(ciphertext)


class Keyring:
    """The keys of one token: several while a rotation is under way. Its repr shows key ids only. Thread-safe.

    ``reload()`` returns the keys anew. It is called when a payload needs a key that is not held, at most once a
    second, and at most every 30 s for the same one; what it raises, or returns instead of keys, is logged by type and
    leaves the keys in place.
    """

    __slots__ = ("_purposes", "_rings")

    def __init__(
        self,
        keys: Sequence[bytes],
        *,
        reload: Callable[[], Sequence[bytes]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        load = None if reload is None else (lambda: _Ring(reload()))
        self._rings: Reloading[_Ring] = Reloading(_Ring(keys), load, clock)
        self._purposes: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Keyring(ids={list(self.ids)})"

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys that are held now, the preferred one first."""
        return self._ring.ids

    def open(self, payload: bytes) -> bytes:
        """Return the plaintext of a format 1 payload sealed under any key of this ring.

        Raises DecryptionError when the payload is shorter than 28 bytes or no key authenticates it, also after a
        reload.
        """
        if len(payload) < NONCE_SIZE + GCM_TAG_SIZE:
            raise DecryptionError(
                f"sealed payload of {len(payload)} bytes is too short: nonce and tag alone take "
                f"{NONCE_SIZE + GCM_TAG_SIZE}; is something else answering in place of the service?"
            )
        # A payload names no key here, but its nonce is its own, and is the same whenever it is fetched.
        need = payload[:NONCE_SIZE].hex()
        held = self._rings.current
        plaintext = self._for_purpose(held).open(payload)
        if plaintext is None and (renewed := self._rings.renew(held, need)) is not held:
            plaintext = self._for_purpose(renewed).open(payload)
        if plaintext is None:
            raise DecryptionError(
                f"payload of {len(payload)} bytes does not authenticate under this client's keys {list(self.ids)}: "
                "the key belongs to another token, was rotated, or the payload was altered"
            )
        return plaintext

    def open_bound(self, payload: bytes) -> tuple[Binding, bytes]:
        """Return what a format 2 payload is bound to, and its plaintext; both are authentic.

        Raises DecryptionError when the payload is malformed, its key is not held, also after a reload, or it does not
        authenticate.
        """
        header = parse_header(payload)
        held = self._rings.current
        key = self._for_purpose(held).keys.get(header.key_id)
        if key is None and (renewed := self._rings.renew(held, header.key_id)) is not held:
            key = self._for_purpose(renewed).keys.get(header.key_id)
        if key is None:
            raise DecryptionError(
                f"sealed with key {header.key_id}; this client holds {list(self.ids)}: "
                "set CONFIG_SERVICE_KEY to the token's current key"
            )
        plaintext = key.open(header.nonce, payload[header.size :], payload[: header.size])
        if plaintext is None:
            raise DecryptionError(
                f"payload of {len(payload)} bytes does not authenticate under key {key.id}, which it names: "
                "it, or the header that says what it is, was altered"
            )
        return header.binding, plaintext

    def derived(self, purpose: bytes) -> Keyring:
        """Return the ring of the keys that HKDF-SHA256 (RFC 5869) makes of these for ``purpose``.

        Neither ring opens what the other sealed. The derived one follows this one: after a reload of either, both
        have the new keys.
        """
        ring = object.__new__(Keyring)
        ring._rings = self._rings
        ring._purposes = (*self._purposes, purpose)
        return ring

    def seal_bound(self, plaintext: bytes, binding: Binding) -> bytes:
        """Return ``plaintext`` sealed in format 2 under the preferred key, as the function of this name does."""
        ring = self._ring
        return ring.keys[ring.ids[0]].seal(plaintext, binding)

    @property
    def _ring(self) -> _Ring:
        return self._for_purpose(self._rings.current)

    def _for_purpose(self, ring: _Ring) -> _Ring:
        for purpose in self._purposes:
            ring = ring.derived(purpose)
        return ring


class _Ring:
    """The keys that are held at one moment, by id, the preferred one first. Two with the same ids are equal."""

    __slots__ = ("_derived", "ids", "keys")

    def __init__(self, keys: Sequence[bytes]) -> None:
        made = [_Key(key) for key in keys]
        if not made:
            raise ConfigClientError("a keyring needs at least one key")
        self.ids: Final = tuple(key.id for key in made)
        self.keys: Final = {key.id: key for key in made}
        self._derived: dict[bytes, _Ring] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ring) and self.ids == other.ids

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"_Ring(ids={list(self.ids)})"

    def open(self, payload: bytes) -> bytes | None:
        nonce, sealed = payload[:NONCE_SIZE], payload[NONCE_SIZE:]
        for key in self.keys.values():
            plaintext = key.open(nonce, sealed, None)
            if plaintext is not None:
                return plaintext
        return None

    def derived(self, purpose: bytes) -> _Ring:
        ring = self._derived.get(purpose)
        if ring is None:
            # Two threads may both derive; they get the same keys, and setdefault keeps one.
            ring = self._derived.setdefault(purpose, _Ring([key.derived(purpose) for key in self.keys.values()]))
        return ring


class _Key:
    """One key. Its cipher is built once, because building it costs more than opening a small payload.

    And not before it is needed: the first cipher of a process takes OpenSSL a millisecond, which no start waits for.
    """

    __slots__ = ("_made", "_secret", "id")

    def __init__(self, secret: bytes) -> None:
        _check_size(secret)
        self.id: Final = key_id(secret)
        self._secret = secret
        self._made: AESGCM | None = None

    def __repr__(self) -> str:
        return f"_Key({self.id})"

    def __reduce__(self) -> str:
        # A task queue or a cache on disk would write the key down.
        raise TypeError("keys are not pickled: create the client in the process that uses it")

    @property
    def _cipher(self) -> AESGCM:
        cipher = self._made
        if cipher is None:
            # Two threads may both build one; they are the same.
            cipher = self._made = AESGCM(self._secret)
        return cipher

    def seal(self, plaintext: bytes, binding: Binding) -> bytes:
        nonce = os.urandom(NONCE_SIZE)
        header = dump_header(bytes.fromhex(self.id), nonce, binding)
        return header + self._cipher.encrypt(nonce, plaintext, header)

    def open(self, nonce: bytes, sealed: bytes, bound: bytes | None) -> bytes | None:
        try:
            return self._cipher.decrypt(nonce, sealed, bound)
        except InvalidTag:
            return None

    def derived(self, purpose: bytes) -> bytes:
        # HKDF-SHA256 (RFC 5869) of one block, which is as long as a key, in the standard library's HMAC: cryptography's
        # own makes OpenSSL load a third of a megabyte for the same bytes, which a test compares. A key is uniformly
        # random, so no salt is needed (§3.1), which means one of zeros (§2.2); and HMAC-SHA256 has nothing in common
        # with AES-GCM, so the key may serve both.
        import hmac  # noqa: PLC0415 - imported by those who derive, which not every program does

        extracted = hmac.digest(bytes(sha256().digest_size), self._secret, "sha256")
        return hmac.digest(extracted, b"config-client derived key v1: " + purpose + b"\x01", "sha256")


def _check_size(key: bytes) -> None:
    if not isinstance(key, bytes):
        raise ConfigClientError(f"encryption key: expected {KEY_SIZE} bytes, got {type(key).__name__}")
    # AESGCM would take 16 or 24 bytes too, and seal under a weaker cipher in silence.
    if len(key) != KEY_SIZE:
        raise ConfigClientError(f"encryption key: expected {KEY_SIZE} bytes (64 hex characters), got {len(key)}")
