"""A PostgreSQL server for tests, from the binaries of this machine or at the URL in CONFIG_TEST_POSTGRES_URL.

Knows PostgreSQL's own programs. Knows nothing of the service. A server that was started here listens on a Unix socket
in a directory of its own, and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

VARIABLE = "CONFIG_TEST_POSTGRES_URL"
HOW_TO = (
    f"needs PostgreSQL: install it (Debian: apt-get install postgresql), or set {VARIABLE} to the URL of a database "
    "whose user may create schemas"
)
_START = 30.0
"""Seconds after which a server counts as not starting."""
_NO_SYNC = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""For speed: a test kills processes, and cuts no power. What a store asks for itself is looked at in its sessions."""


@cache
def binaries() -> Path | None:
    """Return the directory of ``initdb`` and ``postgres``, or None. (Debian keeps them out of PATH.)"""
    places = [Path(found).parent for found in (shutil.which("initdb"), shutil.which("postgres")) if found]
    config = shutil.which("pg_config")
    if config:
        asked = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        places.append(Path(asked.stdout.strip() or "/nonexistent"))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    places += sorted(versions, key=lambda place: float(place.parent.name), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


def is_available() -> bool:
    """Tell whether tests can have a server."""
    return bool(os.environ.get(VARIABLE)) or binaries() is not None


class PostgresServer:
    """One server with one database, in which every test gets a schema of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        """The URL of the database."""

    def schema(self, name: str | None = None) -> str:
        """Return a store URL that leads to an empty schema; the same name always leads to the same one.

        Sessions of that URL bear the name of the schema, by which ``sessions`` knows them.
        """
        import psycopg

        name = name or f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"'.encode())
        parts = urlsplit(self.url)
        own = f"application_name={name}", f"options={quote(f'-csearch_path={name}', safe='')}"
        return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, *own)))))


def sessions(url: str) -> str:
    """Return the SQL from FROM on that finds the sessions which others have with the store at ``url``."""
    (name,) = parse_qs(urlsplit(url).query)["application_name"]
    return f"FROM pg_stat_activity WHERE application_name = '{name}' AND pid <> pg_backend_pid()"


class OwnServer(PostgresServer):
    """A server in a temporary directory, which may be stopped, killed and started again."""

    def __init__(self, directory: Path, programs: Path, settings: tuple[str, ...]) -> None:
        super().__init__(f"postgresql://config@/postgres?host={quote(str(directory), safe='')}")
        self._directory = directory
        self._programs = programs
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self._directory / "log").read_text(errors="replace")

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._directory / ".s.PGSQL.5432"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return int((self._directory / "data" / "postmaster.pid").read_text().split()[0])

    def create(self) -> None:
        """Make its files."""
        self._run("initdb", "--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C", "-U", "config")

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._child = self._spawn()
        deadline = time.monotonic() + _START
        while not self._answers():
            assert time.monotonic() < deadline, self.log
            if self._child.poll() is not None:
                # After a kill it has to wait until what is left of the former server has noticed.
                self._child = self._spawn()
            time.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = [f"-c{setting}" for setting in ("listen_addresses=", "max_connections=200", *self._settings)]
        command = [str(self._programs / "postgres"), "-D", self._data, "-k", str(self._directory), *options]
        # The end of the shell's input is the end of this process; then the server is stopped.
        script = 'exec 3<&0; "$@" & server=$!; { read -r _ <&3; kill -INT $server; } & wait $server; kill $!'
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                start_new_session=True,
                **_unprivileged(),
            )

    def stop(self) -> None:
        """Stop it: sessions are ended, transactions rolled back."""
        child, self._child = self._child, None
        if child is not None:
            child.communicate(timeout=_START)

    def kill(self) -> None:
        """Kill it, so that it has to recover when it is started again."""
        server = self.pid
        children = Path(f"/proc/{server}/task/{server}/children")
        sessions = children.read_text().split() if children.exists() else []
        os.kill(server, signal.SIGKILL)
        self.stop()
        # They end when they notice, and answer until then.
        deadline = time.monotonic() + _START
        while any(Path(f"/proc/{session}").exists() for session in sessions):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def _data(self) -> str:
        return str(self._directory / "data")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-D", self._data, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._directory,
            **_unprivileged(),
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def running_server(*settings: str) -> Iterator[OwnServer]:
    """Start a server of one's own for a block. Needs the binaries."""
    programs = binaries()
    assert programs is not None, HOW_TO
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        user = _unprivileged().get("user")
        if user is not None:
            shutil.chown(directory, user)
        server = OwnServer(directory, programs, (*_NO_SYNC, *settings))
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def any_server() -> Iterator[PostgresServer]:
    """Give the server that the environment names, or one of one's own, for a block."""
    given = os.environ.get(VARIABLE)
    if given:
        yield PostgresServer(given)
        return
    with running_server() as server:
        yield server


def _unprivileged() -> dict[str, object]:
    """Return how to start a child that is not root: the server refuses to be."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": ()}
