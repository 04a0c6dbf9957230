"""`init`, `serve` and `dev` as an operator meets them: real child processes, a real store, a real socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Protocol

import pytest
from typer.testing import CliRunner, Result

from config_service.cli.program import program

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "config_service")
KEY = "5a" * 32
PATIENCE = 30.0
"""Seconds to wait for what must happen; only a failing test waits that long."""

pytestmark = pytest.mark.e2e


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without any setting of ours, plus ``variables``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONFIG_")}
    return inherited | {"PYTHONPATH": str(ROOT)} | variables


def read_exports(text: str) -> dict[str, str]:
    """Return the variables that a shell would have after ``text``."""
    words = [shlex.split(line) for line in text.splitlines()]
    assert all(len(line) == 2 and line[0] == "export" for line in words)
    return dict(line[1].split("=", 1) for line in words)


class Child:
    """A running command. Its output is collected as it comes, so that a test waits for a line and never for luck."""

    def __init__(self, args: tuple[str, ...], cwd: Path, variables: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, *args],
            cwd=cwd,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._changed = threading.Condition()
        self._streams = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        self._text = dict.fromkeys(self._streams, "")
        self._open = set(self._streams)
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in self._streams]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        """Everything that came on stdout so far."""
        return self._text["stdout"]

    @property
    def stderr(self) -> str:
        """Everything that came on stderr so far."""
        return self._text["stderr"]

    def _read(self, name: str) -> None:
        stream: IO[str] | None = self._streams[name]
        assert stream is not None
        for line in stream:
            with self._changed:
                self._text[name] += line
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._open.discard(name)
            self._changed.notify_all()

    def wait_for(self, pattern: str, stream: str) -> re.Match[str]:
        """Return the match of ``pattern`` in what the child wrote, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while True:
                match = re.search(pattern, self._text[stream], re.MULTILINE)
                if match is not None:
                    return match
                left = deadline - time.monotonic()
                assert left > 0, f"never came: {pattern}\n{self._text}"
                assert stream in self._open, f"ended without: {pattern}\n{self._text}"
                self._changed.wait(left)

    def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit status, with everything that was written collected."""
        status = self._process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def close(self) -> None:
        """End the child whatever it does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()


class Start(Protocol):
    """Starts a command that goes on running."""

    def __call__(self, *args: str, **variables: str) -> Child: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start commands in an empty directory; every one is ended, by its id, after the test."""
    children: list[Child] = []

    def begin(*args: str, **variables: str) -> Child:
        children.append(Child(args, tmp_path, variables))
        return children[-1]

    yield begin
    for child in children:
        child.close()


def run(cwd: Path, *args: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *args],
        cwd=cwd,
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def invoke(*args: str, stdin: str = "", **variables: str) -> Result:
    """Run a command to its end inside this process, which is quicker."""
    without: dict[str, str | None] = {name: None for name in os.environ if name.startswith("CONFIG_")}
    return CliRunner(env={**without, **variables}).invoke(program, args, input=stdin)


def developed(child: Child) -> tuple[dict[str, str], dict[str, str]]:
    """Return the client's and the operator's variables that a starting ``dev`` prints."""
    child.wait_for(r"^export CONFIG_SERVICE_KEY=.*\n", "stdout")
    child.wait_for(r"^export CONFIG_SERVER_TOKEN=.*\n", "stderr")
    exports = "".join(line for line in child.stderr.splitlines(keepends=True) if line.startswith("export "))
    return read_exports(child.stdout), read_exports(exports)


def mode(path: Path) -> int:
    """Return the permission bits of a path."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory with an initialised store, and the admin token that `init` printed."""
    directory = tmp_path_factory.mktemp("template")
    done = run(directory, "init", CONFIG_SERVER_MASTER_KEY=KEY, CONFIG_SERVER_STORE_URL="sqlite:///store/config.db")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"cst_\S{43}\n", done.stdout)
    assert done.stdout.strip() not in done.stderr
    return directory / "store", done.stdout.strip()


@pytest.fixture
def settings(template: tuple[Path, str], tmp_path: Path) -> dict[str, str]:
    """The variables of an operator whose store was initialised: those of the service, and the admin token."""
    store, token = template
    shutil.copytree(store, tmp_path / "store")
    return {
        "CONFIG_SERVER_MASTER_KEY": KEY,
        "CONFIG_SERVER_STORE_URL": f"sqlite:///{tmp_path}/store/config.db",
        "CONFIG_SERVER_PORT": "0",
        "CONFIG_SERVER_TOKEN": token,
    }


def test_the_life_of_a_version_by_command_line(start: Start, tmp_path: Path) -> None:
    """draft → publish together → publish for later → cancel → name → roll back to the name → archive."""
    _, operator = developed(start("dev"))

    def cli(*args: str, stdin: str = "", code: int = 0) -> str:
        done = invoke(*args, stdin=stdin, **operator)
        assert done.exit_code == code, done.stderr
        return done.stdout

    for number in (1, 2, 3):
        cli("publish", "orders", "-", stdin=f'{{"a": {number}}}')
    cli("draft", "set", "orders", "-", stdin='{"a": 4}')
    cli("draft", "set", "billing", "-", stdin='{"b": 1}')
    cli("draft", "publish", "orders=9", "billing", code=5)
    told = cli("draft", "publish", "orders=3", "billing").splitlines()
    assert [line.split(",")[1].split(":")[1] for line in told] == [" version 4", " version 1"]
    assert "runs from 2999-01-01T00:00:00+00:00" in cli(
        "publish", "orders", "-", "--valid-from", "2999-01-01T00:00:00Z", stdin='{"a": 5}'
    )
    cli("publish", "orders", "-", "--valid-from", "2001-01-01T00:00:00Z", stdin="{}", code=6)
    assert cli("schedule", "list").splitlines()[1].split("\t")[:4] == ["orders", "default", "main", "5"]
    cli("show", "orders", "--format", "json", "--version", "5", code=4)
    cli("schedule", "cancel", "orders", "--yes")
    cli("schedule", "cancel", "orders", "--yes", code=4)
    cli("savepoint", "set", "orders", "first", "--version", "1")
    cli("savepoint", "set", "orders", "first", code=5)
    assert cli("show", "orders", "--format", "json", "--version", "first") == '{"a": 1}'
    assert "version 6" in cli("rollback", "orders", "first")
    states = [line.split("\t")[1] for line in cli("history", "orders").splitlines()[1:]]
    assert states == ["running", "cancelled", "saved", "saved", "saved", "saved"]
    cut_off, file = datetime.now(timezone.utc).isoformat(), tmp_path / "old.jsonl"
    assert "4 documents would be archived" in cli("archive", "--before", cut_off, "--dry-run")
    archived = cli("archive", "--before", cut_off, "--name", "o*", "--to", str(file), "--yes").splitlines()
    assert archived[1].split("\t")[:4] == ["orders", "default", "main", "2 3 4 5"]
    assert [json.loads(line)["document"] for line in file.read_text().splitlines()] == [
        f'{{"a": {number}}}' for number in (2, 3, 4, 5)
    ]
    assert "0 documents were archived" in cli("archive", "--before", cut_off, "--yes")
    cli("show", "orders", "--format", "json", "--version", "2", code=4)
    cli("rollback", "orders", "4", code=4)
    assert cli("audit", "verify", code=0)


def test_the_life_of_a_config_by_command_line(start: Start) -> None:
    """dev → publish → show → history → rollback → delete → token create → list → revoke, each with its exit code."""
    client, operator = developed(start("dev"))
    assert client["CONFIG_SERVICE_HOST"] == operator["CONFIG_SERVER_URL"]

    def cli(*args: str, stdin: str = "") -> str:
        done = invoke(*args, stdin=stdin, **operator)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def refused(code: int, *args: str, stdin: str = "", token: str = "") -> bool:
        done = invoke(*args, stdin=stdin, **operator | ({"CONFIG_SERVER_TOKEN": token} if token else {}))
        return done.exit_code == code and done.stderr.startswith("error: ") and done.stdout == ""

    assert "orders (default, main): version 1" in cli("publish", "orders", "-", "--create", stdin='{"a": 1}')
    assert "unchanged, still version 1" in cli("publish", "orders", "-", stdin='{"a": 1}')
    assert "version 2" in cli("publish", "orders", "-", "--if-match", "1", stdin='{"a": 2}')
    assert refused(5, "publish", "orders", "-", "--if-match", "1", stdin='{"a": 3}')
    assert refused(5, "publish", "orders", "-", "--create", stdin='{"a": 3}')
    assert refused(6, "publish", "orders", "-", stdin="[1]")
    assert refused(3, "publish", "orders", "-", stdin="{}", token=client["CONFIG_SERVICE_TOKEN"])
    assert cli("show", "orders", "--format", "json") == '{"a": 2}'
    assert cli("show", "orders", "--format", "json", "--version", "1") == '{"a": 1}'
    assert cli("show", "orders", "--format", "env").strip() == "A=2"
    assert "VERSION\t2\n" in cli("show", "orders")
    assert json.loads(cli("show", "orders", "--json"))["version"] == 2
    assert "version 3" in cli("rollback", "orders", "1", "--if-match", "2")
    assert refused(4, "rollback", "orders", "9")
    kinds = [line.split("\t")[:4] for line in cli("history", "orders").splitlines()[1:]]
    assert kinds == [
        ["3", "running", "rolled_back", "1"],
        ["2", "saved", "published", "-"],
        ["1", "saved", "published", "-"],
    ]
    assert "deleted, as version 4" in cli("delete", "orders", "--yes")
    assert refused(4, "delete", "orders", "--yes")
    assert refused(4, "show", "orders", "--format", "json")
    assert cli("list").splitlines()[1].split("\t")[:5] == ["orders", "default", "main", "4", "deleted"]

    minted = json.loads(cli("token", "create", "billing [red]", "--scope", "b*@prod:read", "-e", "prod", "--json"))
    assert re.fullmatch(r"[0-9a-f]{64}", minted["key"])
    assert refused(6, "token", "create", "x", "--scope", "nonsense")
    exported = read_exports(cli("token", "create", "short", "--expires-in", "1h", "--export"))
    assert exported["CONFIG_SERVICE_HOST"] == client["CONFIG_SERVICE_HOST"]
    listed = {row[0]: row for row in (line.split("\t") for line in cli("token", "list").splitlines()[1:])}
    assert listed[str(minted["id"])][1:5] == ["billing [red]", "prod", "b*@prod:read", "active"]
    assert minted["secret"] not in cli("token", "list", "--json")
    assert refused(3, "token", "list", token=minted["secret"])
    assert cli("list", "--token", minted["secret"]).count("\n") == 1
    cli("token", "revoke", str(minted["id"]))
    assert refused(3, "list", token=minted["secret"])
    assert refused(4, "token", "revoke", "999")
    rekeyed = json.loads(cli("token", "rotate-key", "1", "--overlap", "15m", "--json"))
    assert re.fullmatch(r"[0-9a-f]{64}", rekeyed["key"])
    assert len(rekeyed["key_ids"]) == 2
    assert "No older key" not in cli("token", "rotate-key", "1")
    assert refused(4, "token", "rotate-key", "999")
    assert refused(5, "token", "rotate-key", str(minted["id"]))
    assert refused(6, "token", "rotate-key", "1", "--overlap", "91d")
    states = {row[0]: row[4] for row in (line.split("\t") for line in cli("token", "list").splitlines()[1:])}
    assert states[str(minted["id"])] == "revoked"


def test_dev_prints_all_of_it_as_json_where_asked(start: Start) -> None:
    """One object with the address and the variables of a client and an operator; nothing else on stdout."""
    child = start("dev", "--json")
    child.wait_for(r"^}\n", "stdout")
    told = json.loads(child.stdout)
    assert told.keys() == {"url", "client", "operator"}
    assert told["client"].keys() == {"CONFIG_SERVICE_HOST", "CONFIG_SERVICE_TOKEN", "CONFIG_SERVICE_KEY"}
    listed = invoke("list", "--json", **told["operator"])
    assert (listed.exit_code, json.loads(listed.stdout)) == (0, {"configs": []})


def test_dev_prints_three_lines_that_a_client_can_use(start: Start, tmp_path: Path) -> None:
    """Stdout is exactly the client's exports, after the service accepts: the SDK reads a config at once."""
    child = start("dev")
    client, operator = developed(child)
    assert [line.split("=")[0] for line in child.stdout.splitlines()] == [
        "export CONFIG_SERVICE_HOST",
        "export CONFIG_SERVICE_TOKEN",
        "export CONFIG_SERVICE_KEY",
    ]
    assert run(tmp_path, "publish", "orders", "-", stdin='{"a": 1}', **operator).returncode == 0
    script = "from config_client import ConfigClient\nwith ConfigClient.from_env() as c: print(c.get_raw('orders'))"
    read = subprocess.run(
        [sys.executable, "-c", script], env=environment(**client), capture_output=True, text=True, check=False
    )
    assert read.stdout == "{'a': 1}\n", read.stderr


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(one, marks=pytest.mark.long) for one in (signal.SIGTERM, signal.SIGHUP))]
)
def test_dev_ends_cleanly_and_leaves_nothing(start: Start, tmp_path: Path, number: int) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end `dev` with 0 and no traceback; its temporary directory is gone."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    child = start("dev", TMPDIR=str(temporary))
    developed(child)
    (data,) = temporary.iterdir()
    assert mode(data) == 0o700
    begun = time.monotonic()
    assert child.end(number) == 0
    assert time.monotonic() - begun < 5
    assert "Traceback" not in child.stderr
    assert list(temporary.iterdir()) == []


def test_dev_on_a_store_of_another_kind_keeps_its_key(start: Start, tmp_path: Path) -> None:
    """``--store-url`` says where the store is, and is refused where its key would be lost."""
    url = f"file://{tmp_path}/store"
    _, operator = developed(start("dev", "--data", str(tmp_path / "data"), "--store-url", url))
    assert invoke("publish", "orders", "-", stdin='{"a": 1}', **operator).exit_code == 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["master.key"]
    assert any('"name": "orders"' in path.read_text() for path in (tmp_path / "store").glob("*/log/*.json"))
    refused = invoke("dev", "--store-url", url)
    assert refused.exit_code == 2
    assert "--store-url needs --data" in refused.stderr


def test_dev_with_a_directory_keeps_it(start: Start, tmp_path: Path) -> None:
    """A second start serves what was published; its tokens are new, those of the first start are refused."""
    data = tmp_path / "data"
    first = start("dev", "--data", str(data))
    old_client, old_operator = developed(first)
    assert invoke("publish", "orders", "-", stdin='{"a": 1}', **old_operator).exit_code == 0
    own = json.loads(invoke("token", "create", "mine", "--json", **old_operator).stdout)
    assert mode(data) == 0o700
    assert {mode(path) for path in data.iterdir()} == {0o600}
    assert first.end(signal.SIGTERM) == 0

    client, operator = developed(start("dev", "--data", str(data)))
    assert client["CONFIG_SERVICE_TOKEN"] != old_client["CONFIG_SERVICE_TOKEN"]
    assert invoke("show", "orders", "--format", "json", **operator).stdout == '{"a": 1}'
    for old in (old_client["CONFIG_SERVICE_TOKEN"], old_operator["CONFIG_SERVER_TOKEN"]):
        assert invoke("list", "--token", old, **operator).exit_code == 3
    assert invoke("list", "--token", own["secret"], **operator).exit_code == 0


def test_dev_ignores_the_settings_of_production(start: Start, tmp_path: Path) -> None:
    """A production environment in the same shell neither exposes `dev` nor lets it touch the production store."""
    child = start(
        "dev",
        CONFIG_SERVER_HOST="0.0.0.0",
        CONFIG_SERVER_PORT="1",
        CONFIG_SERVER_STORE_URL=f"sqlite:///{tmp_path}/production.db",
        CONFIG_SERVER_MASTER_KEY=KEY,
    )
    client, _ = developed(child)
    assert client["CONFIG_SERVICE_HOST"].startswith("http://127.0.0.1:")
    assert list(tmp_path.iterdir()) == []


def test_dev_does_not_take_over_a_foreign_directory(tmp_path: Path) -> None:
    """A directory that holds other things is refused in one sentence and left as it is."""
    (tmp_path / "thesis.txt").write_text("x")
    tmp_path.chmod(0o755)
    done = run(tmp_path, "dev", "--data", ".")
    assert (done.returncode, done.stdout) == (8, "")
    assert re.fullmatch(r"error: .* holds other things; .*\n", done.stderr)
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.txt"]
    assert mode(tmp_path) == 0o755


def test_init_then_serve_is_production(start: Start, tmp_path: Path, settings: dict[str, str]) -> None:
    """The token of `init` is good for the service of `serve`, which ends with 0 on SIGTERM within 5 s, and restarts."""
    for version in (1, 2):
        child = start("serve", **settings)
        url = child.wait_for(r"^Listening on (http://127\.0\.0\.1:\d+)$", "stderr")[1]
        document = json.dumps({"canary": f"sesame-{version}"})
        done = run(tmp_path, "publish", "orders", "-", stdin=document, **settings | {"CONFIG_SERVER_URL": url})
        assert f"version {version}," in done.stdout, done.stderr
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as idle:
            begun = time.monotonic()
            assert child.end(signal.SIGTERM) == 0
            assert time.monotonic() - begun < 5
            with contextlib.suppress(ConnectionResetError):
                assert idle.recv(1) == b""
        assert child.stdout == ""
        assert "warning" not in child.stderr
        for secret in (KEY, settings["CONFIG_SERVER_TOKEN"], "sesame"):
            assert secret not in child.stderr


def test_options_of_serve_win_over_settings(start: Start, tmp_path: Path, settings: dict[str, str]) -> None:
    """`--host`, `--port` and `--store-url` override the variables."""
    child = start(
        *("serve", "--store-url", settings["CONFIG_SERVER_STORE_URL"], "--host", "127.0.0.1", "--port", "0"),
        CONFIG_SERVER_MASTER_KEY=KEY,
        CONFIG_SERVER_STORE_URL=f"sqlite:///{tmp_path}/unused/config.db",
        CONFIG_SERVER_HOST="192.0.2.1",
        CONFIG_SERVER_PORT="1",
    )
    child.wait_for(r"^Listening on http://127\.0\.0\.1:\d+$", "stderr")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("truncated", [False, True])
def test_a_store_without_a_token_is_not_served(tmp_path: Path, settings: dict[str, str], truncated: bool) -> None:
    """A mistyped URL, or a file that was emptied, ends `serve` at once with what to do, not with a service for nobody.

    `init` makes the very same store one that can be served.
    """
    store = tmp_path / "store" / "config.db"
    if truncated:
        store.write_bytes(b"")
    else:
        settings["CONFIG_SERVER_STORE_URL"] = f"sqlite:///{tmp_path}/mistyped.db"
    done = run(tmp_path, "serve", **settings)
    assert (done.returncode, done.stdout) == (8, "")
    assert re.search(
        r"^error: the store has no token.*`config-service init`.*CONFIG_SERVER_STORE_URL", done.stderr, re.M
    )
    assert "Traceback" not in done.stderr
    assert "Listening" not in done.stderr
    made = invoke("init", **settings)
    assert made.exit_code == 0, made.stderr
    assert made.stdout.startswith("cst_")


def test_a_second_init_is_refused_and_recover_adds_a_token(tmp_path: Path, settings: dict[str, str]) -> None:
    """A store with tokens is left alone, with the remedy told; `--recover` adds one more token."""
    again = invoke("init", **settings)
    assert (again.exit_code, again.stdout) == (5, "")
    assert "--recover" in again.stderr
    recovered = invoke("init", "--recover", **settings)
    assert recovered.exit_code == 0
    assert recovered.stdout.strip() != settings["CONFIG_SERVER_TOKEN"]
    database = sqlite3.connect(tmp_path / "store" / "config.db")
    assert database.execute("SELECT count(*) FROM tokens").fetchone() == (2,)
    database.close()


@pytest.mark.parametrize("command", ["serve", "init"])
def test_without_a_master_key_nothing_starts(tmp_path: Path, command: str) -> None:
    """The missing variable and the remedy are named, and no store is created."""
    done = run(tmp_path, command)
    assert (done.returncode, done.stdout) == (8, "")
    assert "CONFIG_SERVER_MASTER_KEY" in done.stderr
    assert "config-service keygen" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CONFIG_SERVER_MASTER_KEY", "hunter2" * 9),
        ("CONFIG_SERVER_PORT", "hunter2"),
        ("CONFIG_SERVER_LOG_LEVEL", "hunter2"),
        ("CONFIG_SERVER_STORE_URL", "mysql://root:hunter2@host/db"),
    ],
)
def test_a_wrong_setting_is_told_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """One sentence, exit code 8, and the value nowhere."""
    monkeypatch.chdir(tmp_path)
    done = invoke("init", **{"CONFIG_SERVER_MASTER_KEY": KEY, variable: value})
    assert (done.exit_code, done.stdout) == (8, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_master_key_serves_nothing(tmp_path: Path, settings: dict[str, str]) -> None:
    """A key that did not seal the store is refused at start-up in one sentence, without either key."""
    wrong = settings | {"CONFIG_SERVER_MASTER_KEY": "c3" * 32}
    served = run(tmp_path, "serve", **wrong)
    recovered = invoke("init", "--recover", **wrong)
    for code, stdout, stderr in (
        (served.returncode, served.stdout, served.stderr),
        (recovered.exit_code, recovered.stdout, recovered.stderr),
    ):
        assert (code, stdout) == (8, "")
        assert re.fullmatch(r"error: .*master key.*\n", stderr)
        assert KEY not in stderr
        assert "c3c3c3" not in stderr


def test_a_store_in_use_is_refused(start: Start, tmp_path: Path, settings: dict[str, str]) -> None:
    """While a service runs, neither a second service nor `init` gets its store."""
    start("serve", **settings).wait_for("^Listening on ", "stderr")
    served = run(tmp_path, "serve", **settings)
    assert (served.returncode, served.stdout) == (8, "")
    assert re.fullmatch(r"error: .*in use.*\n", served.stderr)
    assert invoke("init", "--recover", **settings).exit_code == 8


def test_a_corrupt_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """A file that is no store is told as such, and not a byte of it changes."""
    broken = tmp_path / "config.db"
    broken.write_bytes(b"not a database" * 1000)
    done = run(tmp_path, "serve", "--port", "0", CONFIG_SERVER_MASTER_KEY=KEY)
    assert (done.returncode, done.stdout) == (8, "")
    assert re.fullmatch(r"error: .*config\.db.*\n", done.stderr)
    assert broken.read_bytes() == b"not a database" * 1000


def test_an_address_in_use_is_refused(tmp_path: Path, settings: dict[str, str]) -> None:
    """A port that somebody else holds is told with its number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "serve", "--port", port, **settings)
    assert (done.returncode, done.stdout) == (8, "")
    assert re.fullmatch(rf"error: .*port {port}.*\n", done.stderr)
