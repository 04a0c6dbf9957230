"""What commands about documents share: a file is read, a document printed, a change told, and a person asked.

Knows files, the terminal and how a change reads. Knows no command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import typer

from .exits import CommandError, ExitCode
from .output import print_json, print_line
from .wire import described, text


def read_file(file: str) -> bytes:
    """Return what ``file`` holds; ``-`` is standard input. Raises CommandError."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
    raise CommandError(f"cannot read {file}: {reason}", ExitCode.USAGE)


def confirm(question: str, action: str) -> None:
    """Return when somebody says yes to ``question``, which is about whether to ``action``; else raise CommandError."""
    if not _is_interactive():
        raise CommandError(f"there is nobody to ask whether to {action}: add --yes", ExitCode.USAGE)
    if not typer.confirm(question, err=True):
        raise CommandError("nothing was changed", ExitCode.UNEXPECTED)


def print_document(document: bytes) -> None:
    """Write the bytes as they are, so that ``show … > file`` gives back what was published."""
    sys.stdout.flush()
    sys.stdout.buffer.write(document)
    if sys.stdout.isatty() and not document.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def print_change(row: Mapping[str, object], as_json: bool) -> None:
    """Print what a publish or rollback led to."""
    if as_json:
        print_json(row)
    elif row.get("scheduled") is True:
        which = "unchanged, version" if row.get("changed") is False else "version"
        print_line(
            f"{described(row)}: {which} {text(row, 'version')}, revision {text(row, 'revision')}, "
            f"runs from {text(row, 'valid_from')}"
        )
    elif row.get("changed") is False:
        print_line(f"{described(row)}: unchanged, still version {text(row, 'version')}")
    else:
        print_line(f"{described(row)}: version {text(row, 'version')}, revision {text(row, 'revision')}")


def _is_interactive() -> bool:
    return sys.stdin.isatty()
