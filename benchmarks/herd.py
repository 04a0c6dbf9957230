"""Requests that one publish causes at the service when 500 watch the config, against python-config-client 0.1.2."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx

from config_client.protocol import SERVICE_PATH
from config_service.process import ServiceProcess

from .fanout import STATE_FIRST
from .harness import Result
from .machine import allow_connections, need_linux, settled
from .peer import Watcher, WatcherError, our_watcher, peer_python, peer_watcher
from .subscribers import Crowd
from .watch_latency import Publishing

CONFIG: Final = "bench"
WATCHERS: Final = 500
SDK_CLIENTS: Final = 50
"""Clients of our SDK among the watchers, each with a stream of its own; the others are bare state-first streams."""
PUBLISHES: Final = 10
AIM: Final = 0.0
_ATTEMPTS: Final = 30
_HEARD_SECONDS: Final = 5.0


def run(quick: bool = False) -> list[Result]:
    """Return requests per publish by the service's access log, the publishing itself not counted."""
    need_linux()
    peer_python()
    watchers, clients = (20, 3) if quick else (WATCHERS, SDK_CLIENTS)
    allow_connections(2 * watchers)
    ours = _requests(streams=watchers - clients, watches=clients, ours=True)
    peer = _requests(streams=0, watches=watchers, ours=False)
    return [Result(f"herd {watchers} watchers", ours, peer, "requests per publish", aim=AIM, absolute=True)]


def _requests(streams: int, watches: int, *, ours: bool) -> float:
    """Return requests per publish with so many bare streams, and watches of a library in a process."""
    with tempfile.TemporaryDirectory() as directory, ServiceProcess(Path(directory)) as service, ExitStack() as stack:
        operator, url = service.operator(), httpx.URL(service.url)
        access = operator.mint("watcher")
        publishing = Publishing(service, operator, [CONFIG])
        stack.callback(publishing.close)
        publishing.publish(0)
        crowd = None
        if streams:
            request = STATE_FIRST.request(access.token)
            crowd = stack.enter_context(Crowd(url.host, url.port or 0, [request], streams, STATE_FIRST.ready))
        names = [CONFIG] * watches
        watcher = stack.enter_context(
            our_watcher(service.url, access, names, 1) if ours else peer_watcher(service.url, access, names)
        )
        watcher.watch()
        for _ in range(_ATTEMPTS):
            if _have(watcher, watches, publishing.publish(0)[0]):
                break
        before = settled(lambda: _served(service))
        for _ in range(PUBLISHES):
            if crowd is not None:
                # Nothing else is published here, so numbers and versions are the same.
                crowd.expect(f'"version":{publishing.number + 1},')
            number, _ = publishing.publish(0)
            if not _have(watcher, watches, number):
                raise WatcherError(f"not every watch has got {number}")
            if crowd is not None:
                crowd.reception()
        return (settled(lambda: _served(service)) - before) / PUBLISHES


def _have(watcher: Watcher, watches: int, number: int) -> bool:
    """Wait until every watch has swapped to ``number``; tell whether they have."""
    waiting = set(range(watches))
    while waiting and (swap := watcher.next_swap(_HEARD_SECONDS)) is not None:
        if swap.number == number:
            waiting.discard(swap.watch)
    return not waiting


def _served(service: ServiceProcess) -> int:
    """Return how many requests of clients the access log has."""
    return sum("config_service.access" in line and SERVICE_PATH in line for line in service.log.splitlines())
