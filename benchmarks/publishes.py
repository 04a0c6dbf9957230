"""Durable publishes through the management API, against bare commits of the same bytes into the same database."""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import psycopg

from config_client.protocol import TOKEN_HEADER
from config_service.process import ServiceProcess

from .harness import Result, interleave, rounds_of
from .load import Load
from .machine import SkippedError, need_linux
from .postgres import PostgresProcess, find_postgres
from .publisher import request_bytes

ROUNDS: Final = 9
PUBLISHES: Final = 300
"""Of one round."""
CONFIGS: Final = 50
PADDING: Final = "x" * 512
SETTINGS: Final = {"LOG_LEVEL": "warning", "RATE_LIMIT": "0"}


def run(quick: bool = False) -> list[Result]:
    """Return microseconds per publish, of one publisher and of eight at a time, beside a commit of a bare program."""
    need_linux()
    results = []
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as bare_home,
        ServiceProcess(Path(home), SETTINGS) as service,
        BareSqlite(Path(bare_home) / "bare.db") as bare,
    ):
        results += _compare("SQLite", service, bare.commits, quick=quick)
    try:
        find_postgres()
    except SkippedError as reason:
        print(f"  PostgreSQL skipped: {reason}")
        return results
    with (
        tempfile.TemporaryDirectory() as database_home,
        tempfile.TemporaryDirectory() as home,
        PostgresProcess(Path(database_home)) as database,
        ServiceProcess(Path(home), {**SETTINGS, "STORE_URL": database.url}) as service,
        BarePostgres(database.url) as bare_postgres,
    ):
        results += _compare("PostgreSQL", service, bare_postgres.commits, quick=quick)
    return results


def _compare(database: str, service: ServiceProcess, bare: Callable[[int], float], *, quick: bool) -> list[Result]:
    count = 40 if quick else PUBLISHES
    publisher = _Publishing(service)
    results = []
    for connections in (1, 8):
        with publisher.connect(connections) as load:
            ours, peer = (
                statistics.median(side)
                for side in interleave(
                    partial(publisher.run, load, count),
                    partial(bare, count),
                    rounds=rounds_of(ROUNDS, quick=quick),
                )
            )
        print(f"  {database}, {connections} at a time: {1e6 / ours:.0f} publishes/s, bare {1e6 / peer:.0f} commits/s")
        name = f"publishes {database} {connections} at a time"
        results.append(Result(name, ours, peer, "microseconds per durable publish"))
    return results


class _Publishing:
    """Publishes documents that were never published before, over and over the same configs."""

    def __init__(self, service: ServiceProcess) -> None:
        url = httpx.URL(service.url)
        self._address = (url.host, url.port or 80)
        token = service.operator().mint("writer", scopes=("*@*:read,write",)).token
        self._headers = {TOKEN_HEADER: token, "Content-Type": "application/json"}
        self._number = 0
        with self.connect(1) as load:
            load.run_each(self._requests(CONFIGS), 201)

    def connect(self, connections: int) -> Load:
        return Load(*self._address, connections)

    def run(self, load: Load, count: int) -> float:
        """Publish ``count`` times and return microseconds per publish."""
        return load.run_each(self._requests(count), 201).seconds / count * 1e6

    def _requests(self, count: int) -> list[bytes]:
        requests = []
        for _ in range(count):
            self._number += 1
            path = f"/api/v1/manage/configs/bench-{self._number % CONFIGS}"
            requests.append(request_bytes("PUT", path, self._headers, document(self._number)))
        return requests


class BareSqlite:
    """A table of documents in a file of its own, as durable as ours, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._number = 0

    def __enter__(self) -> BareSqlite:
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE documents (id INTEGER PRIMARY KEY, document BLOB)",
        ):
            self._connection.execute(statement)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def commits(self, count: int) -> float:
        """Commit ``count`` documents, one by one, and return microseconds per commit."""
        started = time.perf_counter()
        for _ in range(count):
            self._number += 1
            self._connection.execute("INSERT INTO documents (document) VALUES (?)", (document(self._number),))
        return (time.perf_counter() - started) / count * 1e6


class BarePostgres:
    """A table of documents in the same database, over one session, and nothing else."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._number = 0

    def __enter__(self) -> BarePostgres:
        self._connection.execute("CREATE TABLE bare_documents (id bigserial PRIMARY KEY, document bytea)")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def commits(self, count: int) -> float:
        """Commit ``count`` documents, one by one, and return microseconds per commit."""
        started = time.perf_counter()
        for _ in range(count):
            self._number += 1
            self._connection.execute("INSERT INTO bare_documents (document) VALUES (%s)", (document(self._number),))
        return (time.perf_counter() - started) / count * 1e6


def document(number: int) -> bytes:
    """Return a document that no other number has."""
    return json.dumps({"number": number, "padding": PADDING}).encode()
