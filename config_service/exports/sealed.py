"""Sealing the lines of an export under a key of its owner's.

Knows lines, a key and AES-256-GCM. Knows nothing of what the lines say.

The first line stays readable and has ``"sealed": true`` and a random ``salt`` of 32 bytes (hex). The key of the file
comes from the owner's key by HKDF-SHA256 (RFC 5869) with that salt and the info ``config-service export v1``, so no two
files share a key. Every line behind it is

    base64(ciphertext ‖ tag) LF

of AES-256-GCM (NIST SP 800-38D) over the line that it stands for, without its line feed. The nonce is the number of the
line, 12 bytes, big-endian, the first line being 1: no number comes twice in a file, and so no nonce under a key. The
additional data is the whole first line. A line that was altered, moved, left out, or taken from another file does not
open; one that is missing at the end is missed because the last line says how many there are.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from config_client.crypto import KEY_SIZE, NONCE_SIZE

from ..backup.chain import DamagedFileError

SALT_SIZE: Final = 32
_INFO: Final = b"config-service export v1"


class LineSealer:
    """Seals and opens the lines of one file, each once, in their order."""

    def __init__(self, key: bytes, header: bytes, salt: bytes) -> None:
        """Begin behind the line ``header``, which names ``salt``. ``key`` has 32 bytes."""
        if len(key) != KEY_SIZE or len(salt) != SALT_SIZE:
            raise ValueError("a key and a salt have 32 bytes each")
        derived = HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=salt, info=_INFO).derive(key)
        self._cipher = AESGCM(derived)
        self._header = header
        self._line = 1

    def __repr__(self) -> str:
        return "LineSealer()"

    def seal(self, line: bytes) -> bytes:
        """Return the next line, sealed."""
        return b64encode(self._cipher.encrypt(self._next(), line.removesuffix(b"\n"), self._header)) + b"\n"

    def open(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what the next lines stand for. Raises DamagedFileError."""
        for line in lines:
            nonce = self._next()
            opened = _opened(self._cipher, nonce, line, self._header)
            if opened is None:
                raise DamagedFileError(
                    f"line {self._line} does not open: "
                    + ("the export was sealed under another key, or " if self._line == 2 else "")
                    + "it was altered, moved or left out; use the right key, or another copy"
                )
            yield opened + b"\n"

    def _next(self) -> bytes:
        self._line += 1
        return self._line.to_bytes(NONCE_SIZE, "big")


def _opened(cipher: AESGCM, nonce: bytes, line: bytes, header: bytes) -> bytes | None:
    try:
        sealed = b64decode(line.removesuffix(b"\n"), validate=True)
        # Base64 has several spellings of the same bytes; one of them is the one that was written.
        return cipher.decrypt(nonce, sealed, header) if b64encode(sealed) + b"\n" == line else None
    except (InvalidTag, binascii.Error, ValueError):
        return None
