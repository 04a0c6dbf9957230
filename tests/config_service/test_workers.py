"""Several processes on one socket, as far as it takes no store: ``tests/end_to_end/test_replicas.py`` has the rest."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.integration

PROGRAM = """
import os, signal, sys
from config_service.workers import Worker, split

became = split(2, lambda: os.write(1, b"all\\n"), (signal.SIGHUP,))
if not isinstance(became, Worker):
    sys.exit(became)
signal.signal(signal.SIGHUP, lambda *_: os.write(1, b"heard\\n"))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
became.ready()
while True:
    signal.pause()
"""


@contextmanager
def program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.terminate()
            child.wait(30)


def test_a_signal_is_sent_on_to_every_worker_and_ends_nobody() -> None:
    """As SIGHUP for a new certificate."""
    with program() as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"all\n"
        for _ in range(2):
            child.send_signal(signal.SIGHUP)
            assert [child.stdout.readline() for _ in range(2)] == [b"heard\n"] * 2
        assert child.poll() is None
        child.terminate()
        assert child.wait(30) == 0
