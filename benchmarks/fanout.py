"""One publish to thousands of authenticated event streams, against nginx with nchan doing the same work."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import httpx

from config_client.protocol import (
    EVENT_STREAM_MEDIA_TYPE,
    TOKEN_HEADER,
    WATCH_PATH,
    Held,
    dump_watch_request,
    watch_path,
)
from config_service.process import ServiceProcess

from .harness import Result, interleave, percentile, rounds_of
from .machine import allow_connections, child_at, computed, memory, need_linux, settled
from .nchan import PUBLISH_PATH, SUBSCRIBE_PATH, NchanProcess, find_nchan
from .publisher import Publisher, request_bytes
from .subscribers import Crowd

CONFIG: Final = "bench"
PADDING: Final = "x" * 512
ROUNDS: Final = 15
WARM_UP: Final = 3
COUNTS: Final = (1_000, 5_000)
SETTINGS: Final = {"LOG_LEVEL": "warning"}
"""nginx keeps no access log here, so the service keeps none either."""
AIM: Final = 1.0


class Kind(NamedTuple):
    """One kind of our streams: how it is asked for, what ends its beginning, and its heartbeat in seconds."""

    name: str
    request: Callable[[str], bytes]
    ready: bytes
    heartbeat: int


def _state_first(token: str) -> bytes:
    return request_bytes("POST", WATCH_PATH, {TOKEN_HEADER: token}, dump_watch_request([Held(CONFIG)]))


def _base(token: str) -> bytes:
    return request_bytes("GET", watch_path(CONFIG), {TOKEN_HEADER: token})


STATE_FIRST: Final = Kind("state-first", _state_first, b"event: synced", 15)
# A stream begins with a comment, at both servers.
BASE: Final = Kind("base", _base, b"\n:", 5)


class Seen(NamedTuple):
    """Of one round: milliseconds to the first and the middle subscriber and of the server's computing, and how busy the
    crowd's process was.
    """

    first: float
    middle: float
    computed: float
    busy: float


class Store(NamedTuple):
    """A store to begin with, and the tokens in it: one that may publish, and those of the subscribers."""

    service: ServiceProcess
    writer: str
    tokens: Sequence[str]


@dataclass
class Side:
    """A server with its crowd. ``request`` makes the publishing of a number, ``marker`` what its event is known by."""

    pid: int
    publisher: Publisher
    crowd: Crowd
    request: Callable[[int], bytes]
    marker: Callable[[int], str]
    idle: int
    """Bytes of memory before anybody was connected."""
    seen: list[Seen] = field(default_factory=list)

    def round(self) -> float:
        """Publish once more; return the milliseconds to the last subscriber, and note what was seen of the others."""
        number = len(self.seen)
        request = self.request(number)
        self.crowd.expect(self.marker(number))
        before = computed(self.pid)
        sent = self.publisher.send(request)
        self.publisher.answer()
        reception = self.crowd.reception()
        first, middle, last = ((at - sent) / 1e6 for at in (reception.first, reception.middle, reception.last))
        self.seen.append(Seen(first, middle, computed(self.pid) - before, reception.busy))
        return last


class Figures(NamedTuple):
    """What one comparison found, ours first: milliseconds of every round, and bytes of memory per connection."""

    last: tuple[list[float], list[float]]
    memory: tuple[float, float]


def run(quick: bool = False) -> list[Result]:
    """Return time to the last subscriber and memory per connection, for each number of subscribers."""
    need_linux()
    find_nchan()
    counts = (40,) if quick else COUNTS
    rounds = rounds_of(ROUNDS, quick=quick)
    allow_connections(max(counts))
    results = []
    with tempfile.TemporaryDirectory() as directory, _store(Path(directory), 1) as one:
        for count in counts:
            results += _results(STATE_FIRST, count, one, rounds, aim=AIM)
        for count in counts:
            results += _results(BASE, count, one, rounds, aim=None)
    with tempfile.TemporaryDirectory() as directory, _store(Path(directory), counts[-1]) as many:
        for kind in (STATE_FIRST, BASE):
            results += _results(kind, counts[-1], many, rounds, aim=None)
    return results


def _results(kind: Kind, count: int, store: Store, rounds: int, aim: float | None) -> list[Result]:
    tokens = "one token" if len(store.tokens) == 1 else f"{len(store.tokens)} tokens"
    print(f"  {kind.name} stream, {count} subscribers, {tokens}")
    figures = compare(kind, count, store, rounds)
    name = f"fanout {kind.name} {count}" + ("" if len(store.tokens) == 1 else " different tokens")
    ours, peer = (statistics.median(side) for side in figures.last)
    return [
        Result(f"{name} last", ours, peer, "milliseconds from the publish request to the last subscriber", aim=aim),
        Result(f"{name} memory", *figures.memory, "bytes of the serving process per connection", aim=aim),
    ]


def compare(kind: Kind, count: int, store: Store, rounds: int) -> Figures:
    """Connect ``count`` subscribers to both servers and publish ``rounds`` times, alternately."""
    with (
        tempfile.TemporaryDirectory() as ours_home,
        tempfile.TemporaryDirectory() as peer_home,
        ServiceProcess(Path(ours_home), SETTINGS, copy_of=store.service) as service,
        NchanProcess(Path(peer_home), [store.writer, *store.tokens], 2 * count, kind.heartbeat) as nchan,
        _our_side(kind, count, store, service) as (ours, sample),
        _peer_side(count, store, nchan, sample) as peer,
    ):
        taken = interleave(ours.round, peer.round, rounds=rounds, warm_up=WARM_UP)
        held = tuple((settled(partial(memory, side.pid)) - side.idle) / count for side in (ours, peer))
        for label, side, values, per_connection in zip(("ours", "nchan"), (ours, peer), taken, held, strict=True):
            seen = side.seen[WARM_UP:]
            print(
                f"    {label:5}: last {statistics.median(values):.1f} ms, p90 {percentile(values, 90):.1f}, "
                f"first {statistics.median(one.first for one in seen):.1f}, "
                f"middle {statistics.median(one.middle for one in seen):.1f}, "
                f"computing {statistics.median(one.computed for one in seen):.1f}; {per_connection:.0f} bytes per "
                f"connection; subscribers busy {statistics.median(one.busy for one in seen):.0%} of the time"
            )
        return Figures(taken, (held[0], held[1]))


@contextmanager
def _our_side(kind: Kind, count: int, store: Store, service: ServiceProcess) -> Iterator[tuple[Side, str]]:
    """Yield our side, connected, and an event as it sends them."""
    pid = child_at(service.directory)
    url = httpx.URL(service.url)
    host, port = url.host, url.port or 0
    headers = {TOKEN_HEADER: store.writer, "Content-Type": "application/json"}

    def publish(number: int) -> bytes:
        body = json.dumps({"number": number, "padding": PADDING}).encode()
        return request_bytes("PUT", f"/api/v1/manage/configs/{CONFIG}", headers, body)

    requests = [kind.request(token) for token in store.tokens]
    with Publisher(host, port) as publisher:
        publisher.send(publish(-2))
        version = int(json.loads(publisher.answer())["version"]) + 2

        def marker(number: int) -> str:
            return f'"version":{version + number},'

        with Crowd(host, port, requests[:1], 1, kind.ready) as probe:
            probe.expect(marker(-1))
            publisher.send(publish(-1))
            publisher.answer()
            sample = probe.reception().sample
        idle = settled(partial(memory, pid))
        with Crowd(host, port, requests, count, kind.ready) as crowd:
            yield Side(pid, publisher, crowd, publish, marker, idle), sample


@contextmanager
def _peer_side(count: int, store: Store, nchan: NchanProcess, sample: str) -> Iterator[Side]:
    """Yield the peer's side, connected; it is given events of the same type and data as ``sample``."""
    host, port = "127.0.0.1", nchan.port
    event, data = (re.findall(rf"^{field}: (.+)$", sample, re.MULTILINE)[-1] for field in ("event", "data"))
    headers = {TOKEN_HEADER: store.writer, "Content-Type": "application/json", "X-EventSource-Event": event}

    def marker(number: int) -> str:
        return f'"version":{number + 3},'

    def publish(number: int) -> bytes:
        return request_bytes("POST", PUBLISH_PATH, headers, re.sub(r'"version":\d+,', marker(number), data).encode())

    # nchan answers 403 to a reader that does not name the media type.
    accept = {"Accept": EVENT_STREAM_MEDIA_TYPE}
    requests = [request_bytes("GET", SUBSCRIBE_PATH, {TOKEN_HEADER: token, **accept}) for token in store.tokens]
    with Publisher(host, port) as publisher:
        with Crowd(host, port, requests[:1], 1, BASE.ready) as probe:
            probe.expect(marker(-1))
            publisher.send(publish(-1))
            publisher.answer()
            probe.reception()
        idle = settled(partial(memory, nchan.worker))
        with Crowd(host, port, requests, count, BASE.ready) as crowd:
            yield Side(nchan.worker, publisher, crowd, publish, marker, idle)


@contextmanager
def _store(directory: Path, tokens: int) -> Iterator[Store]:
    """Yield a store, of a service that does not run any more, with a token to publish and ``tokens`` to subscribe."""
    with ServiceProcess(directory, SETTINGS) as service:
        operator = service.operator()
        writer = operator.mint("publisher", scopes=("*@*:read,write",)).token
        minted = [operator.mint(f"subscriber-{number}").token for number in range(tokens)]
    yield Store(service, writer, minted)
