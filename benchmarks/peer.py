"""``python-config-client`` 0.1.2 from the package index as the peer, in a virtual environment of its own.

It shares our import name, so it is only ever driven as a child process. Knows virtual environments and ``watcher.py``.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from config_service.process import Credentials

from .machine import SkippedError, Usage, usage
from .subscribers import ROOT
from .watcher import Job

VERSION: Final = "0.1.2"
REQUIREMENTS: Final = ROOT / "requirements" / "peer.txt"
HOME: Final = ROOT / ".cache" / f"peer-{VERSION}"
WATCHES_PER_CLIENT: Final = 67
"""Of the peer: a pool of httpx has 100 connections, every watch holds one, and every change needs one more."""
_INSTALL_SECONDS: Final = 300
_ANSWER_SECONDS: Final = 60.0


class WatcherError(RuntimeError):
    """A watching process did not do what it was told; the text has the end of what it wrote to stderr."""


class Swap(NamedTuple):
    """A value took its place: which watch, the ``number`` in the value, when (nanoseconds of the monotonic clock)."""

    watch: int
    number: int
    moment: int


def peer_python() -> Path:
    """Return the interpreter of the peer's environment, which is made when it is not there or its pins have changed.

    Raises SkippedError when it cannot be installed.
    """
    python, stamp = HOME / "bin" / "python", HOME / "requirements.txt"
    if stamp.exists() and stamp.read_bytes() == REQUIREMENTS.read_bytes():
        return python
    venv.create(HOME, clear=True, with_pip=True)
    # Wheels only: building a package from source would fetch a build backend that no hash covers.
    install = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--retries", "2"]
    pinned = ["--require-hashes", "--only-binary", ":all:", "--requirement", str(REQUIREMENTS)]
    try:
        subprocess.run([*install, *pinned], check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        told = error.stderr or ""
        lines = (told if isinstance(told, str) else told.decode(errors="replace")).strip().splitlines()
        reason = next((line for line in lines if line.startswith("ERROR")), type(error).__name__)
        raise SkippedError(f"python-config-client {VERSION} could not be installed: {reason}") from None
    shutil.copy(REQUIREMENTS, stamp)
    return python


class Watcher:
    """A process that watches ``names``, idle until it is told to ``watch``. ``python`` decides with which library."""

    def __init__(
        self, python: Path, host: str, access: Credentials, names: Sequence[str], *, ours: bool, watches_per_client: int
    ) -> None:
        # What our library keeps on disk by default has no place in the cache of who runs this.
        self._cache = tempfile.TemporaryDirectory()
        self._child = subprocess.Popen(
            # Isolated: neither this folder nor any variable may lead it to another library than its own.
            [str(python), "-I", str(Path(__file__).with_name("watcher.py"))],
            cwd=ROOT,
            env={**os.environ, "XDG_CACHE_HOME": self._cache.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._swaps: queue.SimpleQueue[Swap | str | None] = queue.SimpleQueue()
        self._said: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_answers, self._read_errors)]
        for reader in self._readers:
            reader.start()
        job = Job(ours, host, access.token, access.key, list(names), watches_per_client)
        try:
            self._tell(json.dumps(job))
            self._wait_for("idle")
        except BaseException:
            self.close()
            raise
        self.idle: Final = self.usage()
        """What the process held before it watched."""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def usage(self) -> Usage:
        """Return what the process holds now."""
        return usage(self.pid)

    def watch(self) -> None:
        """Begin to watch; with our library the first values are there when this returns."""
        self._tell("watch")
        self._wait_for("watching")

    def next_swap(self, timeout: float = _ANSWER_SECONDS) -> Swap | None:
        """Return the next swap that was not returned yet, or None after ``timeout`` seconds without one."""
        try:
            swap = self._swaps.get(timeout=timeout)
        except queue.Empty:
            return None
        if not isinstance(swap, Swap):
            raise WatcherError(f"a watching process said {swap!r}: {self._complaint()}")
        return swap

    def wait_for(self, index: int, number: int) -> Swap:
        """Return the swap of watch ``index`` to ``number``; others before it are dropped. Raises WatcherError."""
        while (swap := self.next_swap()) is not None:
            if (swap.watch, swap.number) == (index, number):
                return swap
        raise WatcherError(f"watch {index} has not got {number}: {self._complaint()}")

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert stream is not None
            stream.close()
        self._cache.cleanup()

    def _tell(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise WatcherError(f"a watching process ended: {self._complaint()}") from None

    def _wait_for(self, word: str) -> None:
        """Wait for ``word``; swaps that come before it are dropped."""
        while isinstance(said := self._swaps.get(timeout=_ANSWER_SECONDS), Swap):
            pass
        if said != word:
            raise WatcherError(f"a watching process said {said!r} instead of {word!r}: {self._complaint()}")

    def _read_answers(self) -> None:
        for line in self._lines(self._child.stdout):
            parts = line.split()
            self._swaps.put(Swap(*map(int, parts)) if len(parts) == 3 else line.strip())
        self._swaps.put(None)

    def _read_errors(self) -> None:
        for line in self._lines(self._child.stderr):
            self._said.append(line)

    def _complaint(self) -> str:
        return "".join(self._said[-5:]).strip() or "nothing on stderr"

    @staticmethod
    def _lines(stream: Iterable[str] | None) -> Iterable[str]:
        assert stream is not None
        return stream


def our_watcher(host: str, access: Credentials, names: Sequence[str], watches_per_client: int = 10_000) -> Watcher:
    """Return a process that watches ``names`` with our library: by default one client for all."""
    return Watcher(Path(sys.executable), host, access, names, ours=True, watches_per_client=watches_per_client)


def peer_watcher(host: str, access: Credentials, names: Sequence[str]) -> Watcher:
    """Return a process that watches ``names`` with the peer, as many clients as it needs. Raises SkippedError."""
    return Watcher(peer_python(), host, access, names, ours=False, watches_per_client=WATCHES_PER_CLIENT)
