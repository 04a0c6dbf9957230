"""The commands that copy a whole store, and make a store of the copy.

``backup`` talks HTTP to a running service, or with ``--store-url`` opens a stopped store. ``restore`` always opens one.
The service itself is loaded when a store is to be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from .arguments import DEFAULT_URL, AsJson, Token, Url, command
from .manage import ManageApi
from .output import print_fields, print_json, print_note
from .progress import progress
from .whole_files import read_lines, written_whole
from .wire import BACKUP_ROUTE


def add_commands(program: typer.Typer) -> None:
    """Add ``backup`` and ``restore`` to ``program``."""
    command(program, "backup")(backup)
    command(program, "restore")(restore)


def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to write; - is standard output.")],
    store_url: Annotated[
        str | None,
        typer.Option(
            "--store-url",
            metavar="URL",
            help="Copy this store, which no service may be using. Needs CONFIG_SERVER_MASTER_KEY.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Copy the whole store, tokens included, sealed as it is; the service goes on meanwhile. Needs an admin token.

    The copy is of use only together with the master key: keep both, apart from each other.
    """
    from .backup_files import Checked  # noqa: PLC0415 - other commands need no crypto

    with written_whole(file, overwrite=overwrite) as write, progress("backup", in_bytes=True) as advance:
        checked = Checked(write, advance)
        if store_url is not None:
            from .restoring import copy_store  # noqa: PLC0415 - this loads the service

            copy_store(store_url, checked.take)
        else:
            with ManageApi(url, token) as service, service.stream(BACKUP_ROUTE) as chunks:
                for chunk in chunks:
                    checked.take(chunk)
        told = checked.finish()
    _print({"file": file, **told}, as_json, to_stderr=file == "-")


def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File that `backup` wrote; - is standard input.")],
    store_url: Annotated[
        str | None,
        typer.Option(
            "--store-url",
            metavar="URL",
            help="The new store, of any kind. (default: CONFIG_SERVER_STORE_URL)",
            show_default=False,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="EPOCH",
            help="An epoch that clients have seen since the backup, when the clock may be behind it.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the whole file, and restore nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a new store of a backup, all of it or nothing. Needs CONFIG_SERVER_MASTER_KEY as it was for the backup.

    The store begins a new epoch, later than any before, so that every watcher takes over what is restored.
    """
    from .restoring import check_backup, restore_backup  # noqa: PLC0415 - this loads the service

    with read_lines(file) as (lines, size), progress("restore", size, in_bytes=True) as advance:
        counted = _counted(lines, advance)
        told = check_backup(counted) if dry_run else restore_backup(counted, store_url, after)
    _print({"file": file, **told}, as_json)
    if not dry_run:
        print_note("Start the service on this store; watchers take over what it holds as soon as they reach it.")


def _counted(lines: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in lines:
        advance(len(line))
        yield line


def _print(told: dict[str, object], as_json: bool, *, to_stderr: bool = False) -> None:
    if to_stderr:
        print_note(", ".join(f"{name} {value}" for name, value in told.items()))
    elif as_json:
        print_json(told)
    else:
        print_fields({name: str(value) for name, value in told.items()})
