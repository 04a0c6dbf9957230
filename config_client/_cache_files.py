"""A directory of small files that only this user can change: read whole, replaced whole, never through a link.

Knows files. Knows nothing of configs, keys or what the bytes mean; writes nothing but the bytes it is given.

A file is written beside its place under a name of its own, synced, and moved over it, so that a reader, another
process and a crash at any moment find the old bytes or the new ones. The directory itself is not synced after that:
what a power failure can undo is the move, which leaves the old bytes. Every operation opens the directory anew and
works relative to it, so that nobody can slip another one in between the check and the use.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

if sys.platform != "win32":
    import fcntl

MAX_FILE_BYTES: Final = 80 * 1024 * 1024
"""Bytes; above the largest document that is ever fetched. A larger file is none of ours and is not read."""
MAX_WRITING_SECONDS: Final = 300.0
"""A temporary file that is older was left behind by a writer that died."""
MAX_TURN_SECONDS: Final = 0.1
"""How long a writer waits for another one, which takes microseconds unless it was stopped or its disk hangs."""
MAX_KEPT_SECONDS: Final = 366 * 86_400.0
"""A file that nobody has written for longer is past every maximum age that options allow."""

_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{16}\.tmp")
_FILE: Final = re.compile(r"[0-9a-f]{64}")

# Not every platform has each of them, and where one is missing there is nothing for it to guard against.
_FLAGS: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
# A pipe in place of a file must not block whoever opens it.
_READ: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS
_HAS_DIRECTORY_HANDLES: Final = {os.open, os.stat, os.unlink} <= os.supports_dir_fd


class UnsafeDirectoryError(OSError):
    """A directory that somebody else could change, or that nobody named. Its text is a reason, without a path."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was read. ``mark`` tells it from another one of its name; ``data`` is empty for what is no file."""

    data: bytes
    mark: tuple[int, ...]


class Folder:
    """An open directory; files in it are named by 64 hex characters. To be had from ``open_folder``."""

    __slots__ = ("_handle", "_path")

    def __init__(self, path: str, handle: int | None) -> None:
        self._path = path
        self._handle = handle

    def read(self, name: str) -> Found | None:
        """Return the file, or None when there is none. Raises OSError."""
        try:
            descriptor = os.open(self._at(name), _READ, dir_fd=self._handle)
        except FileNotFoundError:
            return None
        except OSError:
            status = os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                raise
            return Found(b"", _mark(status))
        try:
            status = os.fstat(descriptor)
            is_file = stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE_BYTES
            return Found(_read_all(descriptor, status.st_size) if is_file else b"", _mark(status))
        finally:
            os.close(descriptor)

    def replace(self, name: str, data: bytes, *, keep: Callable[[Found], bool]) -> None:
        """Put ``data`` in the place of the file, unless ``keep`` says of the one that is there to keep it.

        No other process, and no other thread, replaces the file between that question and the move. Raises OSError.
        """
        if len(data) > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        temporary = f".{name}.{os.urandom(8).hex()}.tmp"
        descriptor = os.open(self._at(temporary), _CREATE, 0o600, dir_fd=self._handle)
        try:
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with self._turn():
                there = self._readable(name)
                if there is None or not keep(there):
                    os.replace(self._at(temporary), self._at(name), src_dir_fd=self._handle, dst_dir_fd=self._handle)
                    return
            os.unlink(self._at(temporary), dir_fd=self._handle)
        except BaseException:
            with suppress(OSError):
                os.unlink(self._at(temporary), dir_fd=self._handle)
            raise

    def discard(self, name: str, found: Found) -> None:
        """Remove the file if it is still the one that was ``found``. Raises OSError."""
        with self._turn(), suppress(FileNotFoundError):
            if _mark(os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)) == found.mark:
                os.unlink(self._at(name), dir_fd=self._handle)

    def remove(self, name: str) -> None:
        """Remove the file, for good: a power failure does not bring it back. Raises OSError."""
        try:
            os.unlink(self._at(name), dir_fd=self._handle)
        except FileNotFoundError:
            return
        if self._handle is not None:
            os.fsync(self._handle)

    def sweep(self) -> None:
        """Remove what writers that died have left, and files that are past every age. Raises OSError."""
        now = time.time()
        for name in os.listdir(self._path if self._handle is None else self._handle):
            patience = MAX_WRITING_SECONDS if _TEMPORARY.fullmatch(name) else MAX_KEPT_SECONDS
            if _TEMPORARY.fullmatch(name) or _FILE.fullmatch(name):
                with suppress(FileNotFoundError):
                    status = os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)
                    if status.st_mtime < now - patience:
                        os.unlink(self._at(name), dir_fd=self._handle)

    def _readable(self, name: str) -> Found | None:
        try:
            return self.read(name)
        except OSError:
            return None

    def _at(self, name: str) -> str:
        return os.path.join(self._path, name) if self._handle is None else name

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the directory's lock, which ends with this handle however the process ends.

        Where there is no such lock (Windows, some network file systems), or whoever holds it hangs, writing goes on
        without: then two processes that write the same file in the same instant may leave the older of two values.
        """
        if sys.platform != "win32" and self._handle is not None:
            deadline = time.monotonic() + MAX_TURN_SECONDS
            while True:
                try:
                    fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() < deadline:
                        time.sleep(0.001)
                        continue
                except OSError:
                    pass
                break
        try:
            yield
        finally:
            if sys.platform != "win32" and self._handle is not None:
                with suppress(OSError):
                    fcntl.flock(self._handle, fcntl.LOCK_UN)


@contextmanager
def open_folder(path: str, *, create: bool) -> Iterator[Folder]:
    """Open the directory; with ``create``, make it for this user alone when it is missing.

    Raises UnsafeDirectoryError when somebody else could change it, FileNotFoundError when it is missing, or OSError.
    """
    if create:
        os.makedirs(path, 0o700, exist_ok=True)
    if not _HAS_DIRECTORY_HANDLES:
        _check(os.stat(path))
        yield Folder(path, None)
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(os.fstat(handle))
        yield Folder(path, handle)
    finally:
        os.close(handle)


def _check(status: os.stat_result) -> None:
    """Refuse a directory in which others could put an older file back, or remove one."""
    if sys.platform == "win32":
        return  # its modes say nothing of who may write
    if status.st_uid != os.geteuid():
        raise UnsafeDirectoryError("it belongs to another user; name a directory inside it, which is then made")
    if status.st_mode & stat.S_IWOTH:
        raise UnsafeDirectoryError("everybody may write to it; name a directory inside it, which is then made")


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _read_all(descriptor: int, size: int) -> bytes:
    """Return the file's bytes; ``size`` of them, unless somebody changes it meanwhile, who then has spoiled it."""
    pieces: list[bytes] = []
    while piece := os.read(descriptor, size + 1):
        pieces.append(piece)
        if sum(map(len, pieces)) > size:
            break
    return b"".join(pieces)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
