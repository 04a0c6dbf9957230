"""Exclusive use of a file among processes. Knows nothing of what the file protects.

The lock belongs to an open file, so the kernel drops it when its holder ends, also by SIGKILL: no stale lock, nothing
to clean up. The file itself stays: deleting it would let two holders lock two different files of the same name.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform == "win32":  # pragma: no cover - one of the two branches runs on a machine
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            # flock rather than lockf: a POSIX lock would not keep out a second store in the same process.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FileLock:
    """An exclusive lock on ``path``, which is created with mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock without waiting. Returns False when somebody else holds it; raises OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        taken = False
        try:
            taken = _try_lock(descriptor)
        finally:
            if not taken:
                os.close(descriptor)
        if taken:
            self._descriptor = descriptor
        return taken

    def release(self) -> None:
        """Give the lock back. Releasing twice, or before acquiring, does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
