"""A process that watches configs with whichever ``config_client`` is installed where it runs: ours, or the peer.

Knows only what both have in common, and how each is told to watch. Imports nothing of this package, because the peer's
environment has none of it. Commands come line by line on stdin, answers go to stdout:

    a job as JSON   → ``idle`` once the clients exist and one has fetched a config
    ``watch``       → ``watching``, then one line ``index number nanoseconds`` for every swap
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from config_client import ConfigClient, Options, Snapshot

Note = Callable[[int, object], None]


class Job(NamedTuple):
    """What is watched, as whom, and how many watches share a client. ``ours``: whether this is our library."""

    ours: bool
    host: str
    token: str
    key: str
    names: list[str]
    watches_per_client: int


class Hooked(Snapshot[Any]):
    """A snapshot that tells of every store, for a library whose own does not."""

    def __init__(self, index: int, note: Note) -> None:
        super().__init__()
        self._index = index
        self._note = note

    def store(self, value: Any, **told: Any) -> None:
        """Store ``value``, then tell of it."""
        super().store(value, **told)
        self._note(self._index, value)


def watch_with_ours(client: ConfigClient, name: str, index: int, note: Note) -> None:
    """Subscribe; the first value is there when this returns."""
    subscription = client.subscribe(name, dict)
    subscription.snapshot.on_change(lambda change: note(index, change.new))
    note(index, subscription.snapshot.load())


def watch_with_peer(client: ConfigClient, name: str, index: int, note: Note) -> None:
    """Watch on a thread, as its documentation says."""
    watch = (name, dict, Hooked(index, note))
    threading.Thread(target=client.watch_and_decode, args=watch, daemon=True).start()


def main() -> None:
    """Do what is told until stdin ends."""
    job = Job(*json.loads(sys.stdin.readline()))
    writing = threading.Lock()

    def note(index: int, value: object) -> None:
        moment = time.monotonic_ns()
        number = value["number"] if isinstance(value, dict) else -1
        with writing:
            print(index, number, moment, flush=True)

    def connect() -> ConfigClient:
        return ConfigClient(Options(host=job.host, service_token=job.token, encryption_key=job.key))

    clients = [connect()]
    clients[0].get(job.names[0], dict)
    print("idle", flush=True)
    sys.stdin.readline()
    watch = watch_with_ours if job.ours else watch_with_peer
    for index, name in enumerate(job.names):
        if index and index % job.watches_per_client == 0:
            clients.append(connect())
        watch(clients[-1], name, index, note)
    with writing:
        print("watching", flush=True)
    sys.stdin.read()
    for client in clients:
        client.close()


if __name__ == "__main__":
    main()
