"""The chain of the log: what links every entry to the one before it, and what is said of its change, sealed.

Knows one key, log entries and bytes. Knows nothing of stores, HTTP or time.

Three keys come from the chain key by HKDF-SHA256 (RFC 5869), one for each of these:

- **The link** of an entry is HMAC-SHA256 (RFC 2104) over the link before it, behind its length (4 bytes, big-endian;
  the first entry has an empty one before it), and the encoding of all fields of the entry but the link itself.
- **The detail** is a JSON object, sealed like any value in format 2 under the id of the chain key, and bound to its
  revision (8 bytes, big-endian).
- **A fingerprint** is HMAC-SHA256 over the encoding of what a change made, in the clear. It tells whether a document is
  the one that was published, to nobody who has not the chain key, and outlives every change of data keys.

The encoding of fields: for each that is not None, in the order of their names, the name behind its length (4 bytes), a
letter for the type, and the value behind its length (8 bytes). ``b``: ``true`` or ``false``; ``i``: decimal digits;
``s``: UTF-8; ``y``: bytes; ``t``: a time as in RFC 3339; ``l``: a list, each item as letter, length and value; ``o``:
the encoding of fields. A field that is added to entries later, and is None, changes no older link.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config_client.crypto import GCM_TAG_SIZE, NONCE_SIZE
from config_client.protocol import format_timestamp

from ..domain.keys import ConfigKey
from ..domain.records import LogEntry
from ..domain.scopes import Scope
from ..domain.sealing import DATA_KEY_FORMAT
from .keyring import derive

Detail = Mapping[str, object]
"""What is known of a change beside its log entry: JSON values by name."""


class Chain:
    """Links, details and fingerprints under one chain key. Its repr shows nothing of it."""

    __slots__ = ("_cipher", "_fingerprints", "_header", "_links", "key_id")

    def __init__(self, key_id: int, key: bytes) -> None:
        self.key_id: Final = key_id
        self._header = DATA_KEY_FORMAT + key_id.to_bytes(4, "big")
        self._links = derive(key, b"config-service log v1: links")
        self._fingerprints = derive(key, b"config-service log v1: fingerprints")
        self._cipher = AESGCM(derive(key, b"config-service log v1: details"))

    def __repr__(self) -> str:
        return f"Chain(key_id={self.key_id})"

    def linked(self, entry: LogEntry, previous: bytes | None, detail: Detail) -> LogEntry:
        """Return ``entry`` with ``detail``, linked to the entry whose link is ``previous`` (None: to none)."""
        told = json.dumps(detail, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        nonce = os.urandom(NONCE_SIZE)
        sealed = self._cipher.encrypt(nonce, told, self._bound(entry.revision))
        entry = replace(entry, audit=self._header + nonce + sealed, link=None)
        return replace(entry, link=self.link(entry, previous))

    def link(self, entry: LogEntry, previous: bytes | None) -> bytes:
        """Return what the link of ``entry`` has to be behind one whose link is ``previous``."""
        before = previous or b""
        told = {field.name: getattr(entry, field.name) for field in fields(entry) if field.name != "link"}
        return _mac(self._links, len(before).to_bytes(4, "big") + before + encode(told))

    def detail(self, entry: LogEntry) -> Detail | None:
        """Return what is said of the change of ``entry``; None when it does not open as the detail of this entry."""
        sealed, size = entry.audit, len(self._header)
        if sealed is None or len(sealed) < size + NONCE_SIZE + GCM_TAG_SIZE or sealed[:size] != self._header:
            return None
        try:
            told = self._cipher.decrypt(
                sealed[size : size + NONCE_SIZE], sealed[size + NONCE_SIZE :], self._bound(entry.revision)
            )
        except InvalidTag:
            return None
        parsed = json.loads(told.decode("utf-8", "surrogatepass"))
        return parsed if isinstance(parsed, dict) else None

    def fingerprint(self, what: Mapping[str, object]) -> str:
        """Return the fingerprint of ``what`` a change made, as 64 hex characters."""
        return _mac(self._fingerprints, encode(what)).hex()

    def _bound(self, revision: int) -> bytes:
        return self._header + revision.to_bytes(8, "big")


def encode(what: Mapping[str, object]) -> bytes:
    """Return the encoding of fields, as above. Raises TypeError for a value that has none."""
    parts = []
    for name in sorted(name for name, value in what.items() if value is not None):
        parts += [len(name.encode()).to_bytes(4, "big"), name.encode(), _encode(what[name])]
    return b"".join(parts)


def same(first: bytes | str | None, second: bytes | str | None) -> bool:
    """Tell whether two links, or two fingerprints, are the same, in a time that does not tell where they differ."""
    if first is None or second is None:
        return first is second
    return hmac.compare_digest(_raw(first), _raw(second))


def _encode(value: object) -> bytes:
    letter, raw = _typed(value)
    return letter + len(raw).to_bytes(8, "big") + raw


def _typed(value: object) -> tuple[bytes, bytes]:
    if isinstance(value, bool):
        return b"b", b"true" if value else b"false"
    if isinstance(value, Enum):
        return _typed(value.value)
    if isinstance(value, int):
        return b"i", b"%d" % value
    if isinstance(value, str | Scope):
        return b"s", _raw(str(value))
    if isinstance(value, bytes):
        return b"y", value
    if isinstance(value, datetime):
        return b"t", format_timestamp(value).encode()
    if isinstance(value, tuple | list):
        return b"l", b"".join(map(_encode, value))
    if isinstance(value, ConfigKey):
        return b"o", encode({"name": value.name, "environment": value.environment, "label": value.label})
    if isinstance(value, Mapping):
        return b"o", encode(value)
    raise TypeError(f"no encoding of a {type(value).__name__} is known; teach the chain of the log one")


def _mac(key: bytes, told: bytes) -> bytes:
    return hmac.digest(key, told, sha256)


def _raw(text: bytes | str) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
