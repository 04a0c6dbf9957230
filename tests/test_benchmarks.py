"""The benchmarks: how they judge, that they notice a server that fails, and that every one of them still runs.

No figure is judged here: a machine that is busy with tests says nothing about speed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import nchan, peer
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import Result, interleave, percentile
from benchmarks.machine import SkippedError, usage
from benchmarks.publisher import Publisher, PublisherError, request_bytes
from benchmarks.subscribers import Crowd, CrowdError

ROOT = Path(__file__).parent.parent
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:\n"
ADDRESS = "127.0.0.1"


@contextmanager
def serving(serve: Callable[[list[socket.socket]], None], readers: int) -> Iterator[int]:
    """Accept ``readers`` connections, read a request from each, and give them to ``serve``; yield the port."""
    with socket.create_server((ADDRESS, 0)) as listener:

        def run() -> None:
            connections = [listener.accept()[0] for _ in range(readers)]
            try:
                for connection in connections:
                    connection.recv(65536)
                serve(connections)
            finally:
                for connection in connections:
                    connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)
        assert not thread.is_alive()


# --- judging ---


@pytest.mark.parametrize(
    ("ours", "beside", "absolute", "ok"),
    [
        (5.0, 10.0, False, True),
        (5.1, 10.0, False, False),
        (0.4, 0.0, True, True),
        (0.6, 100.0, True, False),
        (0.4, None, True, True),
    ],
)
def test_an_aim_bounds_the_ratio_or_where_it_is_absolute_ours(
    ours: float, beside: float | None, absolute: bool, ok: bool
) -> None:
    """The aim 0.5 is met by at most half of the peer's figure; an absolute one by at most 0.5, whatever the peer's."""
    result = Result("one", ours, beside, "units", aim=0.5, absolute=absolute)
    assert result.ok is ok
    assert ("met" if ok else "missed") in result.as_text()
    assert json.loads(result.as_json())["ok"] is ok


def test_what_has_no_aim_is_neither_met_nor_missed() -> None:
    """A figure without an aim is only reported."""
    result = Result("one", 2.0, 1.0, "units")
    assert result.ok is None
    assert "met" not in result.as_text()
    assert "missed" not in result.as_text()


def test_an_aim_for_a_ratio_is_not_met_by_a_peer_that_gave_nothing() -> None:
    """A division by nothing is no success."""
    assert Result("one", 1.0, 0.0, "units", aim=1.0).ok is None


@pytest.mark.parametrize(("percent", "value"), [(50, 5), (90, 9), (99, 10), (100, 10), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: int, value: int) -> None:
    """The nearest rank: no value between two is invented."""
    assert percentile([10, 3, 1, 2, 9, 4, 5, 8, 7, 6], percent) == value


def test_the_sides_take_turns_at_going_first_and_warming_up_does_not_count() -> None:
    """Neither side always meets the machine as the other left it."""
    calls: list[str] = []

    def side(name: str) -> Callable[[], float]:
        def run() -> float:
            calls.append(name)
            return float(len(calls))

        return run

    ours, theirs = interleave(side("o"), side("p"), rounds=2, warm_up=1)
    assert "".join(calls) == "po" + "op" + "po"
    assert (ours, theirs) == ([3.0, 6.0], [4.0, 5.0])


def test_an_unknown_name_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name must not pass for a benchmark that ran."""
    assert main(["--quick", "snapshot_load", "fan-out"]) == 2
    told = capsys.readouterr()
    assert "fan-out" in told.err
    assert told.out == ""


def test_the_documentation_explains_every_benchmark() -> None:
    """docs/BENCHMARKS.md has a section for each, and for nothing else."""
    sections = re.findall(r"^## `(\w+)`", (ROOT / "docs" / "BENCHMARKS.md").read_text(), re.MULTILINE)
    assert sections == list(BENCHMARKS)


# --- skipping ---


def test_without_nginx_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be compared is skipped by name, never silently."""
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(SkippedError, match=r"apt-get install .*libnginx-mod-nchan"):
        nchan.find_nchan()


def test_without_the_module_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """nginx alone is not the peer."""
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: "/usr/sbin/nginx")
    monkeypatch.setattr(nchan, "_MODULES", (tmp_path / "none.so",))
    with pytest.raises(SkippedError, match=r"no module nchan.*apt-get install"):
        nchan.find_nchan()


@pytest.mark.integration
def test_a_skipped_benchmark_says_why_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run goes on, its status is 0, and no figure is printed."""
    monkeypatch.setattr(nchan, "_MODULES", ())
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    assert main(["fanout"]) == 0
    told = capsys.readouterr().out
    assert "skipped: nginx is not installed" in told
    assert '"ratio"' not in told


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_peer_that_cannot_be_installed_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A list that pip refuses stands for an index that cannot be reached; nothing is kept that looks complete."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"./no-such-package-{tmp_path.name}\n")
    monkeypatch.setattr(peer, "REQUIREMENTS", requirements)
    monkeypatch.setattr(peer, "HOME", tmp_path / "peer")
    with pytest.raises(SkippedError, match="could not be installed: ERROR"):
        peer.peer_python()
    assert not (tmp_path / "peer" / "requirements.txt").exists()


# --- measuring ---


@pytest.mark.integration
def test_the_last_subscriber_is_the_one_whose_event_is_complete_last() -> None:
    """An event counts when its blank line is there, not when it begins; a heartbeat before it is no event."""
    complete = threading.Event()

    def serve(connections: list[socket.socket]) -> None:
        for connection in connections:
            connection.sendall(HEAD)
        armed.wait(30)
        connections[0].sendall(b':\ndata: {"version":7,"a":1}\n\n')
        connections[1].sendall(b'data: {"version":7,"a":1}\n')
        halfway.set()
        complete.wait(30)
        connections[1].sendall(b"\n:\n")
        ended.wait(30)

    armed, halfway, ended = threading.Event(), threading.Event(), threading.Event()
    with (
        serving(serve, 2) as port,
        Crowd(ADDRESS, port, [request_bytes("GET", "/", {})], 2, b"\n:") as crowd,
    ):
        crowd.expect('"version":7,')
        armed.set()
        assert halfway.wait(30)
        complete.set()
        reception = crowd.reception()
        ended.set()
    assert reception.first <= reception.middle <= reception.last
    assert reception.first < reception.last
    assert '"version":7,' in reception.sample


@pytest.mark.integration
def test_a_refused_subscriber_fails_the_benchmark() -> None:
    """A crowd that is smaller than it says would flatter the server."""

    def serve(connections: list[socket.socket]) -> None:
        connections[0].sendall(HEAD)
        connections[1].sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with serving(serve, 2) as port, pytest.raises(CrowdError, match="403 Forbidden"):
        Crowd(ADDRESS, port, [request_bytes("GET", "/", {})], 2, b"\n:")


@pytest.mark.integration
def test_a_stream_that_ends_before_its_event_fails_the_benchmark() -> None:
    """A subscriber that was cut has not got the event, however fast the others had it."""

    def serve(connections: list[socket.socket]) -> None:
        connections[0].sendall(HEAD)
        armed.wait(30)

    armed = threading.Event()
    with serving(serve, 1) as port, Crowd(ADDRESS, port, [request_bytes("GET", "/", {})], 1, b"\n:") as crowd:
        crowd.expect('"version":1,')
        armed.set()
        with pytest.raises(CrowdError, match="ended while 1 of 1"):
            crowd.reception()


@pytest.mark.integration
def test_a_refused_publication_fails_the_benchmark() -> None:
    """What was not published cannot be received; an answer in pieces is read whole."""

    def serve(connections: list[socket.socket]) -> None:
        connections[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        connections[0].sendall(b"cd")
        connections[0].recv(65536)
        connections[0].sendall(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")

    with serving(serve, 1) as port, Publisher(ADDRESS, port) as publisher:
        publisher.send(request_bytes("PUT", "/", {}, b"{}"))
        assert publisher.answer() == b"abcd"
        publisher.send(request_bytes("PUT", "/", {}, b"{}"))
        with pytest.raises(PublisherError, match="409 Conflict"):
            publisher.answer()


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_usage_counts_the_memory_threads_and_sockets_of_another_process() -> None:
    """What a process takes shows in its usage, and is over what it had before."""
    program = """
import socket, sys, threading
print("idle", flush=True)
sys.stdin.readline()
held = bytearray(b"x" * 50_000_000), [socket.socket() for _ in range(7)]
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("busy", flush=True)
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"idle\n"
        idle = usage(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"busy\n"
        grown = usage(child.pid).over(idle)
        child.kill()
    assert (grown.threads, grown.sockets) == (3, 7)
    assert 50_000_000 <= grown.memory < 60_000_000


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_runs(name: str) -> None:
    """With little load, each prints a line of JSON per result, or says why it cannot run here."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--quick", name],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        try:
            told, complaint = run.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            # With the servers that it has started.
            os.killpg(run.pid, signal.SIGKILL)
            raise
    assert run.returncode == 0, complaint[-2000:]
    skipped = re.search(r"^  skipped: (.+)$", told, re.MULTILINE)
    if skipped:
        pytest.skip(skipped[1])
    results = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert results
    assert all(result["name"].startswith(name) and result["ours"] >= 0 for result in results)
