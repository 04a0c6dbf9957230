"""A PostgreSQL of one's own, in a directory of its own on a Unix socket, as durable as it is by default.

Knows PostgreSQL's programs. Refuses to run as root, as PostgreSQL does: then it runs as ``postgres`` or ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

from .machine import SkippedError

START_SECONDS: Final = 30.0
USER: Final = "bench"
_REMEDY: Final = "on Debian: apt-get install --no-install-recommends postgresql"


class PostgresProcess:
    """One server in ``directory``; as a context manager it is started and stopped. SkippedError without PostgreSQL."""

    def __init__(self, directory: Path) -> None:
        self._programs = find_postgres()
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        self.url: Final = f"postgresql://{USER}@/postgres?host={quote(str(directory), safe='')}"
        """Where the database is, for psycopg and for the service."""

    def __enter__(self) -> PostgresProcess:
        owner = _unprivileged()
        if owner is not None:
            os.chown(self._directory, owner.pw_uid, owner.pw_gid)
        data, sockets = str(self._directory / "data"), str(self._directory)
        made = self._spawn("initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C", "-U", USER)
        if made.wait():
            raise SkippedError(f"initdb failed: {self._log.read_text()[-300:]}")
        self._child = self._spawn("postgres", "-D", data, "-k", sockets, "-c", "listen_addresses=")
        deadline = time.monotonic() + START_SECONDS
        ready = [str(self._programs / "pg_isready"), "-q", "-h", sockets, "-U", USER]
        while time.monotonic() < deadline and self._child.poll() is None:
            if subprocess.run(ready, check=False).returncode == 0:
                return self
            time.sleep(0.05)
        self.stop()
        raise SkippedError(f"PostgreSQL did not start: {self._log.read_text()[-300:]}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, and every session with it."""
        child, self._child = self._child, None
        if child is not None:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        owner = _unprivileged()
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=() if owner else None,
            )


def find_postgres() -> Path:
    """Return the directory of PostgreSQL's programs. Raises SkippedError, which says how to get them."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).parent] if on_path else []
    # Debian keeps them out of PATH, by version.
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if all((place / program).exists() for program in ("initdb", "postgres", "pg_isready")):
            return place
    raise SkippedError(f"PostgreSQL is not installed; {_REMEDY}")


def _unprivileged() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]
