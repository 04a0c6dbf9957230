"""The exit codes, and the way from a failure to one sentence on stderr."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from config_service.cli.exits import MEANINGS, CommandError, ExitCode, reporting
from config_service.domain.errors import InvalidRequestError

OPERATIONS = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    """The table in docs/OPERATIONS.md has the same codes with the same meanings, in the same order."""
    section = OPERATIONS.read_text().split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    documented = [
        (int(code), meaning) for code, meaning in re.findall(r"^\| (\d+) \| (.+?) \|$", section, re.MULTILINE)
    ]
    assert documented == [(code.value, MEANINGS[code]) for code in ExitCode]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (CommandError("no such thing", ExitCode.NOT_FOUND), 4, "error: no such thing\n"),
        (InvalidRequestError("no slug"), 6, "error: no slug\n"),
    ],
)
def test_a_foreseen_failure_is_one_sentence(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, told: str
) -> None:
    """The message goes to stderr, and the exit code tells the kind."""

    @reporting
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == code
    assert capsys.readouterr() == ("", told)


def test_an_unforeseen_failure_tells_its_place_and_not_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    """The text of an exception that nobody foresaw may hold a secret: its type and place are told instead."""

    @reporting
    def command() -> None:
        raise KeyError("cst_canary")

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == ExitCode.UNEXPECTED
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: unexpected KeyError at test_cli_exits\.py:\d+; please report it\n", told)


@pytest.mark.parametrize("end", [typer.Exit(5), typer.Abort(), BrokenPipeError()])
def test_other_ways_to_end_pass_through(capsys: pytest.CaptureFixture[str], end: Exception) -> None:
    """Typer's own exceptions, and a reader that went away, are no failures to report."""

    @reporting
    def command() -> None:
        raise end

    with pytest.raises(type(end)) as ended:
        command()
    assert ended.value is end
    assert capsys.readouterr() == ("", "")


def test_a_command_that_succeeds_reports_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments reach the command, and nothing is added to its output."""

    @reporting
    def command(word: str) -> None:
        print(word)

    command("done")
    assert capsys.readouterr() == ("done\n", "")
