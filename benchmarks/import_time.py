"""Process start until a client exists, against importing httpx, httpx_sse and AESGCM and building an httpx.Client."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Final

from .harness import Result, alternate, rounds_of

ROUNDS: Final = 21

# os._exit: how long an interpreter takes to tear down is nobody's import time.
OURS: Final = """
import os
from config_client import ConfigClient, Options
ConfigClient(Options(host="https://localhost:1", service_token="t", encryption_key="00" * 32))
os._exit(0)
"""
PEER: Final = """
import os
import httpx, httpx_sse
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
httpx.Client(base_url="https://localhost:1")
os._exit(0)
"""


def run(quick: bool = False) -> list[Result]:
    """Return milliseconds per process."""

    # Both sides run from cached bytecode, as installed packages do, whatever this process was told about writing it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def milliseconds(program: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, env=environment)
        return (time.perf_counter() - started) * 1e3

    ours, peer = alternate(
        lambda: milliseconds(OURS), lambda: milliseconds(PEER), rounds=rounds_of(ROUNDS, quick=quick)
    )
    return [Result("import_time", ours, peer, "milliseconds per process", aim=1.1)]
