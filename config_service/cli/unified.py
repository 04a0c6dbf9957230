"""What differs between two documents, as a person reads it: lines that go and lines that come, with some around them.

Knows JSON as text and the terminal. Knows nothing of where the documents come from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from typing import Final

from .output import print_note, printable

_STYLES: Final[Mapping[str, str]] = {"---": "bold", "+++": "bold", "@@": "cyan", "-": "red", "+": "green"}
"""By how a line begins; the first one that fits."""


def unified_lines(old: bytes, new: bytes, old_name: str, new_name: str) -> list[str]:
    """Return the lines of a unified difference of two JSON documents, indented alike; none where they say the same."""
    before, after = _lines(old), _lines(new)
    return list(unified_diff(before, after, old_name, new_name, lineterm=""))


def print_unified(old: bytes, new: bytes, old_name: str, new_name: str) -> None:
    """Print a unified difference: coloured on a terminal (unless NO_COLOR is set), elsewhere plain."""
    lines = [printable(line) for line in unified_lines(old, new, old_name, new_name)]
    if not lines and old != new:
        print_note("The documents say the same and are written differently.")
    _print(lines)


def _lines(document: bytes) -> list[str]:
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return document.decode("utf-8", "replace").splitlines()
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def _print(lines: Sequence[str]) -> None:
    if not sys.stdout.isatty():
        for line in lines:
            print(line)
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    for line in lines:
        style = next((style for start, style in _STYLES.items() if line.startswith(start)), "")
        console.print(Text(line, style=style), soft_wrap=True)
