"""What the commands print, on a terminal and elsewhere."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from config_service.cli.output import print_fields, print_json, print_table, printable
from config_service.cli.progress import progress


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 80 columns without colours, whatever the test runs in."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    return Terminal()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("orders", "orders"),
        ("größe €", "größe €"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("\ud800", "\\ud800"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_what_a_terminal_would_interpret_is_spelled_out(text: str, shown: str) -> None:
    """Control, format and lone surrogate characters become escapes; everything else stays."""
    assert printable(text) == shown


def test_a_table_on_a_terminal_is_aligned_and_markup_stays_text(terminal: Terminal) -> None:
    """Columns line up, and a name that looks like rich markup is shown as it is."""
    with redirect_stdout(terminal):
        print_table(("NAME", "VERSION"), [("[red]orders[/red]", "3"), ("b", "12")])
    lines = [line.rstrip() for line in terminal.getvalue().splitlines()]
    assert lines == ["NAME               VERSION", "[red]orders[/red]  3", "b                  12"]


def test_a_long_cell_on_a_terminal_is_folded_not_cut(terminal: Terminal) -> None:
    """Nothing is lost when a terminal is narrow."""
    with redirect_stdout(terminal):
        print_table(("NAME", "SCOPES"), [("x" * 100, "y" * 100)])
    shown = terminal.getvalue()
    assert (shown.count("x"), shown.count("y")) == (100, 100)
    assert "…" not in shown


def test_a_table_elsewhere_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    """A header line and one line per row; a tab inside a cell cannot make a column."""
    print_table(("NAME", "VERSION"), [("a\tb", "3")])
    assert capsys.readouterr().out == "NAME\tVERSION\na\\tb\t3\n"


def test_fields_are_never_wrapped(terminal: Terminal) -> None:
    """A key can be copied whole, also from a narrow terminal."""
    with redirect_stdout(terminal):
        print_fields({"id": "7", "secret": "s" * 200})
    assert terminal.getvalue() == f"id      7\nsecret  {'s' * 200}\n"


def test_json_is_indented_and_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes of JSON keep control characters away from a terminal too."""
    print_json({"name": "\x1bü"})
    assert capsys.readouterr().out == '{\n  "name": "\\u001b\\u00fc"\n}\n'


def test_progress_is_shown_on_a_terminal_and_nowhere_else(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, so that stdout stays what a program reads; a dumb terminal and a log get nothing."""
    monkeypatch.setattr("sys.stderr", terminal)
    for kind, shown in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", kind)
        with progress("import", total=4) as advance:
            advance(3)
        assert ("import" in terminal.getvalue()) is shown
    assert "3/4" in terminal.getvalue()
    monkeypatch.undo()
    with progress("backup", in_bytes=True) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {}])
def test_a_table_has_no_colours_where_they_are_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    """Its header is bold, which is no colour; no cell is coloured in any case."""
    for name, value in {"TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    with redirect_stdout(terminal):
        print_table(("NAME",), [("orders",)])
    assert "\x1b[3" not in terminal.getvalue()
