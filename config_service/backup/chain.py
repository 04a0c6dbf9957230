"""Lines that hang together: a file of them that was cut, altered, or put in another order is noticed.

Knows lines of JSON and SHA-256. Knows neither what the lines say nor a key; pure.

A line is

    payload ‖ TAB ‖ digest ‖ LF

where the payload is JSON without a line break or tab, and digest n, as 64 hex digits, is that of SHA-256 over the 32
bytes of digest n-1 and payload n; digest 0 is 32 zero bytes. Whoever reads a line thereby knows that it and all the
lines before it are the ones that were written. That nothing is missing at the end, the last payload has to say.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

START: Final = bytes(32)
"""Digest 0."""


class DamagedFileError(Exception):
    """The file is not one that this program wrote and nobody touched. The message holds none of its content."""


class ChainWriter:
    """Makes lines of values."""

    def __init__(self) -> None:
        self.digest = START
        """The digest of the last line."""

    def line(self, value: object) -> bytes:
        """Return the next line, which says ``value``."""
        payload = json.dumps(value, separators=(",", ":")).encode()
        self.digest = hashlib.sha256(self.digest + payload).digest()
        return payload + b"\t" + self.digest.hex().encode() + b"\n"


class ChainReader:
    """Makes values of lines."""

    def __init__(self) -> None:
        self.digest = START
        """The digest of the last line."""
        self.lines = 0
        """How many lines were read."""

    def read(self, line: bytes) -> object:
        """Return what the next line says. Raises DamagedFileError."""
        self.lines += 1
        payload, tab, rest = line.partition(b"\t")
        digest = hashlib.sha256(self.digest + payload).digest()
        if not tab or rest != digest.hex().encode() + b"\n":
            raise DamagedFileError(
                f"line {self.lines} is not as it was written: the file was cut or altered; use another copy"
            )
        self.digest = digest
        value = _parsed(payload)
        if value is None:
            raise DamagedFileError(f"line {self.lines} is not JSON; use another copy")
        return value


def _parsed(payload: bytes) -> object:
    try:
        value: object = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value
