"""The stopwatch of the other tests: it excuses a machine that stands still, and nothing that is slow by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import stopwatch as under_test
from stopwatch import stopwatch

from config_client import ConfigClient
from config_client.testing import InMemoryService

SLOW = 0.25
"""Seconds; far over what any test that measures with the stopwatch allows."""
GAPS = under_test._GAPS
TRIES = 5
"""Where the machine really stands still in one of them, that is rightly subtracted."""


def sleep() -> None:
    time.sleep(SLOW)


def burn() -> None:
    """Work all the time, in calls that hold the interpreter's lock for a while each."""
    until = time.monotonic() + SLOW
    while time.monotonic() < until:
        pow(7, 600_000)


def wait_for_another_thread() -> None:
    """Wait for a thread that burns, as a close that joins one does."""
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()


SLOWNESS = pytest.mark.parametrize("dawdle", [sleep, burn, wait_for_another_thread])


def measured(work: Callable[[], object]) -> float:
    with stopwatch() as took:
        work()
    return took.seconds


@SLOWNESS
def test_what_is_slow_by_itself_is_measured_in_full(dawdle: Callable[[], None]) -> None:
    """Sleeping, working and waiting count from the first to the last moment."""
    assert any(SLOW <= measured(dawdle) < SLOW + 1.0 for _ in range(TRIES))


@SLOWNESS
def test_a_close_that_is_slow_by_itself_is_found_slow(
    dawdle: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a client that is subscribed and live, whose close dawdles; the same close without that is prompt."""
    with InMemoryService() as service:
        service.publish("orders", {"n": 1})

        def closing() -> float:
            client = ConfigClient(service.options())
            client.subscribe("orders", dict)
            return measured(client.close)

        assert any(closing() <= 0.1 for _ in range(TRIES))
        close = ConfigClient.close

        def dawdling(client: ConfigClient) -> None:
            dawdle()
            close(client)

        monkeypatch.setattr(ConfigClient, "close", dawdling)
        assert any(closing() >= SLOW for _ in range(TRIES))


def test_a_machine_that_stands_still_is_excused(tmp_path: Path) -> None:
    """All processes of a measurement are stopped for a while: what is told is the time in which they ran."""
    program = tmp_path / "measure.py"
    program.write_text(
        textwrap.dedent("""
        import sys, time
        from stopwatch import stopwatch
        with stopwatch():
            pass
        with stopwatch() as took:
            began = time.monotonic()
            print("begun", flush=True)
            sys.stdin.readline()
            passed = time.monotonic() - began
        print(passed, took.seconds, flush=True)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(under_test.__file__).parent)}
    told: list[tuple[float, float]] = []
    for _ in range(TRIES):
        with subprocess.Popen(
            [sys.executable, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(SLOW)
            os.killpg(process.pid, signal.SIGCONT)
            process.stdin.write("go on\n")
            process.stdin.flush()
            passed, seconds = map(float, process.stdout.readline().split())
        assert passed >= SLOW
        told.append((passed, seconds))
        if seconds < SLOW / 2:
            return
    raise AssertionError(f"the standstill was measured, of (passed, told): {told}")


class Clock:
    """Stands for the module ``time``: a block that begins at 10 s and ends at 20 s."""

    def __init__(self) -> None:
        self._times = iter((10.0, 20.0))

    def monotonic(self) -> float:
        return next(self._times)


@pytest.mark.parametrize(
    ("gaps", "seconds"),
    [
        ((), 10.0),
        (((8.0, 9.0),), 10.0),
        (((8.0, 10.0), (20.0, 21.0)), 10.0),
        (((9.0, 12.0),), 8.0),
        (((19.0, 22.0),), 9.0),
        (((12.0, 13.0), (15.0, 17.0)), 7.0),
        (((5.0, 25.0),), 0.0),
        (((1.0, 2.0),) * (GAPS + 7), 10.0),
        (((12.0, 13.0),) + ((1.0, 2.0),) * GAPS, 10.0),
        (((1.0, 2.0),) * GAPS + ((12.0, 13.0),), 9.0),
    ],
    ids=[
        "never",
        "before",
        "up-to-it-and-after-it",
        "over-the-beginning",
        "over-the-end",
        "twice-within",
        "all-the-time",
        "long-ago",
        "forgotten",
        "newest-of-many",
    ],
)
def test_only_the_standstill_within_the_block_is_subtracted(
    gaps: tuple[tuple[float, float], ...], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a gap that reaches over an end of the block, the part inside counts; of many, the latest are known."""
    latest = [0.0] * (2 * GAPS)
    for number, gap in enumerate(gaps):
        at = 2 * (number % GAPS)
        latest[at : at + 2] = gap
    shared = bytearray(under_test._RECORD.size)
    under_test._RECORD.pack_into(shared, 0, 30.0, len(gaps), *latest)
    monkeypatch.setattr(under_test, "_watcher", lambda: shared)
    monkeypatch.setattr(under_test, "time", Clock())
    assert measured(lambda: None) == seconds
