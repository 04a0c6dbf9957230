"""A crowd of subscribers to an event stream, in a process of its own: raw sockets and epoll, nothing else.

Knows sockets and one marker to look for; treats every server alike. A lean reader matters here: on a machine of few
cores what a subscriber spends on an event is missing to the server that is measured.

    python -m benchmarks.subscribers     (the child: a job as JSON on stdin, then one marker per line)
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
TIMEOUT: Final = 60.0
"""Seconds for all subscribers to be connected, or to have an event."""
_AT_A_TIME: Final = 200
"""Connections made before waiting for their streams to begin: fewer than the smallest backlog, nginx's 511."""
_BUFFER: Final = 65536


class CrowdError(RuntimeError):
    """Not every subscriber got what it should."""


class Job(NamedTuple):
    """What the child is told first. ``requests``: one for all, or one each; ``ready``: what a stream begins with."""

    host: str
    port: int
    requests: list[str]
    subscribers: int
    ready: str


@dataclass(frozen=True, slots=True)
class Reception:
    """When an event was there, whole: moments in nanoseconds of the monotonic clock, which processes share.

    ``busy``: the part of the time that the crowd's process was computing; near 1, it was measured itself. ``sample``:
    the event as one subscriber got it.
    """

    first: int
    middle: int
    last: int
    busy: float
    sample: str


class Crowd:
    """``count`` subscribers, connected when this is made. ``requests`` holds one request for all, or one each."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes], count: int, ready: bytes) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.subscribers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        job = Job(host, port, [each.decode() for each in requests], count, ready.decode())
        try:
            self._tell(json.dumps(job))
            self._hear("ready")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def expect(self, marker: str) -> None:
        """Wait for the event that holds ``marker``; when this returns, it may be published."""
        self._tell(marker)
        self._hear("armed")

    def reception(self) -> Reception:
        """Return when the expected event was received. Raises CrowdError when somebody has not got it."""
        return Reception(**json.loads(self._hear("{")))

    def close(self) -> None:
        """End the child, and with it every connection."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.terminate()
        self._child.wait()
        self._child.stdin.close()
        self._child.stdout.close()

    def _tell(self, line: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise CrowdError("the subscribers' process ended") from None

    def _hear(self, begin: str) -> str:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line.startswith(begin):
            raise CrowdError(line.strip() or "the subscribers' process ended")
        return line


def _connect(job: Job) -> dict[int, socket.socket]:
    """Return the sockets by number, each with its stream begun."""
    sockets: dict[int, socket.socket] = {}
    ready = job.ready.encode()
    for start in range(0, job.subscribers, _AT_A_TIME):
        begun = []
        for number in range(start, min(start + _AT_A_TIME, job.subscribers)):
            connection = socket.create_connection((job.host, job.port), TIMEOUT)
            connection.sendall(job.requests[number % len(job.requests)].encode())
            sockets[connection.fileno()] = connection
            begun.append(connection)
        for connection in begun:
            received = b""
            while ready not in received:
                data = connection.recv(_BUFFER)
                received += data
                if not data or (b"\r\n" in received and received[9:12] != b"200"):
                    raise CrowdError(f"no stream for one of {len(sockets)} subscribers: {received[:200]!r}")
    for connection in sockets.values():
        connection.setblocking(False)
    return sockets


def _receive(epoll: select.epoll, numbers: Sequence[int], marker: bytes) -> Reception:
    """Wait until every socket has given the event that holds ``marker``, to its end."""
    waiting = set(numbers)
    partial: dict[int, bytes] = {}
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    middle_at, deadline = len(waiting) // 2, time.monotonic() + TIMEOUT
    first = middle = 0
    sample = b""
    began, computed = time.monotonic_ns(), time.process_time_ns()
    while waiting:
        ready = epoll.poll(1.0, len(numbers))
        for number, _ in ready:
            length = os.readv(number, (buffer,))
            data = bytes(view[:length])
            if number in partial:
                data = partial.pop(number) + data
            at = data.find(marker)
            if at >= 0 and data.find(b"\n\n", at) >= 0:
                waiting.discard(number)
                if not first:
                    # The wait for the publisher is no work of the server's or of this process.
                    first = began = time.monotonic_ns()
                    sample = data
                if not middle and len(waiting) <= middle_at:
                    middle = time.monotonic_ns()
            elif not length:
                raise CrowdError(f"a stream was ended while {len(waiting)} of {len(numbers)} waited for {marker!r}")
            else:
                partial[number] = data
        if time.monotonic() > deadline:
            raise CrowdError(f"{len(waiting)} of {len(numbers)} have not got {marker!r} after {TIMEOUT} s")
    last = time.monotonic_ns()
    busy = (time.process_time_ns() - computed) / max(last - began, 1)
    return Reception(first, middle, last, round(min(busy, 1.0), 3), sample.decode())


def main() -> int:
    """Run the child; return the exit status."""
    job = Job(*json.loads(sys.stdin.readline()))
    try:
        sockets = _connect(job)
        numbers = list(sockets)
        epoll = select.epoll(job.subscribers)
        for number in numbers:
            epoll.register(number, select.EPOLLIN)
        # A collection in the middle of a round would be measured.
        gc.collect()
        gc.freeze()
        gc.disable()
        print("ready", flush=True)
        for line in sys.stdin:
            print("armed", flush=True)
            print(json.dumps(asdict(_receive(epoll, numbers, line.rstrip("\n").encode()))), flush=True)
    except (CrowdError, OSError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
