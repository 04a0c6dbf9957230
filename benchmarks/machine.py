"""What the operating system tells of a process: memory, threads, sockets, children. Linux only; knows ``/proc``."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_RSS: Final = re.compile(r"^Rss:\s+(\d+) kB", re.MULTILINE)
_SPARE_FILES: Final = 256
"""Open files that a process needs besides its connections."""
_SETTLED: Final = 0.5
"""Seconds without growth after which memory counts as settled."""
_SETTLE_WITHIN: Final = 5.0


class SkippedError(Exception):
    """A benchmark cannot be run on this machine; the text says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds. ``memory`` is in bytes."""

    memory: int
    threads: int
    sockets: int

    def over(self, base: Usage) -> Usage:
        """Return the growth from ``base`` to this."""
        return Usage(self.memory - base.memory, self.threads - base.threads, self.sockets - base.sockets)


def need_linux() -> None:
    """Raise SkippedError where there is no ``/proc`` to measure with."""
    if sys.platform != "linux":
        raise SkippedError("memory and sockets are read from /proc, which only Linux has")


def allow_connections(count: int) -> None:
    """Raise the limit of open files so that this process and its children can hold ``count``, or raise SkippedError."""
    need_linux()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SkippedError(f"{count} connections need {wanted} open files, this system allows {hard}: ulimit -Hn")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def memory(pid: int) -> int:
    """Return the resident memory of process ``pid`` in bytes, exactly: VmRSS of ``status`` is off by many pages."""
    found = _RSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found is not None
    return int(found[1]) * 1024


def computed(pid: int) -> float:
    """Return the milliseconds that the threads of process ``pid`` have spent on a processor."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e6


def usage(pid: int) -> Usage:
    """Return what process ``pid`` holds now."""
    files = Path(f"/proc/{pid}/fd")
    sockets = sum(_target(each).startswith("socket:") for each in files.iterdir())
    return Usage(memory(pid), len(os.listdir(f"/proc/{pid}/task")), sockets)


def children(pid: int) -> set[int]:
    """Return the processes that process ``pid`` has started and that still live."""
    tasks = Path(f"/proc/{pid}/task")
    return {int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()}


def child_at(directory: Path) -> int:
    """Return the child of this process that has ``directory`` as its working directory, such as a service."""
    home = directory.resolve()
    (pid,) = (child for child in children(os.getpid()) if Path(_target(Path(f"/proc/{child}/cwd"))) == home)
    return pid


def settled(read: Callable[[], int]) -> int:
    """Return what ``read`` gives once it has stopped growing, or after a few seconds if it never does."""
    deadline = time.monotonic() + _SETTLE_WITHIN
    highest, since = read(), time.monotonic()
    while (now := time.monotonic()) < deadline and now - since < _SETTLED:
        time.sleep(_SETTLED / 10)
        if (latest := read()) > highest:
            highest, since = latest, now
    return read()


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        # Closed since the folder was listed.
        return ""
