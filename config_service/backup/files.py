"""The file of a backup: a header, one line per record, and an end that says how much there was.

Knows the format and who may vouch for it. Knows no store, no file system and no HTTP. ``docs/OPERATIONS.md`` has the
format to the byte; the records are those of ``codec``, the lines those of ``chain``.

What is secret is in it as it is at rest: sealed. The digests tell damage to anybody; only the holder of the master key
can tell (by ``Vault.verify_backup``) that the file is one that a service of that key has made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from config_client.protocol import format_timestamp

from ..domain.records import LogEntry, Record
from .chain import ChainReader, ChainWriter, DamagedFileError
from .codec import RecordError, decode_record, encode_record

FORMAT: Final = "config-service backup"
VERSION: Final = 1
MEDIA_TYPE: Final = "application/vnd.config-service.backup"

Mac = Callable[[bytes], bytes]
"""Vouches for bytes under a key that only holders of the master key have."""
Verify = Callable[[bytes, bytes], bool]
"""Tells whether such a MAC, the second argument, is that of the first one."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line tells: the epoch of the store, and when the backup was begun."""

    epoch: str
    created_at: str


@dataclass(frozen=True, slots=True)
class End:
    """What the last line tells: how many records there are, and the revision at which they are whole."""

    records: int
    revision: int
    mac: str

    def signed(self, digest: bytes) -> bytes:
        """Return what the MAC is over; ``digest`` is that of the line before."""
        return digest + self.records.to_bytes(8, "big") + self.revision.to_bytes(8, "big")


async def write_lines(epoch: str, records: AsyncIterator[Record], now: datetime, mac: Mac) -> AsyncIterator[bytes]:
    """Yield the lines of a backup of ``records``. Raises what ``records`` raises; then the end is missing."""
    chain = ChainWriter()
    header = {"format": FORMAT, "version": VERSION, "epoch": epoch, "created_at": format_timestamp(now)}
    yield chain.line(header)
    count = revision = 0
    async for record in records:
        count += 1
        if isinstance(record, LogEntry):
            revision = max(revision, record.revision)
        yield chain.line(encode_record(record))
    end = End(count, revision, "")
    told = {"records": count, "revision": revision, "mac": mac(end.signed(chain.digest)).hex()}
    yield chain.line({"end": told})


class BackupReader:
    """Reads the lines of a backup one by one, and knows at the end whether it was all of it."""

    def __init__(self, verify: Verify | None = None) -> None:
        """Without ``verify`` only damage is noticed, not a file that somebody has made up."""
        self._chain = ChainReader()
        self._verify = verify
        self.header: Header | None = None
        self.end: End | None = None
        self.records = 0
        self.revision = 0

    def read(self, line: bytes) -> Record | None:
        """Return the record of the next line; None for the first and the last. Raises DamagedFileError."""
        if self.end is not None:
            raise DamagedFileError("something follows the end of the backup; use another copy")
        before = self._chain.digest
        value = self._chain.read(line)
        if self.header is None:
            self.header = _header(value)
        elif isinstance(value, dict) and "end" in value:
            self.end = self._checked_end(value["end"], before)
        else:
            return self._record(value)
        return None

    def finish(self) -> End:
        """Return what the last line told, after the last one was read. Raises DamagedFileError when there was none."""
        if self.end is None:
            raise DamagedFileError("the backup has no end: it was cut off; use another copy")
        return self.end

    def _record(self, value: object) -> Record:
        try:
            record = decode_record(value)
        except RecordError as error:
            told = str(error)
        else:
            self.records += 1
            if isinstance(record, LogEntry):
                self.revision = max(self.revision, record.revision)
            return record
        raise DamagedFileError(f"line {self._chain.lines}: {told}")

    def _checked_end(self, value: object, digest: bytes) -> End:
        match value:
            case {"records": int(records), "revision": int(revision), "mac": str(mac)}:
                end = End(records, revision, mac)
            case _:
                raise DamagedFileError("the end of the backup cannot be read; use another copy")
        if (end.records, end.revision) != (self.records, self.revision):
            raise DamagedFileError("the end of the backup counts other records than there are; use another copy")
        if self._verify is not None and not self._verify(end.signed(digest), _unhex(end.mac)):
            raise DamagedFileError(
                "the backup was not made under this master key, or somebody altered it; nothing was restored: set "
                "CONFIG_SERVER_MASTER_KEY (or one of CONFIG_SERVER_PREVIOUS_MASTER_KEYS) to the key that the service "
                "had when the backup was made, or use another copy"
            )
        return end


def read_records(lines: Iterable[bytes], reader: BackupReader) -> Iterator[Record]:
    """Yield the records of ``lines`` as ``reader`` reads them, to the end. Raises DamagedFileError."""
    for line in lines:
        record = reader.read(line)
        if record is not None:
            yield record
    reader.finish()


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _header(value: object) -> Header:
    match value:
        case {"format": "config-service backup", "version": 1, "epoch": str(epoch), "created_at": str(created_at)}:
            return Header(epoch, created_at)
        case {"format": "config-service backup", "version": int()}:
            raise DamagedFileError("the backup was made by a newer version of the service; restore it with that one")
        case _:
            raise DamagedFileError("this is no backup of a config service")
