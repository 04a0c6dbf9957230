"""An export on its way into a file or out of one: sealed where that is wanted, and known to be whole.

Knows the format of exports and the file that holds a key. Talks to no service.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from config_client.crypto import parse_encryption_key
from config_client.errors import ConfigClientError

from ..backup.chain import DamagedFileError
from ..exports.lines import Header, Item, read_header, read_items
from ..exports.sealed import SALT_SIZE, LineSealer
from .exits import CommandError, ExitCode


def read_key(path: Path) -> bytes:
    """Return the 32 bytes whose hex digits ``path`` holds. Raises CommandError, which shows nothing of them."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        told = f"cannot read {path}: {error.strerror}"
    else:
        try:
            return parse_encryption_key(text)
        except ConfigClientError:
            told = f"{path} holds no key of 64 hex characters; `config-service keygen` makes one"
    raise CommandError(told, ExitCode.USAGE)


class Written:
    """Writes the chunks of an export on, sealed under ``key`` unless that is None, and reads them on the way."""

    def __init__(self, write: Callable[[bytes], object], advance: Callable[[int], None], key: bytes | None) -> None:
        self._write = write
        self._advance = advance
        self._key = key
        self._header: Header | None = None
        self._sealer: LineSealer | None = None
        self._open: list[bytes] = []
        self._last = b""
        self._lines = 0
        self._bytes = 0

    def take(self, chunk: bytes) -> None:
        """Take the next chunk. Raises DamagedFileError when it is not one of an export."""
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._take_line(b"".join([*self._open, line, b"\n"]))
            self._open = []
        if rest:
            self._open.append(rest)

    def finish(self) -> dict[str, object]:
        """Return what the export is, now that all of it has come. Raises DamagedFileError when its end is missing."""
        end = b'{"end":{"lines":%d}}\n' % (self._lines - 1)
        if self._header is None or self._open or self._last != end:
            raise DamagedFileError("the export has no end: the answer was cut off; try again")
        return {
            "epoch": self._header.epoch,
            "revision": self._header.revision,
            "lines": self._lines,
            "bytes": self._bytes,
            "sealed": self._key is not None,
        }

    def _take_line(self, line: bytes) -> None:
        self._lines += 1
        self._last = line
        if self._header is None:
            self._header = read_header(line)
            if self._key is not None:
                salt = os.urandom(SALT_SIZE)
                line = replace(self._header, sealed=True, salt=salt.hex()).line()
                self._sealer = LineSealer(self._key, line, salt)
        elif self._sealer is not None:
            line = self._sealer.seal(line)
        self._write(line)
        self._bytes += len(line)
        self._advance(len(line))


def open_export(lines: Iterator[bytes], key: bytes | None) -> Iterator[Item]:
    """Yield what an export says, to its end. Raises DamagedFileError, or CommandError when it needs a key."""
    first = next(lines, b"")
    header = read_header(first)
    if header.sealed:
        if key is None:
            raise CommandError("the export is sealed: name the file of its key with --key-file", ExitCode.USAGE)
        lines = LineSealer(key, first, _salt(header)).open(lines)
    yield from read_items(lines, first)


def _salt(header: Header) -> bytes:
    try:
        salt = bytes.fromhex(header.salt)
    except ValueError:
        salt = b""
    if len(salt) != SALT_SIZE:
        raise DamagedFileError("the first line of the export cannot be read; use another copy")
    return salt
