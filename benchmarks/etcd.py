"""etcd as the peer: one member with authentication on, a data directory of its own, spoken to by its HTTP gateway.

Knows etcd's flags and the gateway's JSON, in which keys and values are base64. Its values are in memory, like ours;
reads are asked for as ``serializable``, which etcd answers from there without asking its quorum.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final

import httpx

from .machine import SkippedError
from .publisher import request_bytes

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 20.0
_REMEDY: Final = "on Debian: apt-get install --no-install-recommends etcd-server"


class EtcdProcess:
    """One etcd in ``directory``; as a context manager it is started and stopped. Raises SkippedError without etcd."""

    def __init__(self, directory: Path) -> None:
        self._program = find_etcd()
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        self._token = ""
        self.port, self._peer_port = _free_ports()

    def __enter__(self) -> EtcdProcess:
        client, peer = (f"http://{HOST}:{port}" for port in (self.port, self._peer_port))
        log = (self._directory / "etcd.log").open("wb")
        with log:
            self._child = subprocess.Popen(
                [
                    self._program,
                    *("--data-dir", str(self._directory / "data"), "--name", "bench"),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"bench={peer}", "--log-level", "error"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait()
            self._require_authentication()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End etcd."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            try:
                child.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def put(self, key: str, value: bytes) -> None:
        """Keep ``value`` under ``key``."""
        self._call("kv/put", {"key": _base64(key.encode()), "value": _base64(value)})

    def read_request(self, key: str) -> bytes:
        """Return the request that reads ``key``, with the proof of who asks."""
        body = json.dumps({"key": _base64(key.encode()), "serializable": True}).encode()
        headers = {"Authorization": self._token, "Content-Type": "application/json"}
        return request_bytes("POST", "/v3/kv/range", headers, body)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._child is not None and self._child.poll() is None:
            try:
                if httpx.get(f"http://{HOST}:{self.port}/health", trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise SkippedError(f"etcd did not start: {(self._directory / 'etcd.log').read_text().strip()[-300:]}")

    def _require_authentication(self) -> None:
        password = secrets.token_hex(16)
        self._call("auth/user/add", {"name": "root", "password": password})
        self._call("auth/role/add", {"name": "root"})
        self._call("auth/user/grant", {"user": "root", "role": "root"})
        self._call("auth/enable", {})
        self._token = str(self._call("auth/authenticate", {"name": "root", "password": password})["token"])

    def _call(self, method: str, body: dict[str, str]) -> dict[str, object]:
        headers = {"Authorization": self._token} if self._token else {}
        answer = httpx.post(f"http://{HOST}:{self.port}/v3/{method}", json=body, headers=headers, trust_env=False)
        found: dict[str, object] = answer.raise_for_status().json()
        return found


def find_etcd() -> str:
    """Return etcd's program. Raises SkippedError, which says how to get it."""
    program = shutil.which("etcd")
    if program is None:
        raise SkippedError(f"etcd is not installed; {_REMEDY}")
    return program


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
