"""All that is SQLite's own: the file and its lock, the settings of a connection, what its errors mean.

Knows neither tables nor records. Chosen for durability: write-ahead log, an fsync before every commit returns, one
process per file.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect
from sqlalchemy.exc import DBAPIError

from ..domain.errors import StoreCorruptError, StoreError, StoreFullError, StoreLockedError, StoreMissingError
from . import migrations
from .lock import FileLock

T = TypeVar("T")

URL_FORMS: Final = "sqlite:///relative/path.db or sqlite:////absolute/path.db"

_SCHEME: Final = "sqlite:///"
_MAGIC: Final = b"SQLite format 3\0"
"""The first bytes of every database file (SQLite, "Database File Format", section 1.3)."""
_OWN_TABLES: Final = frozenset({migrations.VERSION_TABLE, "history", "log", "versions", "tokens"})
_BUSY_TIMEOUT: Final = 1.0
"""Seconds to wait for a lock. Only another program on our file can hold one, and a backup of a page takes less."""
_WAL_LIMIT: Final = 64 * 2**20
"""Bytes to which the write-ahead log is cut once its content is in the file."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_FOREIGN: Final = "not an SQLite database, or its header is damaged; restore a backup, or give the service another path"
_DAMAGED: Final = "the file is damaged; restore it from a backup"
_FULL: Final = "no room to write: free some space on its disk, or raise the quota or file size limit"
_FAULTS: Final[dict[int, tuple[type[StoreError], str]]] = {
    sqlite3.SQLITE_FULL: (StoreFullError, _FULL),
    # What fails a write other than ENOSPC, which is SQLITE_FULL, is a quota, a file size limit, or a dying disk.
    sqlite3.SQLITE_IOERR_WRITE: (StoreFullError, f"{_FULL}; if there is enough of all, check the disk"),
    sqlite3.SQLITE_IOERR_SHMSIZE: (StoreFullError, _FULL),
    sqlite3.SQLITE_BUSY: (StoreLockedError, "another program holds a lock on the file; close it and try again"),
    sqlite3.SQLITE_LOCKED: (StoreLockedError, "another program holds a lock on the file; close it and try again"),
    sqlite3.SQLITE_CORRUPT: (StoreCorruptError, _DAMAGED),
    sqlite3.SQLITE_NOTADB: (StoreCorruptError, _FOREIGN),
    sqlite3.SQLITE_READONLY: (StoreError, "the file or its directory cannot be written; check owner and permissions"),
    sqlite3.SQLITE_CANTOPEN: (StoreError, "the file cannot be opened; check its directory, owner and permissions"),
    sqlite3.SQLITE_PERM: (StoreError, "the file cannot be opened; check owner and permissions"),
}


class SqliteFile:
    """One SQLite database in a file, and the exclusive right to use it. A ``Database``."""

    shared: Final = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: FileLock | None = None
        self._identity: tuple[int, int] | None = None
        """Device and number of the file that is open under the path."""

    @classmethod
    def from_url(cls, url: str) -> SqliteFile:
        """Return the file that ``url`` names.

        Raises StoreError, which does not repeat the URL: one that was meant for another database may hold a password.
        """
        path = url.removeprefix(_SCHEME)
        if path == url:
            raise StoreError(f"unsupported store URL; use {URL_FORMS}")
        if path in {"", ":memory:"} or path.startswith("file:"):
            raise StoreError(f"the store must be a file, to outlive the process; use {URL_FORMS}")
        if "?" in path or "\0" in path:
            raise StoreError(f"a store URL has no parameters; use {URL_FORMS}")
        # The real path: two names of one file must lead to one lock.
        return cls(Path(os.path.realpath(path)))

    @property
    def name(self) -> str:
        """The path."""
        return str(self._path)

    def acquire(self, *, create: bool = True) -> None:
        """Lock the file, and create it (0600) and its directory (0700) where missing.

        Raises StoreMissingError where it is missing and not to be created; StoreLockedError when another store holds
        it, else StoreError. A file of two names is refused: each has a lock and a write-ahead log of its own (SQLite,
        "How To Corrupt", section 2.5).
        """
        # A file of no bytes is what is left where a store was about to be made.
        if not create and not (self._path.exists() and (self._path.stat().st_size or not self._path.is_file())):
            raise StoreMissingError(f"{self._path}: there is no store; nothing was made")
        _make_directory(self._path.parent)
        lock = FileLock(self._path.with_name(f"{self._path.name}.lock"))
        if not lock.acquire():
            raise StoreLockedError(
                f"{self._path} is in use by another process; SQLite serves one process: stop the other one, "
                "or use PostgreSQL (postgresql://…), which serves any number"
            )
        self._lock = lock
        self._identity = _make_file(self._path)

    def release(self) -> None:
        """Give the lock back. Releasing twice, or before acquiring, does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def reading_engine(self, connections: int) -> Engine:
        """Return an engine on which every statement stands alone and sees the newest commit."""
        engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(self._path)),
            # No BEGIN of the driver's own: it leaves out SELECT and DDL.
            connect_args={"timeout": _BUSY_TIMEOUT, "isolation_level": None, "check_same_thread": False},
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,
        )
        event.listen(engine, "connect", _configure)
        return engine

    def writing_engine(self) -> Engine:
        """Return an engine of one connection on which every transaction is the only writer from its beginning."""
        engine = self.reading_engine(1)
        # Left to itself a transaction begins as a reader, and may fail when it turns into a writer.
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine

    def listener(self) -> None:
        """Return None: nobody else may write."""

    def query(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        """Return what ``work`` reads."""
        with engine.connect() as connection:
            return work(connection)

    def transact(self, engine: Engine, work: Callable[[Connection], T], *, again: bool = True) -> T:
        """Return what ``work`` returns once its transaction is durable. It runs once: a file loses no connection."""
        with engine.begin() as connection:
            result = work(connection)
            self._check_present()
            return result

    def _check_present(self) -> None:
        """Raise StoreError when the path does not lead to the file any more: what is written to it would be lost."""
        try:
            there = _identity_of(self._path.stat())
        except FileNotFoundError:
            there = None
        if self._identity not in {None, there}:
            raise StoreError(
                f"{self._path} was removed or replaced while the service runs; nothing was changed: put the same file "
                "back, or stop the service and restore a backup"
            )

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Give a connection whose transaction may rebuild tables, and commit it when every reference still holds.

        Raises StoreCorruptError when one does not.
        """
        engine = self.writing_engine()
        # While a table is rebuilt, what refers to it refers to nothing (SQLite, "ALTER TABLE", section 7).
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = OFF"))
        try:
            with engine.begin() as connection:
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise StoreCorruptError(f"{self._path}: {_DAMAGED}")
        finally:
            engine.dispose()

    def admit(self, connection: Connection) -> bool:
        """Tell whether the file holds a store (False: it is empty). Changes nothing.

        Raises StoreCorruptError when it is damaged or holds something else.
        """
        tables = set(inspect(connection).get_table_names())
        if not tables:
            return False
        if not tables >= _OWN_TABLES:
            raise StoreCorruptError(
                f"{self._path} is a database of another program; nothing was changed: give the service another path"
            )
        if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise StoreCorruptError(f"{self._path}: {_DAMAGED}")
        return True

    def prepare(self, connection: Connection) -> None:
        """Turn the write-ahead log on, for good. Raises StoreError where the file system cannot share memory."""
        if connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar() != "wal":
            raise StoreError(f"{self._path}: the file system allows no write-ahead log; put the store on a local disk")

    def failure(self, error: Exception) -> StoreError:
        """Return what ``error`` means to an operator, without its text: that may hold parts of a statement."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, sqlite3.Error):
            code = getattr(cause, "sqlite_errorcode", 0)
            kind, remedy = _FAULTS.get(code) or _FAULTS.get(code & 0xFF) or (StoreError, None)
            name = getattr(cause, "sqlite_errorname", type(cause).__name__)
            return kind(f"{self._path}: {remedy or 'SQLite failed'} ({name})")
        if isinstance(cause, OSError):
            kind = StoreFullError if cause.errno in _NO_ROOM else StoreError
            return kind(f"{self._path}: {os.strerror(cause.errno or 0)}; check the path, its owner and permissions")
        return StoreError(f"{self._path}: unexpected {type(cause).__name__} in the store")


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    for setting in (
        "synchronous = FULL",
        "fullfsync = ON",  # macOS: fsync alone leaves the data in the drive's cache
        "foreign_keys = ON",
        f"journal_size_limit = {_WAL_LIMIT}",
    ):
        connection.execute(f"PRAGMA {setting}")


def _make_directory(directory: Path) -> None:
    missing = [place for place in (directory, *directory.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        _keep_entry(place)


def _make_file(path: Path) -> tuple[int, int]:
    """Create ``path`` for its owner alone, and return which file it is.

    SQLite gives the log and the index beside it the same mode.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{path} is not a regular file; {URL_FORMS} must name one")
        if status.st_nlink > 1:
            raise StoreError(
                f"{path} has a second name (a hard link), under which another process could use it unseen; remove that "
                "one, or make it a copy"
            )
        if status.st_size:
            _check_header(path, os.read(descriptor, 18), status.st_size)
    finally:
        os.close(descriptor)
    _keep_entry(path)
    return _identity_of(status)


def _identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _check_header(path: Path, header: bytes, size: int) -> None:
    """Refuse what SQLite itself would take for an empty database, or for a whole one."""
    if header[:16] != _MAGIC:
        raise StoreCorruptError(f"{path}: {_FOREIGN}")
    page_size = int.from_bytes(header[16:18], "big")
    log = path.with_name(f"{path.name}-wal")
    # A page cut in two reads as if zeros followed. After a crash that is no damage: the log beside it has the page.
    if page_size >= 512 and size % page_size and not (log.exists() and log.stat().st_size):
        raise StoreCorruptError(f"{path}: {_DAMAGED}")


def _keep_entry(path: Path) -> None:
    """Make the name of ``path`` outlive a power cut. (Windows opens no directories, and needs no such care.)"""
    if os.name == "posix":
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
