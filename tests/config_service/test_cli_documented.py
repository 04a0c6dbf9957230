"""The command line as a whole: what there is, that it is documented, and that it answers cheaply."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from config_service.api.errors import STATUS
from config_service.cli import trust
from config_service.cli.program import program
from config_service.domain.errors import ServiceError, ThrottledError
from config_service.settings import Settings, variable

ROOT = Path(__file__).parents[2]
OPERATIONS = ROOT / "docs" / "OPERATIONS.md"
OPERATORS = {"CONFIG_SERVER_URL", "CONFIG_SERVER_TOKEN", trust.CA, trust.CERTIFICATE, trust.KEY}
"""The variables of whoever runs commands over HTTP."""


def commands() -> list[str]:
    """Return every command as it is typed."""
    found: list[str] = []
    pending: list[tuple[tuple[str, ...], object]] = [((), get_command(program))]
    while pending:
        path, command = pending.pop()
        children = getattr(command, "commands", None)
        if children is None:
            found.append(" ".join(path))
        else:
            pending += [((*path, name), child) for name, child in children.items()]
    return sorted(found)


def options() -> set[str]:
    """Return every long option of every command, those of shell completion and help aside."""
    found = set()
    pending = [get_command(program)]
    while pending:
        command = pending.pop()
        pending += getattr(command, "commands", {}).values()
        for parameter in command.params:
            found |= {text for text in (*parameter.opts, *parameter.secondary_opts) if text.startswith("--")}
    return found - {"--help"}


def test_the_commands_are_these() -> None:
    """The list of commands is a decision, not an accident of imports."""
    assert commands() == [
        "archive",
        "audit head",
        "audit list",
        "audit verify",
        "backup",
        "delete",
        "dev",
        "diff",
        "draft discard",
        "draft patch",
        "draft publish",
        "draft revert",
        "draft set",
        "draft show",
        "draft validate",
        "export-store",
        "history",
        "import",
        "init",
        "keygen",
        "keys list",
        "keys reseal",
        "keys rotate",
        "keys rotate-master",
        "list",
        "publish",
        "restore",
        "rollback",
        "savepoint list",
        "savepoint remove",
        "savepoint set",
        "schedule cancel",
        "schedule list",
        "schema history",
        "schema remove",
        "schema set",
        "schema show",
        "serve",
        "show",
        "token create",
        "token list",
        "token revoke",
        "token rotate-key",
        "watchers",
    ]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    """docs/OPERATIONS.md has a row for the command."""
    assert re.search(rf"^\| `{command}[` ]", OPERATIONS.read_text(), re.MULTILINE)


def test_every_option_is_documented() -> None:
    """docs/OPERATIONS.md names every option of every command, and none that does not exist."""
    documented = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", OPERATIONS.read_text())) - {"--help"}
    assert documented == options()


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(field: str) -> None:
    """docs/OPERATIONS.md has a row for the setting that tells its default."""
    info = Settings.model_fields[field]
    default = "none, required" if info.is_required() else f"`{info.default}`" if str(info.default) else "none"
    assert f"| `{variable(field)}` | {default} |" in OPERATIONS.read_text()


def test_every_error_has_a_remedy() -> None:
    """docs/OPERATIONS.md says for every code what to do about it, and for none that does not exist."""
    section = OPERATIONS.read_text().split("\n## Troubleshooting\n")[1].split("\nAnd without a code:\n")[0]
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", section, re.MULTILINE)
    told = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert told == {kind.code for kind in STATUS if kind not in {ServiceError, ThrottledError}} | {"internal"}


def test_no_documented_setting_is_unknown() -> None:
    """Every variable that docs/OPERATIONS.md names is a setting, or one of the operator's."""
    named = set(re.findall(r"CONFIG_SERVER_[A-Z_]*[A-Z]", OPERATIONS.read_text()))
    assert named == {variable(field) for field in Settings.model_fields} | OPERATORS


def test_the_example_environment_names_the_settings() -> None:
    """.env.example names every setting, and beside them only the variables of operators, clients and containers."""
    named = set(re.findall(r"^#? ?(CONFIG_[A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    service = {variable(field) for field in Settings.model_fields}
    operator = OPERATORS
    client = {"CONFIG_SERVICE_HOST", "CONFIG_SERVICE_TOKEN", "CONFIG_SERVICE_KEY"}
    containers = {"CONFIG_POSTGRES_PASSWORD"}
    assert service <= named <= service | operator | client | containers


@pytest.mark.parametrize("command", ["", *commands(), "token"])
def test_every_command_has_help(command: str) -> None:
    """``--help`` works everywhere and ends with 0."""
    result = CliRunner().invoke(program, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


@pytest.mark.integration
def test_help_does_not_load_the_service() -> None:
    """``--help`` and completion must answer at once: no server, no database, no web framework is imported."""
    script = (
        "import sys\n"
        "from config_service.cli import main\n"
        "sys.argv = ['config-service', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print('loaded:', sorted({'uvicorn', 'sqlalchemy', 'fastapi', 'alembic', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_version_is_that_of_the_distribution() -> None:
    """``--version`` prints one line and ends with 0, also from a tree that is not installed."""
    result = CliRunner().invoke(program, ["--version"])
    assert result.exit_code == 0
    assert re.fullmatch(r"config-service (\d+\.\d+\.\d+\S*|of a source tree that is not installed)\n", result.stdout)


def test_a_missing_distribution_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installed distribution ``--version`` says so."""

    def missing(name: str) -> str:
        from importlib.metadata import PackageNotFoundError

        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert "not installed" in CliRunner().invoke(program, ["--version"]).stdout


def test_completion_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell completion of Typer knows the commands."""
    monkeypatch.setenv("_CONFIG_SERVICE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "config-service his")
    monkeypatch.setenv("COMP_CWORD", "1")
    result = CliRunner().invoke(program, [], prog_name="config-service")
    assert result.stdout.split() == ["history"]


def test_keygen_prints_a_key_and_nothing_else() -> None:
    """Sixty-four hex characters on one line, new every time, and nothing on stderr."""
    results = [CliRunner().invoke(program, ["keygen"]) for _ in range(2)]
    assert all(re.fullmatch(r"[0-9a-f]{64}\n", result.stdout) for result in results)
    assert all(result.stderr == "" for result in results)
    assert results[0].stdout != results[1].stdout


def test_every_command_reports_its_failures() -> None:
    """A command added without ``reporting`` would show a traceback: each one is wrapped."""
    registered = [*program.registered_commands]
    for group in program.registered_groups:
        assert isinstance(group.typer_instance, typer.Typer)
        registered += group.typer_instance.registered_commands
    assert len(registered) == len(commands())
    assert all(hasattr(command.callback, "__wrapped__") for command in registered)
