"""What holds for every command, whichever is added: JSON, examples that work, and help that answers at once."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from config_service.cli.examples import EXAMPLES
from config_service.cli.program import program

from .test_cli_documented import commands

ROOT = Path(__file__).parents[2]
PRINTS_NOTHING = {"serve": "runs until a signal, and tells where it listens on stderr"}
KEY = "5a" * 32


def parameters(command: str) -> set[str]:
    """Return every option of a command."""
    found = get_command(program)
    for word in command.split():
        found = getattr(found, "commands")[word]  # noqa: B009 - a group, whose type Typer hides
    return {text for parameter in found.params for text in parameter.opts}


@pytest.mark.parametrize("command", commands())
def test_every_command_that_prints_something_prints_it_as_json_too(command: str) -> None:
    """A program that runs the command need not read what is meant for people."""
    assert ("--json" in parameters(command)) is (command not in PRINTS_NOTHING), PRINTS_NOTHING.get(command)


def test_every_command_has_examples() -> None:
    """And no example is of a command that is gone."""
    assert sorted(EXAMPLES) == commands()


def simple_commands(line: str) -> list[list[str]]:
    """Return the commands of a shell's line, without what is between them and where they write to."""
    found: list[list[str]] = [[]]
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    for word in words:
        if set(word) <= set("();<>|&"):
            found.append([])
        else:
            found[-1].append(word)
    return found


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_an_example_is_one_of_its_command_and_is_understood(command: str) -> None:
    """Its arguments and options are those that the command has."""
    prefix = ["config-service", *command.split()]
    for example in EXAMPLES[command]:
        (*_, words) = [words for words in simple_commands(example) if words[: len(prefix)] == prefix]
        found = get_command(program)
        for word in command.split():
            found = getattr(found, "commands")[word]  # noqa: B009
        arguments = words[len(prefix) :]
        with found.make_context(command, list(arguments)) as context:
            assert not context.args


def test_examples_are_shown_at_the_end_of_the_help() -> None:
    """As they are typed, brackets included; each on a line of its own."""
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(program, ["token", "create", "--help"]).stdout
    lines = [line.strip() for line in shown.split("Examples", 1)[1].splitlines() if line.strip()]
    assert lines == [f"$ {example}" for example in EXAMPLES["token create"]]


@pytest.mark.parametrize(
    ("arguments", "members"),
    [(("keygen",), {"key"}), (("init", "--recover"), {"token"})],
)
def test_commands_that_talk_to_no_service_print_json(
    tmp_path: Path, arguments: tuple[str, ...], members: set[str]
) -> None:
    """One object, and nothing else on stdout."""
    environment = {"CONFIG_SERVER_MASTER_KEY": KEY, "CONFIG_SERVER_STORE_URL": f"sqlite:///{tmp_path}/config.db"}
    result = CliRunner(env=environment).invoke(program, [*arguments, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout).keys() == members


@pytest.mark.integration
def test_help_loads_little() -> None:
    """No HTTP, no cryptography and nothing of the service: what a help text costs is Typer, with its pydantic."""
    script = (
        "import sys\n"
        "from config_service.cli import main\n"
        "sys.argv = ['config-service', 'publish', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'httpx', 'http.client', 'cryptography', 'asyncio', 'uvicorn', 'sqlalchemy', 'fastapi'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"
