"""Unified differences: what they show, their colours, and that nobody sees a document by them that he may not read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest
from typer.testing import CliRunner, Result

from config_service.cli.program import program
from config_service.cli.unified import print_unified, unified_lines
from config_service.domain.keys import ConfigKey

from .conftest import LiveService

OLD = b'{"db": {"host": "db1", "port": 5432}, "name": "orders"}'
NEW = b'{"db": {"host": "db2", "port": 5432}, "name": "orders"}'
SHOWN = [
    "--- running",
    "+++ staged",
    "@@ -1,6 +1,6 @@",
    " {",
    '   "db": {',
    '-    "host": "db1",',
    '+    "host": "db2",',
    '     "port": 5432',
    "   },",
    '   "name": "orders"',
]


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def coloured(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return what a terminal of 80 columns is sent for the difference."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **variables}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    with redirect_stdout(terminal):
        print_unified(OLD, NEW, "running", "staged")
    return terminal.getvalue()


def test_lines_that_go_and_come_are_shown_with_some_around_them() -> None:
    """Both documents indented alike, whatever their own spacing."""
    assert unified_lines(OLD, NEW.replace(b" ", b"\n\t"), "running", "staged") == SHOWN
    assert unified_lines(OLD, OLD.replace(b" ", b""), "running", "staged") == []


def test_a_terminal_gets_colours_unless_it_is_asked_to_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red goes, green comes; with NO_COLOR the text is the same without any."""
    shown = coloured(monkeypatch)
    assert '\x1b[31m-    "host": "db1",\x1b[0m' in shown
    assert '\x1b[32m+    "host": "db2",\x1b[0m' in shown
    plain = coloured(monkeypatch, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert coloured(monkeypatch, TERM="dumb").splitlines() == SHOWN


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Also of a text that a terminal would interpret: JSON's own escapes are read, and shown as escapes again."""
    print_unified(OLD, NEW, "running", "staged")
    assert capsys.readouterr().out.splitlines() == SHOWN
    print_unified(b"{}", b'{"a": "\\u001b[31m"}', "running", "staged")
    assert "\x1b" not in capsys.readouterr().out
    print_unified(b"{}", b"{ }", "running", "staged")
    told = capsys.readouterr()
    assert (told.out, "written differently" in told.err) == ("", True)
    print_unified(b"not json", b"[" * 100_000, "running", "staged")
    assert "-not json" in capsys.readouterr().out


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """A service with a config in two environments, and a draft."""
    service = LiveService(f"sqlite:///{tmp_path_factory.mktemp('live')}/config.db").start()
    service.publish(b'{"host": "canary-0"}')
    service.publish(b'{"host": "canary-1"}')
    service.publish(b'{"host": "canary-prod"}', ConfigKey("orders", "prod"))
    service.call(service.app.operations.drafts.replace(service.admin.token, ConfigKey("orders"), b'{"host": "staged"}'))
    yield service
    service.stop()


def run(live: LiveService, *arguments: str, token: str = "", stdin: bytes = b"") -> Result:
    """Run a command as an operator of ``live``."""
    environment = {"CONFIG_SERVER_URL": live.url, "CONFIG_SERVER_TOKEN": token or live.admin.secret}
    return CliRunner(env=environment).invoke(program, arguments, input=stdin)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("sides", "old", "new"),
    [
        ((), "canary-1", "staged"),
        (("--from", "1", "--to", "running"), "canary-0", "canary-1"),
        (("--from", "running@prod", "--to", "2"), "canary-prod", "canary-1"),
    ],
)
def test_two_sides_are_compared_line_by_line(live: LiveService, sides: tuple[str, ...], old: str, new: str) -> None:
    """Staged, running, a version, another environment."""
    shown = run(live, "diff", "orders", "--unified", *sides).stdout.splitlines()
    assert f'-  "host": "{old}"' in shown
    assert f'+  "host": "{new}"' in shown


@pytest.mark.integration
def test_a_pipe_gets_the_list_of_places_as_before(live: LiveService) -> None:
    """What programs read stays as it was, unless lines are asked for."""
    listed = run(live, "diff", "orders").stdout
    assert listed == run(live, "diff", "orders", "--list").stdout
    assert listed.splitlines()[1] == 'changed\t/host\t"canary-1"\t"staged"'


@pytest.mark.integration
def test_commands_about_drafts_show_what_the_draft_changes(live: LiveService) -> None:
    """After a change, on request, and before it is published; where nothing is running, all of it is new."""
    for command in (("draft", "show", "orders"), ("draft", "set", "orders", "-")):
        shown = run(live, *command, "--diff", stdin=b'{"host": "staged"}')
        assert (shown.exit_code, '+  "host": "staged"' in shown.stdout) == (0, True)
    assert '+  "b": 1' in run(live, "draft", "patch", "orders", "-", "--diff", stdin=b'{"b": 1}').stdout
    assert run(live, "draft", "set", "fresh", "-", "--diff", stdin=b'{"a": 1}').stdout.endswith('+  "a": 1\n+}\n')
    assert '+  "a": 1' in run(live, "draft", "publish", "fresh", "--diff").stdout
    assert '-  "host": "canary-1"' in run(live, "draft", "revert", "orders", "--version", "1", "--diff").stdout
    assert run(live, "draft", "show", "orders", "--diff", "--json").exit_code == 2
    changed = run(live, "draft", "set", "orders", "-", "--diff", "--json", stdin=b'{"host": "staged"}')
    assert json.loads(changed.stdout)["base"] == 2


@pytest.mark.integration
def test_who_may_not_read_a_document_is_not_shown_it(live: LiveService) -> None:
    """The right to write alone shows no running document as lines; the refusal is told, and no value."""
    minted = json.loads(run(live, "token", "create", "w", "--scope", "*@*:write", "--json").stdout)
    for command in (("diff", "orders", "--unified"), ("draft", "show", "orders", "--diff")):
        refused = run(live, *command, token=minted["secret"])
        assert (refused.exit_code, refused.stdout) == (3, "")
        assert "canary" not in refused.stderr


@pytest.mark.integration
def test_a_terminal_shows_lines_to_who_may_read_them_and_the_list_to_others(
    live: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is what the service tells whoever may write; ``--list`` asks for it in any case."""
    monkeypatch.setattr("config_service.cli.drafts.is_terminal", lambda: True)
    minted = json.loads(run(live, "token", "create", "w2", "--scope", "*@*:write", "--json").stdout)
    sides = ("--from", "1", "--to", "2")
    assert "--- 1" in run(live, "diff", "orders", *sides).stdout
    assert "--- 1" not in run(live, "diff", "orders", *sides, "--list").stdout
    listed = run(live, "diff", "orders", *sides, token=minted["secret"])
    assert (listed.exit_code, "changed" in listed.stdout, "--- 1" in listed.stdout) == (0, True, False)
