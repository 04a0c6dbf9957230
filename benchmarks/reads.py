"""GET of a config, 200 and 304, with authentication: against etcd's HTTP gateway, and a bare ASGI application."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Final

import httpx

from config_client.protocol import TOKEN_HEADER, config_path
from config_service.process import ServiceProcess

from .bare import BareProcess
from .etcd import EtcdProcess, find_etcd
from .harness import ROUNDS, Result, rounds_of
from .load import Load
from .machine import need_linux
from .publisher import request_bytes

CONFIG: Final = "bench"
DOCUMENT: Final = {"host": "db1.internal", "port": 5432, "padding": "x" * 512}
CONNECTIONS: Final = 16
REQUESTS: Final = 2_000
"""Of one round."""
SETTINGS: Final = {"LOG_LEVEL": "warning", "RATE_LIMIT": "0"}
"""The peers keep no access log and limit nobody."""
ETCD_AIM: Final = 0.2
"""Five times the requests in the same time."""
BARE_AIM: Final = 2.0
"""Half the requests in the same time."""


def run(quick: bool = False) -> list[Result]:
    """Return microseconds per request of 16 connections in a closed loop, ours beside each peer."""
    need_linux()
    find_etcd()
    with (
        tempfile.TemporaryDirectory() as ours_home,
        tempfile.TemporaryDirectory() as etcd_home,
        ServiceProcess(Path(ours_home), SETTINGS) as service,
        EtcdProcess(Path(etcd_home)) as etcd,
    ):
        operator = service.operator()
        operator.publish(CONFIG, DOCUMENT)
        token = operator.mint("reader").token
        path = config_path(CONFIG)
        answer = httpx.get(service.url + path, headers={TOKEN_HEADER: token}, trust_env=False).raise_for_status()
        tag = answer.headers["etag"]
        etcd.put(CONFIG, answer.content)
        url = httpx.URL(service.url)
        fetch = request_bytes("GET", path, {TOKEN_HEADER: token})
        look = request_bytes("GET", path, {TOKEN_HEADER: token, "If-None-Match": tag})
        with (
            BareProcess(len(answer.content), tag) as bare,
            Load(url.host, url.port or 80, CONNECTIONS) as at_ours,
            Load("127.0.0.1", etcd.port, CONNECTIONS) as at_etcd,
            Load("127.0.0.1", bare.port, CONNECTIONS) as at_bare,
        ):
            sides = {
                "ours 200": (at_ours, fetch, 200),
                "etcd": (at_etcd, etcd.read_request(CONFIG), 200),
                "bare 200": (at_bare, fetch, 200),
                "ours 304": (at_ours, look, 304),
                "bare 304": (at_bare, look, 304),
            }
            taken: dict[str, list[float]] = {name: [] for name in sides}
            requests = 200 if quick else REQUESTS
            for number in range(rounds_of(ROUNDS, quick=quick) + 1):
                for name in sides if number % 2 else reversed(sides):
                    load, request, status = sides[name]
                    seconds = load.run(request, requests, status).seconds
                    if number:
                        taken[name].append(seconds / requests * 1e6)
    median = {name: statistics.median(values) for name, values in taken.items()}
    for name, values in taken.items():
        print(f"  {name}: {1e6 / median[name]:.0f} requests/s; {min(values):.0f} … {max(values):.0f} microseconds")
    unit = f"microseconds per request, {CONNECTIONS} connections"
    return [
        Result("reads 200 beside etcd", median["ours 200"], median["etcd"], unit, aim=ETCD_AIM),
        Result("reads 200 beside bare ASGI", median["ours 200"], median["bare 200"], unit, aim=BARE_AIM),
        Result("reads 304 beside bare ASGI", median["ours 304"], median["bare 304"], unit, aim=BARE_AIM),
    ]
