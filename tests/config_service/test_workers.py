"""The parent of several processes: it starts them in order, replaces them, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
PATIENCE = 30.0
PROGRAM = """
import os, signal, sys, time
from config_service import workers

workers._FIRST_PAUSE = 0.05
workers._END_WITHIN = 0.3


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


became = workers.split({number}, lambda: say("announced"), ({passed_on}))
if isinstance(became, int):
    say("ended", became)
    sys.exit(became)
say("worker", became.number, os.getpid())
became.when_orphaned(lambda: os._exit(0))
{work}
"""


class Run:
    """A parent in a process of its own, and what it and its workers said."""

    def __init__(self, number: int, work: str, passed_on: str = "") -> None:
        program = PROGRAM.format(number=number, work=work, passed_on=passed_on)
        self.process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._lines = self.process.stdout
        self.pids: list[int] = []

    def until(self, word: str) -> list[str]:
        """Return what is said up to the first line that begins with ``word``."""
        said = []
        for line in self._lines:
            said.append(line.strip())
            if line.startswith("worker"):
                self.pids.append(int(line.split()[2]))
            if line.startswith(word):
                return said
        raise AssertionError(f"it never said {word}: {said}")

    def end(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(*given: object, **named: object) -> Run:
        runs.append(Run(*given, **named))  # type: ignore[arg-type]
        return runs[-1]

    yield begin
    for one in runs:
        one.process.kill()
        one.process.communicate()
        deadline = time.monotonic() + PATIENCE
        while any(map(runs_still, one.pids)):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def runs_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_others_begin_when_the_first_one_serves(run: Callable[..., Run]) -> None:
    """And it is announced once, when all of them do; SIGTERM ends them, and the parent with status 0."""
    parent = run(3, "became.ready(); signal.pause()")
    said = [line.split()[:2] for line in parent.until("announced")]
    assert said[0] == ["worker", "0"]
    assert sorted(said[:-1]) == [["worker", "0"], ["worker", "1"], ["worker", "2"]]
    parent.process.send_signal(signal.SIGTERM)
    assert parent.until("ended") == ["ended 0"]
    assert parent.end() == 0
    assert not any(map(runs_still, parent.pids))


def test_a_first_worker_that_fails_ends_it_all_with_its_status(run: Callable[..., Run]) -> None:
    """No other one is started."""
    parent = run(3, "sys.exit(8)")
    assert [line.split()[0] for line in parent.until("ended")] == ["worker", "ended"]
    assert parent.end() == 8


def test_a_worker_that_ends_is_replaced_by_one_of_its_number(run: Callable[..., Run]) -> None:
    """Killed or ended by itself, again and again; it is not announced anew."""
    parent = run(2, "became.ready(); signal.pause()")
    parent.until("announced")
    for _ in range(3):
        os.kill(parent.pids[-1], signal.SIGKILL)
        (line,) = parent.until("worker")
        assert line.split()[1] == "1"
    parent.process.send_signal(signal.SIGINT)
    assert parent.until("ended") == ["ended 0"]


def test_a_worker_that_does_not_end_is_killed(run: Callable[..., Run]) -> None:
    """A second signal changes nothing about that."""
    parent = run(2, "signal.signal(signal.SIGTERM, signal.SIG_IGN); became.ready()\nwhile True: time.sleep(1)")
    parent.until("announced")
    parent.process.send_signal(signal.SIGTERM)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.until("ended") == ["ended 0"]
    assert not any(map(runs_still, parent.pids))


def test_workers_end_with_a_parent_that_is_killed(run: Callable[..., Run]) -> None:
    """The pipe between them ends, which is all that they need to know."""
    parent = run(2, "became.ready(); signal.pause()")
    parent.until("announced")
    assert len(parent.pids) == 2
    parent.process.kill()
    deadline = time.monotonic() + PATIENCE
    while any(map(runs_still, parent.pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_signal_that_is_passed_on_reaches_every_worker(run: Callable[..., Run]) -> None:
    """And ends nobody."""
    work = "signal.signal(signal.SIGHUP, lambda *_: say('heard')); became.ready()\nwhile True: signal.pause()"
    parent = run(2, work, passed_on="signal.SIGHUP,")
    parent.until("announced")
    parent.process.send_signal(signal.SIGHUP)
    assert parent.until("heard") + parent.until("heard") == ["heard", "heard"]
    parent.process.send_signal(signal.SIGTERM)
    assert parent.until("ended") == ["ended 0"]
