"""The command that archives documents of old versions. It talks HTTP, and writes a file of what goes if asked to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer

from .arguments import DEFAULT_URL, AsJson, Token, Url, command
from .documents import confirm
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_json, print_line, print_table
from .progress import progress
from .wire import ARCHIVE_COLUMNS, ARCHIVE_ROUTE, CANDIDATES_ROUTE, archive_row, rows_of

_PAGE: Final = 100


def add_commands(program: typer.Typer) -> None:
    """Add ``archive`` to ``program``."""
    command(program, "archive")(archive)


def archive(
    before: Annotated[
        str,
        typer.Option(
            "--before", metavar="TIME", help="The cut-off, such as 2026-01-01 (UTC) or 2026-01-01T12:00:00+02:00."
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="GLOB", help="Only configs of these names.")] = "*",
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FILE",
            help="Append each document to FILE first, in plaintext, as JSON lines.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Remove the documents of versions published before a cut-off, for good. The versions' history stays.

    Never of the newest or the running version, one that is scheduled or has a savepoint, nor of a draft's base. It may
    be interrupted and run again: what is archived already is not looked at again.
    """
    cut_off = f"{before}T00:00:00Z" if "T" not in before.upper() else before
    if not dry_run and not yes:
        where = f"after writing them to {to}" if to else "and keep no copy"
        confirm(f"Remove the documents of versions before {before}, {where}?", "archive")
    done: list[Mapping[str, object]] = []
    with ManageApi(url, token) as service, progress("archiving") as advance:
        after: object = None
        while True:
            wanted = {"before": cut_off, "name": name, "after": after, "limit": _PAGE, "documents": to is not None}
            page = service.call("POST", CANDIDATES_ROUTE, body=json.dumps(wanted).encode())
            rows = rows_of(page, "candidates")
            if to is not None and rows and not dry_run:
                _append(to, rows)
            if rows:
                done += _summed(rows) if dry_run else _archived(service, cut_off, rows)
                advance(len(rows))
            after = page.get("after")
            if after is None:
                break
    if as_json:
        print_json({"archived": done, "dry_run": dry_run})
        return
    print_table(ARCHIVE_COLUMNS, [archive_row(row) for row in done])
    count = sum(len(versions) for row in done if isinstance(versions := row.get("versions"), list))
    print_line(f"{count} documents {'would be' if dry_run else 'were'} archived")


def _archived(service: ManageApi, cut_off: str, rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    body = {"before": cut_off, "configs": _summed(rows)}
    return rows_of(service.call("POST", ARCHIVE_ROUTE, body=json.dumps(body).encode()), "archived")


def _summed(rows: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """Return one row per config, with the numbers of its versions."""
    found: dict[tuple[object, object, object], list[object]] = {}
    for row in rows:
        found.setdefault((row.get("name"), row.get("environment"), row.get("label")), []).append(row.get("version"))
    return [
        {"name": name, "environment": environment, "label": label, "versions": versions}
        for (name, environment, label), versions in found.items()
    ]


def _append(file: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write ``rows`` to ``file`` such that they outlive a power cut, before any of it goes. Raises CommandError."""
    lines = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "ab") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise CommandError(f"cannot write {file}: {reason}; nothing more was archived", ExitCode.USAGE) from None
