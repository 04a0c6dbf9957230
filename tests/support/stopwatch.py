"""Measures what a call takes, less the time in which the machine stood still.

A virtual machine whose host is busy is stopped for a second and more, whatever runs on it. A call that was under way
then is not slow. A process that does nothing but look at the clock tells when that was: a gap between two of its looks.
It is another process so that a thread which holds the interpreter's lock counts as what it is, slow.
"""

from __future__ import annotations

import atexit
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

_GAP = 0.03
"""Seconds between two looks from which on the machine stood still."""
_RECORD = struct.Struct("=dQ4096d")
"""The last look, the number of gaps so far, and the latest gaps: their beginnings and ends."""
_GAPS = 2048
_WATCH = f"""
import mmap, os, struct, sys, time
last, count = time.monotonic(), 0
with open(sys.argv[1], "r+b") as file:
    shared = mmap.mmap(file.fileno(), 0)
while os.getppid() == int(sys.argv[2]):
    time.sleep(0.005)
    now = time.monotonic()
    if now - last > {_GAP}:
        struct.pack_into("=dd", shared, 16 + count % {_GAPS} * 16, last, now)
        count += 1
        struct.pack_into("=Q", shared, 8, count)
    struct.pack_into("=d", shared, 0, now)
    last = now
"""


@dataclass
class Elapsed:
    """Seconds that a block took while the machine ran; set when the block is left."""

    seconds: float = 0.0


@contextmanager
def stopwatch() -> Iterator[Elapsed]:
    """Measure the block."""
    shared, elapsed = _watcher(), Elapsed()
    began = time.monotonic()
    try:
        yield elapsed
    finally:
        ended = time.monotonic()
        while _RECORD.unpack_from(shared)[0] < ended:
            time.sleep(0.001)
        _, count, *gaps = _RECORD.unpack_from(shared)
        known = list(zip(gaps[::2], gaps[1::2], strict=True))[: min(count, _GAPS)]
        still = sum(max(0.0, min(ended, end) - max(began, start)) for start, end in known)
        elapsed.seconds = ended - began - still


@cache
def _watcher() -> mmap.mmap:
    """Start the process that looks at the clock, for as long as this one lives; return what it writes."""
    descriptor, path = tempfile.mkstemp()
    os.ftruncate(descriptor, _RECORD.size)
    shared = mmap.mmap(descriptor, _RECORD.size)
    os.close(descriptor)
    child = subprocess.Popen([sys.executable, "-S", "-E", "-c", _WATCH, path, str(os.getpid())])
    while not _RECORD.unpack_from(shared)[0]:
        time.sleep(0.001)
    os.unlink(path)

    def end(owner: int = os.getpid()) -> None:
        if os.getpid() == owner:
            child.kill()
            child.wait()

    atexit.register(end)
    return shared
