"""A real service in a child process, for tests, benchmarks and demonstrations.

Knows the command line and the management API, as an operator does; nothing of the service's inside.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

import httpx

from config_client.protocol import TOKEN_HEADER

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0

_SECRET: Final = re.compile(r"\bcst_[A-Za-z0-9_-]+")
_LISTENING: Final = re.compile(r"Listening on (https?://[^\s\"]+)")


class ProcessError(RuntimeError):
    """The child did not do what was asked; the message holds the end of its log."""


@dataclass(frozen=True)
class Credentials:
    """What a client needs besides the URL, and the token's id for its operator. The repr hides secret and key."""

    token: str = field(repr=False)
    key: str = field(repr=False)
    token_id: int = 0


class Operator:
    """Publishes and mints tokens over the management API. Raises httpx.HTTPStatusError when the service refuses."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1/manage", headers={TOKEN_HEADER: token}, trust_env=False)

    def publish(
        self, name: str, document: Mapping[str, object] | bytes, *, environment: str = "", label: str = ""
    ) -> int:
        """Publish ``document`` and return its version once it is durable."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return int(self._call("PUT", name, content=body, environment=environment, label=label)["version"])

    def delete(self, name: str, *, environment: str = "", label: str = "") -> int:
        """Delete the config and return the version of its tombstone."""
        return int(self._call("DELETE", name, environment=environment, label=label)["version"])

    def roll_back(self, name: str, version: int, *, environment: str = "", label: str = "") -> int:
        """Publish ``version`` again and return the new version."""
        body = json.dumps({"version": version}).encode()
        answer = self._call("POST", name, "/rollback", content=body, environment=environment, label=label)
        return int(answer["version"])

    def history(self, name: str, *, environment: str = "", label: str = "") -> list[dict[str, object]]:
        """Return the versions of a config, newest first."""
        response = self._client.get(
            f"/configs/{quote(name, safe='')}/history", params=_named(environment=environment, label=label)
        )
        rows: list[dict[str, object]] = response.raise_for_status().json()["versions"]
        return rows

    def mint(self, name: str, *, environment: str = "default", scopes: tuple[str, ...] = ()) -> Credentials:
        """Create a token and return its secret, its key and its id."""
        fields: dict[str, object] = {"name": name, "environment": environment}
        if scopes:
            fields["scopes"] = list(scopes)
        answer = self._client.post("/tokens", json=fields).raise_for_status().json()
        return Credentials(token=answer["secret"], key=answer["key"], token_id=answer["id"])

    def rotate_key(self, token_id: int, overlap_seconds: int) -> str:
        """Give a token a new key and return it, as 64 hex characters; the keys before it end after the overlap."""
        answer = self._client.post(f"/tokens/{token_id}/key", json={"overlap_seconds": overlap_seconds})
        return str(answer.raise_for_status().json()["key"])

    def tokens(self) -> list[dict[str, object]]:
        """Return every token as the management API tells it, by id."""
        rows: list[dict[str, object]] = self._client.get("/tokens").raise_for_status().json()["tokens"]
        return rows

    def revoke(self, token_id: int) -> None:
        """Revoke a token."""
        self._client.delete(f"/tokens/{token_id}").raise_for_status()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(
        self, method: str, name: str, action: str = "", *, content: bytes | None = None, **query: str
    ) -> dict[str, str]:
        response = self._client.request(
            method,
            f"/configs/{quote(name, safe='')}{action}",
            content=content,
            params=_named(**query),
            headers={"Content-Type": "application/json"},
        )
        row: dict[str, str] = response.raise_for_status().json()
        return row


class ServiceProcess:
    """``config-service serve`` on a loopback port that stays the same across restarts.

    The store is SQLite in ``directory``, unless ``settings`` say otherwise: further ``CONFIG_SERVER_…`` variables, by
    field name in upper case. As a context manager it starts and stops the child. ``copy_of``: begin with the store of
    another one, which must not be running, instead of a new store; that is faster. ``replica_of``: serve the very store
    of another one, which may be running and is on PostgreSQL or MongoDB; with ``STORE_URL``, what was made of it.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        *,
        copy_of: ServiceProcess | None = None,
        replica_of: ServiceProcess | None = None,
    ) -> None:
        self.directory: Final = directory
        self.url = ""
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CONFIG_SERVER_", "CONFIG_SERVICE_"))
        } | {
            "CONFIG_SERVER_MASTER_KEY": secrets.token_hex(32),
            "CONFIG_SERVER_STORE_URL": f"sqlite:///{directory / 'config.db'}",
            **{f"CONFIG_SERVER_{name}": value for name, value in (settings or {}).items()},
        }
        self._child: subprocess.Popen[str] | None = None
        self._lines: list[str] = []
        self._reader = threading.Thread()
        self._port = 0
        if replica_of is not None:
            self._admin = self._join(replica_of, settings or {})
        else:
            self._admin = self._initialise() if copy_of is None else self._copy(copy_of)
        self._operators: list[Operator] = []

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the child. Raises ProcessError when there is none."""
        if self._child is None:
            raise ProcessError("the service does not run")
        return self._child.pid

    @property
    def log(self) -> str:
        """Everything the child wrote to stderr so far, over all restarts."""
        return "".join(self._lines)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the child runs with."""
        return dict(self._environment)

    @property
    def admin_token(self) -> str:
        """The secret of the token that ``init`` printed."""
        return self._admin

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``config-service`` with ``arguments`` in this service's environment and wait for it."""
        return subprocess.run(  # noqa: S603 - our own command line
            [sys.executable, "-m", "config_service", *arguments],
            env=self._environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def start(self) -> None:
        """Start the child and return once it accepts connections. Raises ProcessError."""
        listening = threading.Event()
        self._child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "config_service", "serve", "--port", str(self._port)],
            env=self._environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._collect, args=(self._child, listening), daemon=True)
        self._reader.start()
        if not listening.wait(START_SECONDS) or self._child.poll() is not None:
            self.kill()
            raise ProcessError("the service did not start:\n" + "".join(self._lines[-20:]))

    def stop(self) -> int:
        """Send SIGTERM, wait for the end and return the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """Send SIGKILL, wait for the end and return the exit status."""
        return self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the child ends by itself and return its exit status. Raises ProcessError when it goes on."""
        child = self._child
        if child is None:
            return 0
        try:
            status = child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"the service still runs after {STOP_SECONDS} s") from None
        self._reader.join()
        self._child = None
        return status

    def restart(self) -> None:
        """Stop the child if it runs, and start it again on the same port and store."""
        self.stop()
        self.start()

    def operator(self) -> Operator:
        """Return a client of the management API with every right, closed with this process."""
        self._operators.append(Operator(self.url, self._admin))
        return self._operators[-1]

    def close(self) -> None:
        """Stop the child and close the operators."""
        for operator in self._operators:
            operator.close()
        self.stop()

    def _initialise(self) -> str:
        made = self.run_cli("init")
        secret = _SECRET.search(made.stdout)
        if made.returncode != 0 or secret is None:
            raise ProcessError(f"init failed: {made.stderr.strip()}")
        return secret[0]

    def _copy(self, other: ServiceProcess) -> str:
        shutil.copy(other.directory / "config.db", self.directory / "config.db")
        self._environment["CONFIG_SERVER_MASTER_KEY"] = other.environment["CONFIG_SERVER_MASTER_KEY"]
        return other._admin

    def _join(self, other: ServiceProcess, settings: Mapping[str, str]) -> str:
        """Take over what says which store it is, and how it is opened, as far as ``settings`` do not."""
        for name in {"STORE_URL", "MASTER_KEY"} - settings.keys():
            self._environment[f"CONFIG_SERVER_{name}"] = other.environment[f"CONFIG_SERVER_{name}"]
        return other._admin

    def _end(self, how: signal.Signals) -> int:
        child = self._child
        if child is None:
            return 0
        child.send_signal(how)
        try:
            status = child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise ProcessError(f"the service did not end within {STOP_SECONDS} s of {how.name}") from None
        finally:
            self._reader.join()
            self._child = None
        return status

    def _collect(self, child: subprocess.Popen[str], listening: threading.Event) -> None:
        assert child.stderr is not None  # noqa: S101 - opened as a pipe above
        with child.stderr as stream:
            for line in stream:
                self._lines.append(line)
                announced = _LISTENING.search(line)
                if announced:
                    self.url = announced[1].rstrip("/")
                    self._port = httpx.URL(self.url).port or 0
                    listening.set()
        # The end of its output is the end of the child: what waits for its start need not wait on.
        child.wait()
        listening.set()


def _named(**query: str) -> dict[str, str]:
    return {name: value for name, value in query.items() if value}
