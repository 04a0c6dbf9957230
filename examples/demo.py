"""`make demo`: a service, a process that watches a config, three changes, and a timeline of what happened.

Everything is real: the service and the watching process are children of this one, on loopback, and end with it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Final

import httpx

from config_service.process import Credentials, Operator, ServiceProcess

SECONDS: Final = 20.0
"""How long to wait for anything before giving up."""

INITIAL: Final[dict[str, object]] = {"database": {"host": "db1.internal", "port": 5432}, "log_level": "info"}
CHANGES: Final[tuple[tuple[str, dict[str, object]], ...]] = (
    ("the database moves", {"database": {"host": "db2.internal", "port": 5433}, "log_level": "info"}),
    ("a mistake: port is a text", {"database": {"host": "db2.internal", "port": "5433"}, "log_level": "debug"}),
    ("the mistake is mended", {"database": {"host": "db2.internal", "port": 5433}, "log_level": "debug"}),
)


class Watcher:
    """`examples/watch_in_thread.py` as a child process; its lines arrive in a queue."""

    def __init__(self, service: ServiceProcess, access: Credentials) -> None:
        self.child: Final = subprocess.Popen(
            [sys.executable, "-m", "examples.watch_in_thread"],
            env={
                **os.environ,
                "CONFIG_SERVICE_HOST": service.url,
                "CONFIG_SERVICE_TOKEN": access.token,
                "CONFIG_SERVICE_KEY": access.key,
            },
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: Queue[dict[str, object]] = Queue()
        self._reader = Thread(target=self._collect, daemon=True)
        self._reader.start()

    def next(self) -> dict[str, object]:
        """Return the next thing that the process said."""
        try:
            return self._lines.get(timeout=SECONDS)
        except Empty:
            raise SystemExit("the watching process said nothing; the demo failed") from None

    def close(self) -> int:
        """Let the process end and return its exit status."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        status = self.child.wait(SECONDS)
        self._reader.join()
        return status

    def _collect(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as stream:
            for line in stream:
                self._lines.put(json.loads(line))


class Timeline:
    """Lines with the milliseconds since the demo began."""

    def __init__(self) -> None:
        self._began = time.time()

    def say(self, actor: str, text: str, at: float | None = None) -> None:
        """Print what ``actor`` did, now or at a time of the clock."""
        print(f"{((at or time.time()) - self._began) * 1e3:8.1f} ms  {actor:<9} {text}", flush=True)


def main() -> None:
    """Run the demo; exit with 1 when anything is not as it should be."""
    line = Timeline()
    with tempfile.TemporaryDirectory() as directory, ServiceProcess(Path(directory)) as service:
        line.say("service", f"listening on {service.url}, SQLite, documents sealed at rest")
        operator = service.operator()
        operator.publish("orders", INITIAL)
        line.say("operator", f"published orders v1: {json.dumps(INITIAL)}")
        access = operator.mint("orders-app", scopes=("orders@default:read,export",))
        line.say("operator", "created a token for orders-app: it may read and export orders, nothing else")
        watcher = Watcher(service, access)
        try:
            seen = watcher.next()
            line.say("app", f"started and holds v{seen['version']}: {json.dumps(seen['saw'])}", _time(seen))
            for what, document in CHANGES:
                _change(line, service, operator, access, watcher, what, document)
            for name in ("yaml", "env"):
                print(f"\nGET …/orders/formatted?format={name}\n{_export(service, access, name)}")
            if watcher.close() != 0:
                raise SystemExit("the watching process ended badly; the demo failed")
            line.say("app", "stopped")
        finally:
            if watcher.child.poll() is None:
                watcher.child.kill()
                watcher.child.wait()
        status = service.stop()
        line.say("service", f"stopped, exit status {status}")
    if status != 0:
        raise SystemExit(1)


def _change(
    line: Timeline,
    service: ServiceProcess,
    operator: Operator,
    access: Credentials,
    watcher: Watcher,
    what: str,
    document: dict[str, object],
) -> None:
    sent = time.time()
    version = operator.publish("orders", document)
    print()
    line.say("operator", f"published orders v{version} ({what}): {json.dumps(document)}", sent)
    seen = watcher.next()
    after = (_time(seen) - sent) * 1e3
    if "saw" in seen:
        line.say("app", f"holds v{seen['version']} {after:.1f} ms after: {json.dumps(seen['saw'])}", _time(seen))
    else:
        line.say("app", f"refused it {after:.1f} ms after: {seen['refused']}", _time(seen))
        line.say("app", f"keeps {json.dumps(seen['keeps'])}", _time(seen))
    sealed = httpx.get(f"{service.url}/api/v1/service/configs/orders", headers={"X-Service-Token": access.token})
    line.say("wire", f"that was {len(sealed.content)} bytes, sealed: {sealed.content[:32].hex()}…")
    expected = isinstance(document["database"], dict) and isinstance(document["database"]["port"], int)
    if ("saw" in seen) is not expected:
        raise SystemExit("the app did not do what it should; the demo failed")


def _export(service: ServiceProcess, access: Credentials, name: str) -> str:
    response = httpx.get(
        f"{service.url}/api/v1/service/configs/orders/formatted",
        params={"format": name},
        headers={"X-Service-Token": access.token},
    )
    return response.raise_for_status().text


def _time(seen: dict[str, object]) -> float:
    return float(str(seen["at"]))


if __name__ == "__main__":
    main()
