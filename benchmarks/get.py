"""Fetching and decoding a config, against a bare script of httpx, AESGCM and json on the same service."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config_client import ConfigClient, Options
from config_service.process import ServiceProcess

from .harness import Result, alternate, rounds_of

GETS: Final = 25
ROUNDS: Final = 101
"""Many short rounds, so that both sides meet the same moments of a busy machine."""
DOCUMENT: Final = {"host": "db1.internal", "port": 5432, "tags": ["a", "b"], "limits": {"rps": 100, "burst": 20}}


def run(quick: bool = False) -> list[Result]:
    """Return microseconds per get, both sides reusing one connection."""
    with tempfile.TemporaryDirectory() as directory, ServiceProcess(Path(directory)) as service:
        operator = service.operator()
        operator.publish("bench", DOCUMENT)
        access = operator.mint("bench")
        url = f"{service.url}/api/v1/service/configs/bench"
        cipher = AESGCM(bytes.fromhex(access.key))
        with (
            ConfigClient(Options(host=service.url, service_token=access.token, encryption_key=access.key)) as client,
            httpx.Client(headers={"X-Service-Token": access.token}) as bare,
        ):

            def get_bare() -> object:
                response = bare.get(url)
                response.raise_for_status()
                return json.loads(cipher.decrypt(response.content[:12], response.content[12:], None))

            assert client.get_raw("bench") == get_bare() == DOCUMENT
            ours, peer = alternate(
                lambda: _microseconds(lambda: client.get_raw("bench")),
                lambda: _microseconds(get_bare),
                rounds=rounds_of(ROUNDS, quick=quick),
            )
    return [Result("get", ours, peer, "microseconds per get", aim=1.15)]


def _microseconds(get: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(GETS):
        get()
    return (time.perf_counter() - started) / GETS * 1e6
