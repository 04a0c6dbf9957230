"""Crashes, restarts and shutdowns of a real service, under the eyes of a real watcher."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from config_client import ConfigClient, Options
from config_service.process import Credentials, Operator, ServiceProcess

ROUNDS = int(os.environ.get("KILL_ROUNDS", "50"))
SEED = int(os.environ.get("KILL_SEED", "20261120"))


class Publisher:
    """Publishes numbers as fast as they are acknowledged, until the service is gone."""

    def __init__(self, operator: Operator, first: int) -> None:
        self.acknowledged: dict[int, int] = {}
        self.sent = threading.Event()
        self._operator = operator
        self._number = first
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.sent.set()
            try:
                self.acknowledged[self._number] = self._operator.publish("orders", {"number": self._number})
            except httpx.TransportError:
                return
            self._number += 1

    def join(self) -> int:
        """Wait for the end and return the first number that was not sent."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._number + 1


@pytest.fixture
def uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start children without coverage: a killed one loses what it counted, and each starts twice as fast."""
    for name in list(os.environ):
        if name.startswith("COVERAGE_"):
            monkeypatch.delenv(name)


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("rounds", [2, pytest.param(ROUNDS, marks=pytest.mark.long)])
def test_what_was_acknowledged_survives_sigkill_and_the_watcher_ends_on_the_newest(tmp_path: Path, rounds: int) -> None:
    """SIGKILL 0-50 ms after a publish was sent, again and again: nothing acknowledged is lost, nobody is left behind.

    Replay a failure with KILL_SEED; the message tells seed and round.
    """
    rng = random.Random(SEED)
    with ServiceProcess(tmp_path) as service:
        operator = service.operator()
        operator.publish("orders", {"number": 0})
        access = operator.mint("app")
        options = Options(service.url, access.token, access.key, retry_delay=0.02, max_retry_delay=0.2)
        with ConfigClient(options) as client:
            watching = _watch(client)
            number = 1
            for round_number in range(rounds):
                where = f"seed {SEED}, round {round_number}"
                publisher = Publisher(operator, number)
                publisher.sent.wait(60)
                time.sleep(rng.uniform(0.0, 0.05))
                service.kill()
                number = publisher.join()
                service.start()

                rows = operator.history("orders")
                versions = [int(str(row["version"])) for row in rows]
                assert versions == list(range(len(rows), 0, -1)), where
                kept = {version: _number(client, version) for version in publisher.acknowledged.values()}
                assert kept == {version: sent for sent, version in publisher.acknowledged.items()}, where
                assert watching.snapshot.wait_for(version=versions[0], timeout=20), where
                assert watching.snapshot.load() == client.get_raw("orders"), where
            assert watching.versions == sorted(set(watching.versions))


def _number(client: ConfigClient, version: int) -> object:
    from config_client import GetOptions

    return client.get_raw("orders", GetOptions(version=version))["number"]


def _watch(client: ConfigClient) -> Any:
    from types import SimpleNamespace

    from config_client import Snapshot

    snapshot: Snapshot[dict[str, object]] = Snapshot()
    versions: list[int | None] = []
    snapshot.on_change(lambda change: versions.append(change.version))
    threading.Thread(target=client.watch_and_decode, args=("orders", dict, snapshot), daemon=True).start()
    assert snapshot.wait_for(timeout=60)
    return SimpleNamespace(snapshot=snapshot, versions=versions)


def test_sigterm_ends_the_streams_at_once_and_clients_come_back(
    service: ServiceProcess, operator: Operator, watch: Callable[..., Any]
) -> None:
    """With open streams the service exits with 0 within 5 s of SIGTERM; after a restart the watchers are current."""
    operator.publish("orders", {"n": 1})
    watchings = [watch("orders") for _ in range(5)]
    assert all(watching.snapshot.wait_for(version=1, timeout=60) for watching in watchings)
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < 5
    service.start()
    operator.publish("orders", {"n": 2})
    assert all(watching.snapshot.wait_for(version=2, timeout=60) for watching in watchings)


def test_a_change_made_while_the_watcher_was_away_is_delivered_without_another(
    service: ServiceProcess, operator: Operator, watch: Callable[..., Any]
) -> None:
    """The service restarts and publishes before the watcher is back: reconnecting alone brings the change."""
    operator.publish("orders", {"n": 1})
    watching = watch("orders", retry_delay=1.0, max_retry_delay=1.0)
    assert watching.snapshot.wait_for(version=1, timeout=60)
    service.kill()
    service.start()
    operator.publish("orders", {"n": 2})
    assert watching.snapshot.wait_for(version=2, timeout=15)


def test_a_watch_starts_while_the_service_is_down_and_fills_when_it_comes(
    service: ServiceProcess, operator: Operator, access: Credentials, watch: Callable[..., Any]
) -> None:
    """Nothing answers at first; the watch reports it, goes on, and fills the snapshot by itself."""
    from config_client import ConnectionError  # noqa: A004 - ours

    operator.publish("orders", {"n": 1})
    service.kill()
    watching = watch("orders")
    assert watching.wait_for_error(ConnectionError)
    assert watching.snapshot.load() is None
    service.start()
    assert watching.snapshot.wait_for(version=1, timeout=15)


def test_a_reader_that_stops_reading_does_not_hold_up_the_shutdown(
    service: ServiceProcess, operator: Operator, access: Credentials
) -> None:
    """A stream whose reader is stuck, its buffers full, ends with the service all the same."""
    import socket

    operator.publish("orders", {"n": 0})
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.sendall(
            b"GET /api/v1/service/configs/orders/watch HTTP/1.1\r\nHost: x\r\nX-Service-Token: "
            + access.token.encode()
            + b"\r\n\r\n"
        )
        assert stuck.recv(12) == b"HTTP/1.1 200"
        for number in range(100):
            operator.publish("orders", {"n": number + 1})
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 5


WATCH_ON_THE_MAIN_THREAD = """
import signal
from config_client import ConfigClient, Snapshot

client = ConfigClient.from_env()
snapshot = Snapshot()
signal.signal(signal.SIGTERM, lambda *_: client.close())
snapshot.on_change(lambda change: print("holds", flush=True))
client.watch_and_decode("orders", dict, snapshot)
print("left", flush=True)
"""


@pytest.mark.parametrize("service_is", ["up", "down"])
def test_a_program_that_watches_on_its_main_thread_ends_by_a_signal_handler_that_closes(
    service: ServiceProcess, operator: Operator, access: Credentials, service_is: str
) -> None:
    """``close()`` in a SIGTERM handler ends a blocked read, and a pause between attempts, on the very same thread."""
    operator.publish("orders", {"n": 1})
    environment = {
        **os.environ,
        "CONFIG_SERVICE_HOST": service.url,
        "CONFIG_SERVICE_TOKEN": access.token,
        "CONFIG_SERVICE_KEY": access.key,
    }
    with subprocess.Popen(
        [sys.executable, "-c", WATCH_ON_THE_MAIN_THREAD], env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "holds\n"
            if service_is == "down":
                service.kill()
            child.terminate()
            assert child.stdout.readline() == "left\n"
            assert child.wait(60) == 0
        finally:
            child.kill()
