"""What a command prints: tables for people on a terminal, tab-separated lines for programs, JSON where asked.

Knows rows of text and whether stdout is a terminal. Text is shown, never interpreted: neither rich's markup nor control
characters of a terminal can be smuggled in by a name, a label or a message of a service.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence


def printable(text: str) -> str:
    """Return ``text`` with every character that a terminal would not show as itself spelled as an escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_terminal() -> bool:
    """Tell whether what is printed is read by a person."""
    return sys.stdout.isatty()


def print_json(answer: object, *, flush: bool = False) -> None:
    """Print the service's answer as indented JSON."""
    print(json.dumps(answer, indent=2), flush=flush)


def print_line(text: str) -> None:
    """Print one line on stdout, at once: it may be the line that a reader on the other end of a pipe waits for."""
    print(printable(text), flush=True)


def print_note(text: str) -> None:
    """Print one line for people on stderr, so that stdout stays what a program reads."""
    print(printable(text), file=sys.stderr, flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal; elsewhere a header line and one line per row, separated by tabs."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(printable(cell) for cell in row))
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


def print_fields(fields: Mapping[str, str]) -> None:
    """Print one value per line after its name: aligned on a terminal, elsewhere separated by a tab.

    Lines are never wrapped or cut, so that a secret can be copied whole.
    """
    width = max(map(len, fields), default=0)
    aligned = sys.stdout.isatty()
    for name, value in fields.items():
        print(f"{name.ljust(width)}  {printable(value)}" if aligned else f"{name}\t{printable(value)}")
