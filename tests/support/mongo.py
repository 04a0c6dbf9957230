"""A MongoDB-compatible server for tests: the one that ``MONGODB_URL`` names, or a child of ours.

``mongod`` and ``ferretdb`` are looked for on PATH; ``make ferretdb`` builds one into ``.cache/ferretdb``. A child keeps
its data in a directory of the test run, listens on loopback only, and ends with the tests.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pymongo import MongoClient
from pymongo.errors import PyMongoError

ROOT: Final = Path(__file__).parents[2]
MISSING: Final = "no MongoDB-compatible server: set MONGODB_URL, put mongod or ferretdb on PATH, or build FerretDB by `make ferretdb`"
START_SECONDS: Final = 60.0


def find_server() -> Path | None:
    """Return the binary of a server, or None."""
    for name in ("mongod", "ferretdb"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    built = ROOT / ".cache" / "ferretdb" / "ferretdb"
    return built if built.exists() else None


@contextmanager
def running_server(binary: Path, directory: Path) -> Iterator[str]:
    """Run a server that keeps its data in ``directory`` for a block, and give its URL without a database."""
    data = directory / "data"
    data.mkdir(parents=True)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [binary, *_arguments(binary, data, port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=data,
            env={"PATH": os.environ.get("PATH", ""), "DO_NOT_TRACK": "1"},
        )
        try:
            url = f"mongodb://127.0.0.1:{port}"
            _wait(server, url, directory / "log")
            yield url
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _arguments(binary: Path, data: Path, port: int) -> list[str]:
    if binary.name.startswith("mongod"):
        return ["--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
    return [
        "--handler=sqlite",
        f"--sqlite-url=file:{data}/",
        f"--listen-addr=127.0.0.1:{port}",
        "--debug-addr=-",
        "--telemetry=disable",
        f"--state-dir={data}",
        "--log-level=error",
    ]


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once the server answers."""
    end = time.monotonic() + START_SECONDS
    with contextlib.closing(MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=500)) as client:
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(PyMongoError):
                client.admin.command("ping")
                return
    raise RuntimeError(f"{server.args} did not start: {log.read_text(errors='replace')[-2_000:]}")
