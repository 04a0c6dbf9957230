"""Shell completion: the scripts of three shells, what they complete, and that a service that fails holds nobody up."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import shellingham
from typer.testing import CliRunner

from config_service.cli import completion
from config_service.cli.program import program

SHELLS = ("bash", "zsh", "fish")
ROWS = [
    {"name": "orders", "environment": "prod", "label": "main"},
    {"name": "orders", "environment": "staging", "label": "release/1"},
    {"name": "billing", "environment": "prod", "label": "main"},
    {"name": "o\x1b[31m", "environment": "prod", "label": "main"},
    {"nothing": 1},
]


@pytest.fixture
def service() -> Iterator[str]:
    """A service that has some configs, for who comes with the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["X-Service-Token"] == "cst_known"
            body = json.dumps({"configs": ROWS} if known else {"error": {"code": "x", "message": "canary"}}).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def completed(line: str, shell: str = "bash", **variables: str) -> list[str]:
    """Return what ``shell`` is offered at the end of ``line``."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    without: dict[str, str | None] = {"CONFIG_SERVER_URL": None, "CONFIG_SERVER_TOKEN": None}
    environment = {**without, **asked, "_CONFIG_SERVICE_COMPLETE": f"complete_{shell}", **variables}
    result = CliRunner(env=environment).invoke(program, [], prog_name="config-service")
    assert result.stderr == ""
    if shell == "zsh":
        return [part.split('"')[0] for part in result.stdout.split('("')[1:]]
    return [each.split("\t")[0] for each in result.stdout.splitlines() if each]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_is_printed(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks the command by the variable that the command listens to."""
    monkeypatch.setattr(shellingham, "detect_shell", lambda: (shell, f"/bin/{shell}"))
    result = CliRunner().invoke(program, ["--show-completion"], prog_name="config-service")
    assert result.exit_code == 0
    assert f"_CONFIG_SERVICE_COMPLETE=complete_{shell}" in result.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands(shell: str) -> None:
    """Of the program and of a group."""
    assert completed("config-service his", shell) == ["history"]
    assert completed("config-service schema sh", shell) == ["show"]


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed; every CI image has it")
def test_bash_itself_completes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real bash loads the script and fills its answer."""
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("bash", "/bin/bash"))
    script = CliRunner().invoke(program, ["--show-completion"], prog_name="config-service").stdout
    command = tmp_path / "config-service"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m config_service "$@"\n')
    command.chmod(0o700)
    asked = f"{script}\nCOMP_WORDS=(config-service draft pub); COMP_CWORD=2\n"
    asked += f'_config_service_completion {command}; echo "${{COMPREPLY[@]}}"\n'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "publish\n"


def test_names_of_configs_environments_and_labels_are_completed(service: str) -> None:
    """Those that the token may see; a name that a terminal would interpret is not offered."""
    known = {"CONFIG_SERVER_URL": service, "CONFIG_SERVER_TOKEN": "cst_known"}
    assert completed("config-service show o", **known) == ["orders"]
    assert completed("config-service draft set b", **known) == ["billing"]
    assert completed("config-service show orders -e ", **known) == ["prod", "staging"]
    assert completed("config-service show orders --label r", **known) == ["release/1"]
    assert completed(f"config-service show --url {service} --token cst_known bi") == ["billing"]


def test_a_service_that_does_not_help_completes_nothing_and_says_nothing(service: str) -> None:
    """No token, a refused one, an address that is none, nobody listening: silence."""
    line = "config-service show o"
    assert completed(line, CONFIG_SERVER_URL=service) == []
    assert completed(line, CONFIG_SERVER_URL=service, CONFIG_SERVER_TOKEN="cst_other") == []
    assert completed(line, CONFIG_SERVER_URL="no url", CONFIG_SERVER_TOKEN="cst_known") == []
    assert completed(line, CONFIG_SERVER_URL="http://127.0.0.1:1", CONFIG_SERVER_TOKEN="cst_known") == []


def test_a_service_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and stays silent: the person goes on typing after the time limit."""
    monkeypatch.setattr(completion, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert completed("config-service show o", CONFIG_SERVER_URL=url, CONFIG_SERVER_TOKEN="cst_known") == []
        assert time.monotonic() - began < 10
