"""A journal in one directory of plain files, used by one process at a time.

    store.json                          which history is the present one
    lock                                who uses the store holds a lock on it
    growing/                            files on their way; emptied whenever the store is opened
    EPOCH/log/0000000001.json           the record that begins with revision 1, and so on
    EPOCH/check.json                    the check value of the master key
    EPOCH/drafts/orders_prod_main_….json   the draft of a config, by its name and a digest of its key

A commit is one new file: it grows elsewhere, is synced, and gets its name by a hard link, which fails where the name is
taken. What a crash leaves is a file without its name, or one whole. A restored store is another EPOCH beside the first,
and becomes the present one when ``store.json`` is replaced.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from ...domain.epochs import later_epoch
from ...domain.errors import StoreCorruptError, StoreError, StoreFullError, StoreLockedError, StoreMissingError
from ..lock import FileLock
from .directory import make_directory, read_fields, remove, replace, spell, write_new
from .fields import Fields
from .protocol import Cell, Growing
from .record import MALFORMED, Record, damaged, read_record, record_fields

URL_FORMS: Final = "file:///absolute/directory or file:relative/directory"

_FORMAT: Final = 1
_STORE: Final = "store.json"
_RECORD: Final = re.compile(r"([0-9]{10})\.json")
_EPOCH: Final = re.compile(r"[0-9a-f]{24}")
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})


class FilesJournal:
    """The journal in ``directory``, which is made when it is missing."""

    shared: Final = False

    def __init__(self, directory: Path, *, create: bool = True) -> None:
        self._path = directory
        self._may_create = create
        self._lock: FileLock | None = None
        self._history = _History(directory, directory)

    @classmethod
    def from_url(cls, url: str, *, create: bool = True) -> FilesJournal:
        """Return the journal in the directory that ``url`` names (RFC 8089, and a relative form).

        Without ``create`` it is opened only where there is one.
        Raises StoreError, which does not repeat the URL.
        """
        scheme, _, rest = url.partition(":")
        path = unquote(rest.removeprefix("//") if rest.startswith("///") else rest)
        if scheme != "file" or rest.strip("/") == "" or path.startswith("//") or "?" in rest or "\0" in path:
            raise StoreError(f"unsupported URL of a store in plain files; use {URL_FORMS}")
        # The real path: two names of one directory must lead to one lock.
        return cls(Path(os.path.realpath(path)), create=create)

    def open(self) -> str:
        """Lock the directory and return the epoch of the store in it, which is made when the directory is empty.

        Raises StoreMissingError when there is none, and none is to be made; StoreLockedError when another store holds
        it; StoreCorruptError for a directory of something else, or a
        file among the records that is none; StoreError.
        """
        store = self._path / _STORE
        if not self._may_create and not store.exists():
            if self._path.is_dir():
                self._refuse_others("", f"{store} is missing")
            raise StoreMissingError(f"{self._path}: there is no store; nothing was made")
        make_directory(self._path)
        if not store.exists():
            others = [name for name in os.listdir(self._path) if name not in {"lock", "growing", "lost+found"}]
            if not all(map(_EPOCH.fullmatch, others)):
                raise StoreCorruptError(
                    f"{self._path} holds other things than a store; nothing was changed: give the service a "
                    "directory of its own"
                )
        self._acquire()
        growing = self._path / "growing"
        shutil.rmtree(growing, ignore_errors=True)
        make_directory(growing)
        epoch = self._present(store) if store.exists() else self._create(store)
        self._history = _History(self._path / epoch, growing)
        self._history.open()
        if self._history.newest:
            self._refuse_others(epoch, f"{store} does not name it")
        self._remove_others(epoch)
        return epoch

    def close(self) -> None:
        """Give the lock back. Closing twice, or before opening, is allowed."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def scan(self, after: int, *, documents: bool = False) -> Iterator[Record]:
        """Yield the records that begin above revision ``after``, whole. Raises StoreCorruptError, naming a file."""
        return self._history.scan(after)

    def read(self, numbers: Sequence[int]) -> list[Record]:
        """Return the records of these numbers. Raises StoreCorruptError, which names a file."""
        return [self._history.record(number) for number in numbers]

    def append(self, record: Record) -> bool:
        """Make ``record`` durable; see ``Growing``."""
        return self._history.append(record)

    def cell(self, name: str) -> Cell | None:
        """Return the cell of this name, or None."""
        return self._history.cell(name)

    def cells(self, prefix: str) -> Iterator[Cell]:
        """Yield the cells in the directory ``prefix``, in no order."""
        return self._history.cells(prefix)

    def swap(self, name: str, before: bytes | None, after: Cell | None) -> bool:
        """Change a cell durably; see ``Growing``."""
        return self._history.swap(name, before, after)

    def amend(self, record: Record) -> bool:
        """Put ``record`` in the place of the one of its number; see ``Journal``."""
        self._history.amend(record)
        return True

    def restore(self, epoch: str, fill: Callable[[Growing], None]) -> bool:
        """Become the journal that ``fill`` makes of an empty one of ``epoch``; see ``Journal``."""
        if self._history.newest:
            return False
        growing = self._path / "growing"
        restored = _History(self._path / epoch, growing)
        try:
            restored.make()
            fill(restored)
            replace(self._path / _STORE, spell(_store_fields(epoch)), growing)
        except BaseException:
            self._take_back(epoch, growing)
            raise
        self._history = restored
        self._remove_others(epoch)
        return True

    def failure(self, error: Exception) -> StoreError:
        """Return what ``error`` means to an operator, without its text."""
        if isinstance(error, OSError):
            reason = os.strerror(error.errno or 0)
            if error.errno in _NO_ROOM:
                return StoreFullError(
                    f"{self._path}: no room to write ({reason}): free some space or inodes on its disk, or raise the "
                    "quota or file size limit"
                )
            if error.errno in _NO_LINKS:
                return StoreError(
                    f"{self._path}: {reason}; check its owner and permissions, and that it is on a local disk whose "
                    "file system knows hard links"
                )
            return StoreError(f"{self._path}: {reason}; check the path, its owner and permissions")
        return StoreError(f"{self._path}: unexpected {type(error).__name__} in the store")

    def _acquire(self) -> None:
        lock = FileLock(self._path / "lock")
        if not lock.acquire():
            raise StoreLockedError(
                f"{self._path} is in use by another process; plain files serve one process: stop the other one, or use "
                "PostgreSQL (postgresql://…), which serves any number"
            )
        self._lock = lock

    def _create(self, store: Path) -> str:
        self._refuse_others("", f"{store} is missing")
        epoch = later_epoch(datetime.now(timezone.utc))
        # Its directories first: whatever ``store.json`` names was there, and is missed when it is gone.
        _History(self._path / epoch, self._path / "growing").make()
        write_new(store, spell(_store_fields(epoch)), self._path / "growing")
        return epoch

    def _present(self, store: Path) -> str:
        fields = Fields(read_fields(store))
        try:
            epoch, version = fields.text("epoch"), fields.number("format")
        except MALFORMED:
            raise damaged(str(store)) from None
        if version != _FORMAT:
            raise StoreError(f"{store} was written by a newer version of the service; upgrade this one")
        if not _EPOCH.fullmatch(epoch):
            raise damaged(str(store))
        return epoch

    def _take_back(self, epoch: str, growing: Path) -> None:
        """See that a restore which failed, at whatever step, has not happened."""
        store = self._path / _STORE
        with suppress(OSError):
            if self._present(store) == epoch:
                replace(store, spell(_store_fields(self._history.epoch)), growing)
            shutil.rmtree(self._path / epoch, ignore_errors=True)

    def _others(self, epoch: str) -> list[Path]:
        return [place for place in self._path.iterdir() if _EPOCH.fullmatch(place.name) and place.name != epoch]

    def _refuse_others(self, epoch: str, fault: str) -> None:
        """Raise StoreCorruptError when another history than that of ``epoch`` has a record: it may have been served."""
        for place in self._others(epoch):
            if (place / "log").is_dir() and os.listdir(place / "log"):
                raise StoreCorruptError(
                    f"{place} holds a history, and {fault}; nothing was changed: put back the {_STORE} that belongs to "
                    "it, or move it away"
                )

    def _remove_others(self, epoch: str) -> None:
        """Remove the histories that never became, or no longer are, the present one.

        A store is restored only where nothing was ever changed: what a killed restore has left stands beside a history
        without a record, and what a restore has replaced is one.
        """
        for place in self._others(epoch):
            shutil.rmtree(place, ignore_errors=True)


class _History:
    """The records and cells of one epoch, in ``directory``. ``growing``: where files grow before they have a name."""

    def __init__(self, directory: Path, growing: Path) -> None:
        self._directory = directory
        self.epoch = directory.name
        self._log = directory / "log"
        self._growing = growing
        self.newest = 0
        """The number of the newest record; 0: there is none."""
        self._unseen: set[int] = set()

    def make(self) -> None:
        """Make its directories."""
        for place in (self._log, self._directory / "drafts"):
            make_directory(place)

    def open(self) -> None:
        """Look at the names of the records. Raises StoreCorruptError for one that is none, and when all are missing."""
        if not self._log.exists():
            raise StoreCorruptError(f"{self._log} is missing; put it back, or restore a backup into a new directory")
        self.make()
        for name in os.listdir(self._log):
            match = _RECORD.fullmatch(name)
            if match is None or int(match[1]) == 0:
                raise StoreCorruptError(
                    f"{self._log / name} is not a file of this service; take it away, and start again"
                )
            self._unseen.add(int(match[1]))
        self.newest = max(self._unseen, default=0)

    def scan(self, after: int) -> Iterator[Record]:
        number = after + 1
        while number <= self.newest:
            record = self.record(number)
            self._unseen.discard(number)
            yield record
            number = record.last + 1
        if after == 0 and self._unseen:
            raise StoreCorruptError(
                f"{self._record_path(min(self._unseen))} does not belong there: another record holds its revision; "
                "restore a backup"
            )

    def record(self, number: int) -> Record:
        path = self._record_path(number)
        try:
            return read_record(read_fields(path), number)
        except FileNotFoundError:
            pass
        except StoreCorruptError as error:
            failure = error if str(path) in str(error) else damaged(str(path))
            raise failure from None
        raise StoreCorruptError(f"{path} is missing; put it back, or restore a backup")

    def append(self, record: Record) -> bool:
        path = self._record_path(record.number)
        if not write_new(path, spell(record_fields(record)), self._growing):
            return False
        self.newest = record.number
        return True

    def amend(self, record: Record) -> None:
        replace(self._record_path(record.number), spell(record_fields(record)), self._growing)

    def cell(self, name: str) -> Cell | None:
        try:
            return _read_cell(self._cell_path(name))
        except FileNotFoundError:
            return None

    def cells(self, prefix: str) -> Iterator[Cell]:
        for path in (self._directory / prefix).iterdir():
            # One may be gone since the names were listed.
            with suppress(FileNotFoundError):
                yield _read_cell(path)

    def swap(self, name: str, before: bytes | None, after: Cell | None) -> bool:
        path = self._cell_path(name)
        there = self.cell(name)
        if (None if there is None else there.value) != before:
            return False
        if after is None:
            remove(path)
            return True
        data = spell({**after.fields, "value": after.value})
        if before is None:
            return write_new(path, data, self._growing)
        replace(path, data, self._growing)
        return True

    def _record_path(self, number: int) -> Path:
        return self._log / f"{number:010}.json"

    def _cell_path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _read_cell(path: Path) -> Cell:
    fields = read_fields(path)
    try:
        value = Fields(fields).binary("value")
    except MALFORMED:
        raise damaged(str(path)) from None
    return Cell(value, {name: kept for name, kept in fields.items() if name not in {"value", "sha256"}})


def _store_fields(epoch: str) -> Mapping[str, object]:
    return {"format": _FORMAT, "epoch": epoch, "what": "a store of python-config-client, in plain files"}
