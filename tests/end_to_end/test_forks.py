"""Programs that fork after they have subscribed: gunicorn, Celery, multiprocessing, and os.fork at awkward moments.

All of them with no configuration for it. The proxy before the service is the witness of who holds which connection.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from config_service.process import Credentials, Operator, ServiceProcess

from ..chaos.proxy import Fault, Kind, LoopThread, Proxy

PROGRAMS = Path(__file__).parent / "programs"
PATIENCE = 30.0
"""Seconds after which a test stops waiting for what must happen."""
TASKS = 8
"""How many tasks the Celery program sends for a line."""
PROMPT = 2.0
"""Seconds that close() may take in a child on a machine that is busy; on an idle one it is 0.1."""

Line = dict[str, Any]


class Program:
    """A child process that tells what happens in it, and in its children, in lines of JSON."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self._lines: list[Line] = []
        self._news = threading.Condition()
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                cwd=PROGRAMS,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # So that whatever it leaves behind can be ended with it.
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process that forks."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What was written to standard error."""
        return self._log.read_text()

    def say(self) -> None:
        """Send an empty line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def say_no_more(self) -> None:
        """End its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def terminate(self) -> None:
        """Send SIGTERM to the process that forks."""
        self._process.send_signal(signal.SIGTERM)

    def told(self, what: str, count: int = 1, where: Callable[[Line], bool] = lambda line: True) -> list[Line]:
        """Wait for ``count`` lines of ``what``; return all of them."""
        found: list[Line] = []

        def enough() -> bool:
            found[:] = [line for line in self._lines if line["what"] == what and where(line)]
            return len(found) >= count

        with self._news:
            came = self._news.wait_for(enough, PATIENCE)
        assert came, f"{len(found)} of {count} lines of {what!r} came; {self._lines}\n{self.log}"
        return found

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert not self._reader.is_alive(), "a child of the program lives on"
        return status

    def end(self) -> None:
        """Kill what is left of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.poll() is None or self._reader.is_alive():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._process.stdout.close()
        if not self._process.stdin.closed:
            self._process.stdin.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            if not text.startswith('{"what"'):
                # Celery's banner.
                continue
            with self._news:
                self._lines.append(json.loads(text))
                self._news.notify_all()


@pytest.fixture
def proxy(service: ServiceProcess) -> Iterator[Proxy]:
    """Stand between the programs and the service."""
    with LoopThread("proxies") as carrier:
        proxy = Proxy(carrier, service.url)
        yield proxy
        proxy.close()


@pytest.fixture
def start(proxy: Proxy, access: Credentials, operator: Operator, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start a program on a service that holds version 1 of ``orders``."""
    operator.publish("orders", {"n": 1})
    environment = {
        **os.environ,
        "CONFIG_SERVICE_HOST": proxy.url,
        "CONFIG_SERVICE_TOKEN": access.token,
        "CONFIG_SERVICE_KEY": access.key,
        "CONFIG_SERVICE_CACHE": "off",
        "PYTHONPATH": os.pathsep.join((str(PROGRAMS), str(PROGRAMS.parents[2]))),
    }
    with ExitStack() as stack:

        def run(*command: str) -> Program:
            program = Program(list(command), environment, tmp_path / "program.log")
            stack.callback(program.end)
            return program

        yield run


def test_workers_of_gunicorn_serve_every_version_from_streams_of_their_own(
    start: Callable[..., Program], proxy: Proxy, operator: Operator
) -> None:
    """``--preload``: the master's value is in every worker at once, then every version; the master's connection is
    still the same; all processes close and end in good order.
    """
    program = start("-m", "gunicorn", "--config", "gunicorn_hooks.py", "--no-control-socket", "gunicorn_app:app")
    workers = {line["pid"] for line in program.told("forked", 2)}
    assert [line["version"] for line in program.told("forked", 2)] == [1, 1]
    assert len(workers - {program.pid}) == 2
    address = re.search(r"127\.0\.0\.1:\d+", program.told("ready")[0]["address"])
    assert address is not None
    assert proxy.wait_for_streams(3)
    masters, *_ = streams = proxy.streams

    for version in (2, 3):
        assert operator.publish("orders", {"n": version}) == version
        assert _answers(f"http://{address[0]}", workers, version) == {"n": version}
    assert proxy.streams == streams

    program.terminate()
    assert program.wait() == 0, program.log
    assert [line["version"] for line in program.told("master")] == [3]
    assert {line["pid"] for line in program.told("closed", 3)} == workers | {program.pid}
    assert proxy.wait_until_open(0, PATIENCE)
    assert masters == 0
    assert "Traceback" not in program.log


def _answers(url: str, workers: set[int], version: int) -> object:
    """Ask until every worker has answered with ``version``; return what it holds."""
    current: dict[int, object] = {}
    for _ in range(2000):
        answer = httpx.get(url, trust_env=False, timeout=PATIENCE).json()
        assert answer["pid"] in workers
        assert answer["version"] <= version
        if answer["version"] == version:
            current[answer["pid"]] = answer["value"]
        if current.keys() == workers:
            one, *others = current.values()
            assert all(other == one for other in others)
            return one
    raise AssertionError(f"only {sorted(current)} of {sorted(workers)} came to serve version {version}")


def test_children_of_a_celery_pool_serve_every_version_from_streams_of_their_own(
    start: Callable[..., Program], proxy: Proxy, operator: Operator
) -> None:
    """The prefork pool of a worker that had subscribed before: tasks find the newest version in every child."""
    program = start("celery_app.py")
    children = {line["pid"] for line in program.told("forked", 2)}
    assert [line["version"] for line in program.told("forked", 2)] == [1, 1]
    assert proxy.wait_for_streams(3)
    streams = proxy.streams

    asked = 0
    for version in (2, 3):
        assert operator.publish("orders", {"n": version}) == version
        current: set[int] = set()
        while current != children:
            program.say()
            asked += TASKS
            assert asked < 200 * TASKS, f"only {current} of {children} came to serve version {version}"
            answers = program.told("answer", asked)
            assert {line["pid"] for line in answers} <= children
            current = {line["pid"] for line in answers if (line["version"], line["value"]) == (version, {"n": version})}
    assert proxy.streams == streams

    program.terminate()
    assert program.wait() == 0, program.log
    assert {line["pid"] for line in program.told("closed", 3)} == children | {program.pid}
    assert proxy.wait_until_open(0, PATIENCE)


@pytest.mark.parametrize("how", ["fork", "nested"])
def test_forked_processes_have_the_parents_value_at_once_and_the_next_version_by_themselves(
    start: Callable[..., Program], proxy: Proxy, operator: Operator, how: str
) -> None:
    """Forked while nothing passes to the service: the value is there all the same. Once something passes, a stream of
    its own for each; and the parent's is never another one.
    """
    program = start("children.py", how, "2")
    count = 4 if how == "nested" else 2
    assert [line["version"] for line in program.told("ready")] == [1]
    assert proxy.streams == (0,)
    proxy.apply(Fault(Kind.STALL))
    program.say()
    forked = program.told("forked", count)
    assert [line["version"] for line in forked] == [1] * count
    assert proxy.streams == (0,)

    proxy.heal()
    assert proxy.wait_for_streams(count + 1)
    assert operator.publish("orders", {"n": 2}) == 2
    changes = program.told("change", count + 1)
    assert {line["pid"] for line in changes} == {line["pid"] for line in forked} | {program.pid}
    assert {line["value"]["n"] for line in changes} == {2}
    assert 0 in proxy.streams
    assert len(proxy.streams) == count + 1

    program.say_no_more()
    assert program.wait() == 0, program.log
    closed = program.told("closed", count + 1)
    assert all(line["seconds"] < PROMPT for line in closed if "seconds" in line)
    assert proxy.wait_until_open(0, PATIENCE)
    assert "Traceback" not in program.log


def test_the_end_of_a_child_leaves_the_parents_stream_alone(
    start: Callable[..., Program], proxy: Proxy, operator: Operator
) -> None:
    """A child that closes, and one that is killed, take their own connections along and nothing of the parent's."""
    program = start("children.py", "fork", "2")
    program.told("ready")
    program.say()
    forked = program.told("forked", 2)
    assert proxy.wait_for_streams(3)
    os.kill(forked[0]["pid"], signal.SIGKILL)
    assert proxy.wait_for_streams(2)
    assert operator.publish("orders", {"n": 2}) == 2
    program.told("change", 2)
    assert proxy.streams[0] == 0
    program.say_no_more()
    # The one that was killed.
    assert program.wait() == 1, program.log
    assert [line["version"] for line in program.told("master")] == [2]


def test_spawned_processes_subscribe_by_themselves(
    start: Callable[..., Program], proxy: Proxy, operator: Operator
) -> None:
    """What inherits nothing has a client of its own; the parent's goes on beside it."""
    program = start("children.py", "spawn", "1")
    program.told("ready")
    program.say()
    assert [line["version"] for line in program.told("forked")] == [1]
    assert proxy.wait_for_streams(2)
    assert operator.publish("orders", {"n": 2}) == 2
    program.told("change", 1, lambda line: line["pid"] == program.pid)
    program.say_no_more()
    assert program.wait() == 0, program.log
    program.told("closed", 2)


@pytest.mark.parametrize("moment", ["callback", "locks", "proof", "async"])
def test_a_fork_at_an_awkward_moment_leaves_a_child_that_goes_on(
    start: Callable[..., Program], proxy: Proxy, operator: Operator, moment: str
) -> None:
    """Inside a callback of the watching thread; while other threads hold every lock there is; while the parent is busy
    with the very version that the child has to get; and for a client of asyncio, between two runs of its loop.
    """
    program = start("odd_forks.py", moment)
    program.told("ready")
    last = 3 if moment == "callback" else 2
    if moment in {"locks", "async"}:
        program.say()
    else:
        assert operator.publish("orders", {"n": 2}) == 2
    holds = 2 if moment == "callback" else 1
    assert [line["version"] for line in program.told("forked")] == [holds]
    if moment != "proof":
        assert operator.publish("orders", {"n": last}) == last
    child = program.told("child")[0]
    assert child == {**child, "came": True, "version": last, "value": {"n": last}}
    assert program.told("closed")[0]["seconds"] < PROMPT
    assert program.told("ended")[0]["status"] == 0
    program.told("parent", 1, lambda line: line["version"] == last and line.get("came") is True)
    assert program.wait() == 0, program.log
    assert proxy.wait_until_open(0, PATIENCE)
