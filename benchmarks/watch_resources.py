"""What watching 200 configs costs a process over an idle client, against 200 watches of python-config-client 0.1.2."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from config_service.process import ServiceProcess

from .harness import Result
from .machine import Usage, need_linux, settled
from .peer import Watcher, our_watcher, peer_python, peer_watcher
from .watch_latency import watching

WATCHED: Final = 200
MEMORY_AIM: Final = 0.1
THREADS_AIM: Final = 1.0
SOCKETS_AIM: Final = 1.0


def run(quick: bool = False) -> list[Result]:
    """Return the growth of resident memory, threads and sockets, after every watch has taken a change."""
    need_linux()
    peer_python()
    watched = 10 if quick else WATCHED
    for start, side in ((our_watcher, "ours"), (peer_watcher, "peer")):
        # A first process compiles whatever was edited since; pip has compiled the peer.
        _growth(1, start, f"warming-{side}")
    ours, peer = _growth(watched, our_watcher, "ours"), _growth(watched, peer_watcher, "peer")
    name = f"watch_resources {watched} watched"
    return [
        Result(f"{name} memory", ours.memory, peer.memory, "bytes of resident memory", aim=MEMORY_AIM),
        Result(f"{name} threads", ours.threads, peer.threads, "threads", aim=THREADS_AIM, absolute=True),
        Result(f"{name} sockets", ours.sockets, peer.sockets, "sockets", aim=SOCKETS_AIM, absolute=True),
    ]


def _growth(watched: int, start: Callable[..., Watcher], side: str) -> Usage:
    with (
        tempfile.TemporaryDirectory() as directory,
        ServiceProcess(Path(directory)) as service,
        watching(service, watched, start, side) as (watcher, _),
    ):
        settled(lambda: watcher.usage().memory)
        idle, used = watcher.idle, watcher.usage()
        print(
            f"  {side}: {idle.memory:,} bytes, {idle.threads} threads and {idle.sockets} sockets when idle; "
            f"{used.memory:,}, {used.threads} and {used.sockets} when watching {watched} configs"
        )
        return used.over(idle)
