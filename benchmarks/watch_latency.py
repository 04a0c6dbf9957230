"""Publish request sent until the value is swapped in a watching process, against python-config-client 0.1.2."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from config_client.protocol import TOKEN_HEADER
from config_service.process import Operator, ServiceProcess

from .harness import Result, interleave, percentile
from .machine import child_at, computed, need_linux
from .peer import Watcher, WatcherError, our_watcher, peer_python, peer_watcher
from .publisher import Publisher, request_bytes

WATCHED: Final = (1, 200)
ROUNDS: Final = 60
CHANGES: Final = 5
"""In a round, of configs taken at random, each published when the one before has arrived."""
PAUSE: Final = 0.02
"""Seconds between a swap and the next publish: what a library does after a swap, such as keeping the value on disk, is
not to be found in the time of the next one.
"""
PADDING: Final = "x" * 512
AIM: Final = 0.5
_ATTEMPTS: Final = 30
_HEARD_SECONDS: Final = 1.0


def run(quick: bool = False) -> list[Result]:
    """Return the median and the 99th of a hundred milliseconds, for each number of watched configs in one process."""
    need_linux()
    peer_python()
    results = []
    for watched in (1, 5) if quick else WATCHED:
        with tempfile.TemporaryDirectory() as directory, ServiceProcess(Path(directory)) as service:
            ours, peer = _compare(service, watched, *((2, 5) if quick else (ROUNDS, CHANGES)))
        name = f"watch_latency {watched} watched"
        unit = "milliseconds per change"
        results += [
            Result(f"{name} p50", statistics.median(ours), statistics.median(peer), unit, aim=AIM),
            Result(f"{name} p99", percentile(ours, 99), percentile(peer, 99), unit),
        ]
    return results


class Publishing:
    """Publishes numbered documents under ``names``, one after the other, from a connection that stays open."""

    def __init__(self, service: ServiceProcess, operator: Operator, names: Sequence[str]) -> None:
        url = httpx.URL(service.url)
        self._publisher = Publisher(url.host, url.port or 0)
        self._token = operator.mint("publisher", scopes=("*@*:read,write",)).token
        self._names = names
        self.number = 0
        """The last that was published."""

    def publish(self, index: int) -> tuple[int, int]:
        """Publish the next document under name ``index``; return its number and the moment it was sent."""
        self.number += 1
        request = publication(self._names[index], self.number, self._token)
        sent = self._publisher.send(request)
        self._publisher.answer()
        return self.number, sent

    def close(self) -> None:
        """Close the connection."""
        self._publisher.close()


def publication(name: str, number: int, token: str) -> bytes:
    """Return the request that publishes document ``number`` under ``name``."""
    body = json.dumps({"number": number, "padding": PADDING}).encode()
    headers = {TOKEN_HEADER: token, "Content-Type": "application/json"}
    return request_bytes("PUT", f"/api/v1/manage/configs/{name}", headers, body)


def hear_of_all(watcher: Watcher, publishing: Publishing, count: int) -> None:
    """Change every config until its watch has heard of a change: one that is just connecting misses some."""
    missing = set(range(count))
    for _ in range(_ATTEMPTS):
        published = {index: publishing.publish(index)[0] for index in sorted(missing)}
        while missing and (swap := watcher.next_swap(_HEARD_SECONDS)) is not None:
            if swap.number == published.get(swap.watch):
                missing.discard(swap.watch)
        if not missing:
            return
    raise WatcherError(f"{len(missing)} of {count} watches hear of nothing")


@contextmanager
def watching(
    service: ServiceProcess, watched: int, start: Callable[..., Watcher], side: str
) -> Iterator[tuple[Watcher, Publishing]]:
    """Yield a process that watches as many configs of its own, every one heard of, and who publishes them."""
    operator = service.operator()
    names = [f"{side}-{number}" for number in range(watched)]
    publishing = Publishing(service, operator, names)
    try:
        for index in range(watched):
            publishing.publish(index)
        with start(service.url, operator.mint(side), names) as watcher:
            watcher.watch()
            hear_of_all(watcher, publishing, watched)
            yield watcher, publishing
    finally:
        publishing.close()


def _compare(service: ServiceProcess, watched: int, rounds: int, changes: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of every change, ours and the peer's, measured in turns."""
    with (
        watching(service, watched, our_watcher, "ours") as ours,
        watching(service, watched, peer_watcher, "peer") as peer,
    ):
        taken: tuple[list[float], list[float]] = ([], [])
        serving = child_at(service.directory)
        # What the service and the watching process computed: a busy machine disturbs it less than the time that passes.
        work: tuple[list[float], list[float]] = ([0.0, 0.0], [0.0, 0.0])
        chosen = random.Random(watched)

        def changing(side: int) -> Callable[[], float]:
            watcher, publishing = (ours, peer)[side]

            def change() -> float:
                mine = []
                before = computed(serving), computed(watcher.pid)
                for _ in range(changes):
                    index = chosen.randrange(watched)
                    number, sent = publishing.publish(index)
                    mine.append((watcher.wait_for(index, number).moment - sent) / 1e6)
                    time.sleep(PAUSE)
                work[side][0] += computed(serving) - before[0]
                work[side][1] += computed(watcher.pid) - before[1]
                taken[side].extend(mine)
                return statistics.median(mine)

            return change

        interleave(changing(0), changing(1), rounds=rounds, warm_up=0)
        for label, values, (by_service, by_watcher) in zip(("ours", "peer"), taken, work, strict=True):
            p50, p90, p99 = (percentile(values, percent) for percent in (50, 90, 99))
            print(
                f"  {label}, {watched} watched: p50 {p50:.2f} ms, p90 {p90:.2f}, p99 {p99:.2f}; computing per change: "
                f"service {by_service / len(values):.2f} ms, watching process {by_watcher / len(values):.2f} ms"
            )
        return taken
