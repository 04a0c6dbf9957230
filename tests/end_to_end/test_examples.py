"""Every example, the demo, and every command and snippet of the README, run against a real service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from config_service.process import Credentials, Operator, ServiceProcess

ROOT = Path(__file__).parents[2]
DOCUMENT = {"database": {"host": "db1.internal", "port": 5432}, "log_level": "info"}
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """Run one service for all of these: none of them minds what the others did."""
    with ServiceProcess(tmp_path_factory.mktemp("service")) as process:
        yield process


@pytest.fixture
def environment(service: ServiceProcess, operator: Operator, access: Credentials) -> dict[str, str]:
    """Return what `config-service dev` would have a newcomer paste, on a service that holds `orders`."""
    operator.publish("orders", DOCUMENT)
    return {
        **os.environ,
        "CONFIG_SERVICE_HOST": service.url,
        "CONFIG_SERVICE_TOKEN": access.token,
        "CONFIG_SERVICE_KEY": access.key,
        "PYTHONPATH": str(ROOT),
    }


def run(environment: dict[str, str], *arguments: str, stdin: str = "", cwd: Path = ROOT) -> str:
    """Run Python with ``arguments`` and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_basic(environment: dict[str, str]) -> None:
    """The first example fetches, lists, and meets a NotFoundError."""
    printed = run(environment, "-m", "examples.basic")
    assert "connecting to db1.internal:5432, logging at info" in printed
    assert "as expected: " in printed


def test_pydantic_model(environment: dict[str, str]) -> None:
    """The pydantic example prints the model and a refusal without the value."""
    printed = run(environment, "-m", "examples.pydantic_model")
    assert '"host": "db1.internal"' in printed
    assert "refused: " in printed


def test_watch_in_thread(environment: dict[str, str]) -> None:
    """The watching example says what it holds and stops when its input ends."""
    printed = run(environment, "-m", "examples.watch_in_thread")
    assert '"stopped": true' in printed


def test_subscribe(environment: dict[str, str], operator: Operator) -> None:
    """The subscribing example is LIVE with the first value, answers from it, and stops when its input ends."""
    printed = run(environment, "-m", "examples.subscribe", stdin="\n")
    assert [json.loads(line) for line in printed.splitlines()] == [
        {"state": "live", "version": operator.history("orders")[0]["version"]},
        {"host": "db1.internal", "state": "live", "why": ""},
        {"state": "stopped"},
    ]


def test_asyncio_service(environment: dict[str, str], operator: Operator) -> None:
    """The asyncio example has the first value, and the next one as soon as it is published."""
    operator.publish("orders", DOCUMENT)
    version = operator.history("orders")[0]["version"]
    with subprocess.Popen(
        [sys.executable, "-m", "examples.asyncio_service"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        assert json.loads(program.stdout.readline()) == {"version": version, "state": "live"}
        operator.publish("orders", {**DOCUMENT, "log_level": "debug"})
        assert json.loads(program.stdout.readline()) == {"version": version + 1, "state": "live"}
        assert program.wait(30) == 0


def test_formatted_export(environment: dict[str, str]) -> None:
    """The export example prints ENV lines that a shell can evaluate."""
    exported = run(environment, "-m", "examples.formatted_export", "env")
    shell = subprocess.run(
        ["sh", "-c", exported + 'printf %s "$DATABASE_HOST:$DATABASE_PORT"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == "db1.internal:5432"


def test_the_demo_shows_the_whole_job() -> None:
    """The timeline holds the sealed bytes, both accepted changes with their delay, the refusal and the exports."""
    printed = run(dict(os.environ), "-m", "examples.demo")
    assert len(re.findall(r"wire +that was \d+ bytes, sealed: [0-9a-f]{64}…", printed)) == 3
    assert re.findall(r"app +holds v(\d) [\d.]+ ms after", printed) == ["2", "4"]
    assert re.search(r"app +refused it [\d.]+ ms after: Dataclass construction failed", printed)
    assert re.search(r'app +keeps .*"host": "db2.internal", "port": 5433', printed)
    assert "database:\n  host: db2.internal" in printed
    assert "DATABASE_HOST=db2.internal" in printed
    assert printed.rstrip().endswith("stopped, exit status 0")


def test_every_example_is_run_here() -> None:
    """A script in examples/ has a test of its name, or is the demo."""
    own = Path(__file__).read_text()
    for script in (ROOT / "examples").glob("[!_]*.py"):
        assert f"examples.{script.stem}" in own


def test_the_python_of_the_readme_runs(environment: dict[str, str], tmp_path: Path) -> None:
    """The README's snippets run one after the other, as a reader would paste them."""
    snippets = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 4
    program = tmp_path / "readme.py"
    program.write_text("\n".join(snippets))
    printed = run(environment, str(program), cwd=tmp_path)
    assert "db1.internal" in printed
    assert "Orders(database=Database(host=" in printed
    assert "DATABASE_PORT=5432" in printed


def test_the_shell_commands_of_the_readme_run(service: ServiceProcess, operator: Operator, tmp_path: Path) -> None:
    """The operator's commands publish, list, roll back and show."""
    admin = operator.mint("admin", scopes=("*@*:read,write,admin",))
    (commands,) = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    shim = tmp_path / "bin" / "config-service"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m config_service "$@"\n')
    shim.chmod(0o755)
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        env={
            **os.environ,
            "PATH": f"{shim.parent}:{os.environ['PATH']}",
            "CONFIG_SERVER_URL": service.url,
            "CONFIG_SERVER_TOKEN": admin.token,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    newest, *_ = operator.history("orders")
    assert (newest["kind"], newest["source_version"]) == ("rolled_back", 1)
