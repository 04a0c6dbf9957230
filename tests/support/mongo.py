"""A MongoDB-compatible server for tests: the one at the URL in MONGODB_URL, or a child from a binary of this machine.

``mongod`` and ``ferretdb`` are looked for on PATH; ``make ferretdb`` builds one into ``.cache/ferretdb``. A child keeps
its data in a directory of the test run, listens on loopback only, and ends with the tests. PyMongo is imported when it
is used: the SDK's tests run without it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "MONGODB_URL"
HOW_TO = (
    "needs a MongoDB-compatible server: `make ferretdb` builds one, or put mongod or ferretdb on PATH, or set "
    f"{VARIABLE} to the URL of a server, without a database, whose user may create databases"
)
_START = 30.0
"""Seconds after which a server counts as not starting."""


def binary() -> Path | None:
    """Return the program of a server, or None."""
    for name in ("mongod", "ferretdb"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    built = Path(__file__).parents[2] / ".cache" / "ferretdb" / "ferretdb"
    return built if built.exists() else None


def is_available() -> bool:
    """Tell whether tests can have a server."""
    return bool(os.environ.get(VARIABLE)) or binary() is not None


class MongoServer:
    """One server, in which every test has databases of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._used: set[str] = set()

    def database(self, name: str | None = None) -> str:
        """Return a store URL that leads to an empty database; the same name always leads to the same one."""
        name = name or f"test_{secrets.token_hex(8)}"
        self._used.add(name)
        base, mark, query = self.url.partition("?")
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def drop(self) -> None:
        """Drop every database that was asked for."""
        from pymongo import MongoClient

        with MongoClient[dict[str, object]](self.url) as client:
            for name in self._used:
                client.drop_database(name)
        self._used.clear()


@contextmanager
def any_server(directory: Path) -> Iterator[MongoServer]:
    """Give a server for a block; a child of ours keeps its data in ``directory``."""
    url = os.environ.get(VARIABLE)
    if url:
        yield MongoServer(url)
        return
    program = binary()
    if program is None:
        raise RuntimeError(HOW_TO)
    with _child(program, directory) as url:
        yield MongoServer(url)


@contextmanager
def _child(program: Path, directory: Path) -> Iterator[str]:
    data = directory / "data"
    data.mkdir(parents=True)
    server, url = _start(program, data, directory / "log")
    try:
        yield url
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _start(program: Path, data: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Return a server that answers, and its URL."""
    for _ in range(3):
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [program, *_arguments(program, data, port)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=data,
                env={"PATH": os.environ.get("PATH", ""), "DO_NOT_TRACK": "1"},
            )
        url = f"mongodb://127.0.0.1:{port}"
        if _answers(server, url):
            return server, url
        # Somebody else may have taken the port in between.
        server.kill()
        server.wait()
    raise RuntimeError(f"{program} did not start: {log.read_text(errors='replace')[-2_000:]}")


def _arguments(program: Path, data: Path, port: int) -> list[str]:
    if program.name.startswith("mongod"):
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


def _answers(server: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until the server answers; False: it does not."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    end = time.monotonic() + _START
    with MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=500) as client:
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(PyMongoError):
                client.admin.command("ping")
                return True
    return False
