"""Files that are there whole or not at all, for their owner alone.

Knows the file system. Knows nothing of what is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .exits import CommandError, ExitCode


@contextmanager
def written_whole(file: str, *, overwrite: bool = False) -> Iterator[Callable[[bytes], object]]:
    """Give a function that writes to ``file``, which appears (mode 0600) when the block ends without an error.

    ``-`` is standard output. Raises CommandError when the file is there already, unless ``overwrite``, and when it
    cannot be written; then nothing is left behind.
    """
    if file == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    if not overwrite and path.exists():
        raise CommandError(f"{file} is there already; give another name, or add --overwrite", ExitCode.CONFLICT)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with _created(partial) as stream:
            yield stream.write
            stream.flush()
            os.fsync(stream.fileno())
        _move(partial, path, overwrite=overwrite)
    except OSError as error:
        reason = error.strerror or "it failed"
    else:
        return
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    raise CommandError(f"cannot write {file}: {reason}; nothing was kept", ExitCode.USAGE)


@contextmanager
def read_lines(file: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
    """Give the lines of ``file`` (``-``: standard input) and how many bytes they are, where that is known.

    Raises CommandError when it cannot be read.
    """
    try:
        if file == "-":
            yield iter(sys.stdin.buffer), None
            return
        with Path(file).open("rb") as stream:
            yield iter(stream), os.fstat(stream.fileno()).st_size
            return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
    raise CommandError(f"cannot read {file}: {reason}", ExitCode.USAGE)


def _created(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _move(partial: Path, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(partial, path)
    else:
        # Unlike a rename, a link never takes the place of a file that came in between.
        os.link(partial, path)
    if os.name == "posix":
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
