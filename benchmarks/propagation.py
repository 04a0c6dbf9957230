"""Publish request sent until the snapshot is swapped, against a bare asyncio socket that echoes the same bytes."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from config_client import Change, ConfigClient, Options, Snapshot
from config_service.process import ServiceProcess

from .harness import ROUNDS, Result, alternate, rounds_of

CHANGES: Final = 20
PADDING: Final = "x" * 512

ECHO: Final = """
import asyncio

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


def run(quick: bool = False) -> list[Result]:
    """Return milliseconds per change; every change is durable before it is announced, the echo stores nothing."""
    with (
        tempfile.TemporaryDirectory() as directory,
        ServiceProcess(Path(directory)) as service,
        subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as echo,
    ):
        try:
            assert echo.stdout is not None
            port = int(echo.stdout.readline())
            operator = service.operator()
            operator.publish("bench", {"number": 0, "padding": PADDING})
            access = operator.mint("bench")
            snapshot: Snapshot[dict[str, object]] = Snapshot()
            swapped: dict[int | None, float] = {}

            def note(change: Change[dict[str, object]]) -> None:
                swapped[change.version] = time.perf_counter()

            snapshot.on_change(note)
            number = 0

            def publish() -> float:
                nonlocal number
                taken = []
                for _ in range(CHANGES):
                    number += 1
                    started = time.perf_counter()
                    version = operator.publish("bench", {"number": number, "padding": PADDING})
                    assert snapshot.wait_for(version=version, timeout=10)
                    taken.append(swapped[version] - started)
                return statistics.median(taken) * 1e3

            with (
                ConfigClient(
                    Options(host=service.url, service_token=access.token, encryption_key=access.key)
                ) as client,
                socket.create_connection(("127.0.0.1", port)) as connection,
            ):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=client.watch_and_decode, args=("bench", dict, snapshot), daemon=True).start()
                assert snapshot.wait_for(timeout=10)
                ours, peer = alternate(publish, lambda: _echo(connection), rounds=rounds_of(ROUNDS, quick=quick))
        finally:
            echo.terminate()
    return [Result("propagation", ours, peer, "milliseconds per change (median of each round)")]


def _echo(connection: socket.socket) -> float:
    taken = []
    for number in range(CHANGES):
        data = json.dumps({"number": number, "padding": PADDING}).encode()
        started = time.perf_counter()
        connection.sendall(data)
        received = 0
        while received < len(data):
            received += len(connection.recv(65536))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3
