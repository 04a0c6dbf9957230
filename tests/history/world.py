"""Replicas on one PostgreSQL, concurrent clients that record what they were told, and misfortune drawn from a seed.

Knows the management API, our SDK and processes. Judges nothing: that is the checker's.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import httpx
import psycopg

from config_client import Change, ConfigClient, Options, Subscription
from config_client.errors import ConfigClientError
from config_client.protocol import TOKEN_HEADER
from config_service.process import Operator, ServiceProcess

from .records import Event, History, Kept, Publish, Read

REPLICAS: Final = 3
KEYS: Final = 3
PUBLISHERS: Final = 4
CLIENTS: Final = 3
PUBLISHES: Final = 30
"""By each publisher of one run."""
SETTLED_WITHIN: Final = 60.0
"""Seconds in which every watch must be current when all is quiet: some hundred times what it takes."""
_ANSWER_WITHIN: Final = 10.0
_SETTINGS: Final = {
    "HEARTBEAT_INTERVAL": "0.3",
    "WATCH_HEARTBEAT_INTERVAL": "0.3",
    "RATE_LIMIT": "0",
    "LOG_LEVEL": "error",
}


class Replicas(Protocol):
    """Several services on one store."""

    urls: Sequence[str]

    def operator(self) -> Operator:
        """Return a client of the management API with every right."""

    def disturb(self, chance: random.Random) -> None:
        """Do something that a service of record must survive."""

    def heal(self) -> None:
        """See that every replica serves."""


class Processes:
    """Replicas as real processes, which are killed, and whose sessions at the database are ended."""

    def __init__(self, directory: Path, database: str, sessions: str) -> None:
        self._services: list[ServiceProcess] = []
        self._sessions = sessions
        self._down: set[int] = set()
        for number in range(REPLICAS):
            home = directory / f"replica-{number}"
            home.mkdir()
            if number == 0:
                service = ServiceProcess(home, {"STORE_URL": database, **_SETTINGS})
            else:
                service = ServiceProcess(home, _SETTINGS, replica_of=self._services[0])
            self._services.append(service)
        self.urls: Sequence[str] = ()
        self.kills = 0
        self.ended_sessions = 0

    def __enter__(self) -> Processes:
        with ExitStack() as stack:
            for service in self._services:
                stack.enter_context(service)
            self.urls = [service.url for service in self._services]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def operator(self) -> Operator:
        """Return a client of the management API with every right, at a replica that serves."""
        return next(service for number, service in enumerate(self._services) if number not in self._down).operator()

    def disturb(self, chance: random.Random) -> None:
        """Kill a replica, start the one that was killed before, or end sessions at the database."""
        act = chance.random()
        if act < 0.4:
            self.ended_sessions += end_sessions(self._sessions, chance.choice((1, 3, 1000)))
        elif self._down:
            self.heal()
        else:
            number = chance.randrange(REPLICAS)
            self._down.add(number)
            self._services[number].kill()
            self.kills += 1

    def heal(self) -> None:
        """Start what was killed."""
        for number in sorted(self._down):
            self._services[number].start()
            self._down.discard(number)


def end_sessions(url: str, most: int) -> int:
    """End up to ``most`` sessions of others at the database and return how many there were."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            " AND backend_type = 'client backend' ORDER BY random() LIMIT %s) chosen",
            (most,),
        ).fetchone()
    return int(ended[0]) if ended else 0


def play(replicas: Replicas, seed: int, *, disturbances: int, settled_within: float = SETTLED_WITHIN) -> History:
    """Let clients work on configs of their own at all replicas, disturb them, and return what they were told."""
    chance = random.Random(seed)
    history = History()
    keys = [f"history-{seed}-{number}" for number in range(KEYS)]
    numbers = _Numbers()
    replicas.heal()
    operator = replicas.operator()
    access = operator.mint(f"history-{seed}")
    writer = operator.mint(f"history-{seed}-writer", scopes=("history-*@*:read,write",)).token
    for key in keys:
        with operator_client(replicas.urls[0], writer) as first:
            _publish(history, first, key, numbers.next())
    with ExitStack() as stack:
        clients = [
            stack.enter_context(_client(replicas.urls, number, access.token, access.key)) for number in range(CLIENTS)
        ]
        watches = {
            (f"client-{number}", key): _watch(client, f"client-{number}", key, history)
            for number, client in enumerate(clients)
            for key in keys
        }
        done = threading.Event()
        publishers = [
            threading.Thread(
                target=_publish_many,
                args=(history, replicas.urls, writer, keys, numbers, random.Random(f"{seed} {number}")),
            )
            for number in range(PUBLISHERS)
        ]
        readers = [
            threading.Thread(
                target=_read_on,
                args=(history, client, f"client-{number}", keys, random.Random(f"{seed} r{number}"), done),
            )
            for number, client in enumerate(clients)
        ]
        for thread in (*publishers, *readers):
            thread.start()
        try:
            for _ in range(disturbances):
                # Between two disturbances some work is to be done, whatever the machine's pace.
                _wait_for_work(history, publishers, chance.randrange(3, 15))
                replicas.disturb(chance)
            for thread in publishers:
                thread.join()
        finally:
            done.set()
            for thread in (*publishers, *readers):
                thread.join()
            replicas.heal()
        history.kept = [one for key in keys for one in _kept(replicas.urls[0], access.token, writer, key)]
        newest = {one.key: one.version for one in history.kept}
        for (client_name, key), subscription in watches.items():
            subscription.snapshot.wait_for(version=newest[key], timeout=settled_within)
            history.held[client_name, key] = subscription.snapshot.version or 0
    return history


def operator_client(url: str, token: str) -> httpx.Client:
    """Return a client of the management API with ``token``."""
    return httpx.Client(
        base_url=url,
        headers={TOKEN_HEADER: token, "Content-Type": "application/json"},
        timeout=_ANSWER_WITHIN,
        trust_env=False,
    )


class _Numbers:
    """1, 2, 3 … for documents that no other is like."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last += 1
            return self._last


def _publish_many(
    history: History,
    urls: Sequence[str],
    writer: str,
    keys: Sequence[str],
    numbers: _Numbers,
    chance: random.Random,
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(operator_client(url, writer)) for url in urls]
        for _ in range(PUBLISHES):
            _publish(history, chance.choice(clients), chance.choice(keys), numbers.next())


def _publish(history: History, client: httpx.Client, key: str, number: int) -> None:
    """Publish once; whatever is no acknowledgement leaves open whether it was done."""
    asked = time.monotonic()
    try:
        answer = client.put(f"/api/v1/manage/configs/{quote(key)}", content=json.dumps({"number": number}))
    except httpx.TransportError:
        history.add(Publish(key, number, asked))
        # A replica that is down refuses at once; the others are asked all the same.
        time.sleep(0.02)
        return
    if answer.is_success:
        row = answer.json()
        history.add(Publish(key, number, asked, time.monotonic(), row["version"], row["revision"]))
    elif answer.status_code in {409, 500, 503}:
        history.add(Publish(key, number, asked))
    else:
        raise AssertionError(f"publish was answered {answer.status_code}: {answer.text}")


def _read_on(
    history: History,
    client: ConfigClient,
    name: str,
    keys: Sequence[str],
    chance: random.Random,
    done: threading.Event,
) -> None:
    while not done.wait(0.005):
        key = chance.choice(keys)
        asked = time.monotonic()
        try:
            document = client.get_raw(key)
        except ConfigClientError:
            continue
        number = document["number"]
        assert isinstance(number, int)
        history.add(Read(name, key, asked, number))


def _watch(client: ConfigClient, name: str, key: str, history: History) -> Subscription[dict[str, object]]:
    subscription: Subscription[dict[str, object]] = client.subscribe(key, dict, timeout=SETTLED_WITHIN)

    def note(change: Change[dict[str, object]]) -> None:
        number = change.new["number"]
        assert isinstance(number, int)
        assert change.version is not None
        history.add(Event(name, key, time.monotonic(), change.version, number))

    subscription.snapshot.on_change(note)
    return subscription


@contextmanager
def _client(urls: Sequence[str], first: int, token: str, key: str) -> Iterator[ConfigClient]:
    """Yield a client that knows all replicas and begins with another one than its neighbours."""
    order = [urls[(first + number) % len(urls)] for number in range(len(urls))]
    options = Options(
        host=",".join(order),
        service_token=token,
        encryption_key=key,
        request_timeout=5.0,
        retry_delay=0.05,
        max_retry_delay=0.2,
        cache=False,
    )
    with ConfigClient(options) as client:
        yield client


def _wait_for_work(history: History, publishers: Sequence[threading.Thread], more: int) -> None:
    target = len(history.publishes) + more
    while len(history.publishes) < target and any(thread.is_alive() for thread in publishers):
        time.sleep(0.01)


def _kept(url: str, token: str, writer: str, key: str) -> list[Kept]:
    """Return every version of ``key`` with what its document says."""
    with operator_client(url, writer) as manage, operator_client(url, token) as service:
        rows = manage.get(f"/api/v1/manage/configs/{quote(key)}/history").raise_for_status().json()["versions"]

        def number(version: int) -> int:
            answer = service.get(f"/api/v1/service/configs/{quote(key)}/formatted", params={"version": version})
            return int(answer.raise_for_status().json()["number"])

        return [Kept(key, row["version"], row["revision"], number(row["version"])) for row in reversed(rows)]
