"""A backup on its way into a file: checked as it comes, so that what is kept is known to be whole.

Knows the format of backups. Knows neither where the bytes come from nor where they go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..backup.files import BackupReader


class Checked:
    """Writes chunks of a backup on, and reads their lines."""

    def __init__(self, write: Callable[[bytes], object], advance: Callable[[int], None]) -> None:
        self._write = write
        self._advance = advance
        self._reader = BackupReader()
        self._open: list[bytes] = []
        self._bytes = 0

    def take(self, chunk: bytes) -> None:
        """Take the next chunk. Raises DamagedFileError when it is not one of a backup."""
        self._write(chunk)
        self._advance(len(chunk))
        self._bytes += len(chunk)
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            self._reader.read(b"".join([*self._open, line, b"\n"]))
            self._open = []
        if rest:
            self._open.append(rest)

    def finish(self) -> Mapping[str, object]:
        """Return what the backup is, now that all of it has come. Raises DamagedFileError when it is not whole."""
        if self._open:
            self._reader.read(b"".join(self._open))
        return described(self._reader) | {"bytes": self._bytes}


def described(reader: BackupReader) -> dict[str, object]:
    """Return what ``reader`` has read, to be printed. Raises DamagedFileError when the end is missing."""
    end = reader.finish()
    header = reader.header
    return {
        "epoch": header.epoch if header else "",
        "created_at": header.created_at if header else "",
        "revision": end.revision,
        "records": end.records,
    }
