"""The median read of a service with 100,000 configs, against the same service with 10; memory and start per config."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import httpx

from config_client.protocol import TOKEN_HEADER, config_path
from config_service.app import opened
from config_service.domain.keys import ConfigKey
from config_service.process import ServiceProcess
from config_service.settings import Settings

from .harness import Result, rounds_of
from .load import Load
from .machine import child_at, memory, need_linux, settled
from .publisher import request_bytes

FEW: Final = 10
MANY: Final = 100_000
QUICK_MANY: Final = 300
ROUNDS: Final = 41
READS: Final = 500
"""Of one round, over one connection, of configs taken at random."""
TOGETHER: Final = 500
"""Configs of one transaction."""
SETTINGS: Final = {"LOG_LEVEL": "warning", "RATE_LIMIT": "0"}
AIM: Final = 1.2


def run(quick: bool = False) -> list[Result]:
    """Return microseconds per read with many configs beside few, and what a config takes of memory and of a start."""
    need_linux()
    many = QUICK_MANY if quick else MANY
    with (
        tempfile.TemporaryDirectory() as few_home,
        tempfile.TemporaryDirectory() as many_home,
        ServiceProcess(Path(few_home), SETTINGS) as small,
        ServiceProcess(Path(many_home), SETTINGS) as large,
    ):
        began = time.perf_counter()
        tokens = {service.url: _fill(service, count) for service, count in ((small, FEW), (large, many))}
        print(f"  published {many + FEW} configs in {time.perf_counter() - began:.0f} s")
        started = {}
        for service in (small, large):
            began = time.perf_counter()
            service.start()
            started[service.url] = time.perf_counter() - began
        held = [settled(partial(memory, child_at(Path(home)))) for home in (few_home, many_home)]
        chance = random.Random(many)
        medians: dict[str, list[float]] = {small.url: [], large.url: []}
        for service, count in ((small, FEW), (large, many)):
            # Each is sealed when it is read for the first time.
            with _connect(service) as load:
                load.run_each(_requests(range(count), tokens[service.url]), 200)
        with _connect(small) as at_small, _connect(large) as at_large:
            sides = ((small.url, at_small, FEW), (large.url, at_large, many))
            for number in range(rounds_of(ROUNDS, quick=quick) + 1):
                for url, load, count in sides if number % 2 else reversed(sides):
                    numbers = [chance.randrange(count) for _ in range(READS)]
                    taken = load.run_each(_requests(numbers, tokens[url]), 200)
                    if number:
                        medians[url].append(statistics.median(taken.each) * 1e6)
        large_read, small_read = (statistics.median(medians[service.url]) for service in (large, small))
        per_config = (held[1] - held[0]) / (many - FEW)
        starting = (started[large.url] - started[small.url]) / (many - FEW) * 1e6
    return [
        Result("growth read p50", large_read, small_read, f"microseconds, {many} configs beside {FEW}", aim=AIM),
        Result("growth memory", per_config, None, "bytes of resident memory per config after a start"),
        Result("growth start", max(starting, 0.0), None, "microseconds of a start per config"),
    ]


def _fill(service: ServiceProcess, count: int) -> str:
    """Publish ``count`` configs, hundreds in a transaction, while the service is stopped; return a token to read."""
    reader = service.operator().mint("reader").token
    service.stop()
    settings = Settings.load(
        store_url=f"sqlite:///{service.directory / 'config.db'}",
        master_key=service.environment["CONFIG_SERVER_MASTER_KEY"],
    )

    async def publish() -> None:
        async with opened(settings) as operations:
            token = (await operations.tokens.bootstrap("filler")).token
            for first in range(0, count, TOGETHER):
                numbers = range(first, min(first + TOGETHER, count))
                await operations.publish_together(
                    token, {ConfigKey(_name(number)): _document(number) for number in numbers}
                )

    asyncio.run(publish())
    return reader


def _connect(service: ServiceProcess) -> Load:
    url = httpx.URL(service.url)
    return Load(url.host, url.port or 80, 1)


def _requests(numbers: Iterable[int], token: str) -> list[bytes]:
    return [request_bytes("GET", config_path(_name(number)), {TOKEN_HEADER: token}) for number in numbers]


def _name(number: int) -> str:
    return f"service-{number}"


def _document(number: int) -> bytes:
    return json.dumps({"host": f"db{number}.internal", "port": 5432, "padding": "x" * 256}).encode()
