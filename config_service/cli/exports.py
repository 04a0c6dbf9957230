"""The commands that write down what all configs say, and publish it elsewhere. They talk HTTP to a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from .arguments import DEFAULT_URL, AsJson, Token, Url, command
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_fields, print_json, print_note, print_table
from .progress import progress
from .whole_files import read_lines, written_whole
from .wire import EXPORT_ROUTE

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="File that holds the key of a sealed export: 64 hex characters, as `keygen` prints them.",
        show_default=False,
    ),
]


def add_commands(program: typer.Typer) -> None:
    """Add ``export-store`` and ``import`` to ``program``."""
    command(program, "export-store")(export_store)
    command(program, "import")(import_store)


def export_store(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to write; - is standard output.")],
    plain: Annotated[bool, typer.Option("--plain", help="Write the documents in the clear.")] = False,
    sealed: Annotated[bool, typer.Option("--sealed", help="Seal every line; needs --key-file.")] = False,
    key_file: KeyFile = None,
    drafts: Annotated[bool, typer.Option("--drafts", help="Drafts, too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it is there.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Write every version and schema of every config to a file, as JSON lines: without tokens, for any other service.

    Needs a token with admin, export and write everywhere. A copy of the store itself is what `backup` makes.
    """
    from .export_files import Written, read_key  # noqa: PLC0415 - other commands need no crypto

    if plain == sealed or sealed != (key_file is not None):
        raise CommandError(
            "choose: --sealed with --key-file FILE (make the key with `config-service keygen`), or --plain, which "
            "writes every password in every document in the clear",
            ExitCode.USAGE,
        )
    key = None if key_file is None else read_key(key_file)
    if plain:
        print_note("The export holds every document in the clear: whoever reads the file knows every secret in it.")
    query = {"drafts": "true" if drafts else "false"}
    with written_whole(file, overwrite=overwrite) as write, progress("export", in_bytes=True) as advance:
        written = Written(write, advance, key)
        with ManageApi(url, token) as service, service.stream(EXPORT_ROUTE, query=query) as chunks:
            for chunk in chunks:
                written.take(chunk)
        told = {"file": file, **written.finish()}
    if file == "-":
        print_note(", ".join(f"{name} {value}" for name, value in told.items()))
    elif as_json:
        print_json(told)
    else:
        print_fields({name: str(value) for name, value in told.items()})


def import_store(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File that `export-store` wrote; - is standard input.")],
    key_file: KeyFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Publish nothing, and tell what would be.")] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also where the service has other versions: publish the newest of the file."),
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Publish what an export says. What is there already is left as it is, so an import that was cut is run again.

    Needs read, export and write for the configs of the file.
    """
    from .export_files import open_export, read_key  # noqa: PLC0415
    from .importing import Import  # noqa: PLC0415

    key = None if key_file is None else read_key(key_file)
    total = None
    if file != "-":
        # Nothing is published of a file that is not whole. Standard input can be read only once.
        with read_lines(file) as (lines, size), progress("check", size, in_bytes=True) as advance:
            total = sum(1 for _ in open_export(_counted(lines, advance), key))
    with read_lines(file) as (lines, _), progress("import", total) as advance, ManageApi(url, token) as service:
        work = Import(service, dry_run=dry_run, replace=replace)
        for item in open_export(lines, key):
            work.take(item)
            advance(1)
        outcome = work.finish()
    if as_json:
        print_json(outcome.as_json())
    else:
        print_table(("WHAT", "COUNT"), outcome.rows())
    for line in outcome.left_alone:
        print_note(f"left as it is: {line}")
    if outcome.left_alone:
        raise CommandError(
            f"{len(outcome.left_alone)} configs have something else here than in the file, and were left as they are; "
            "--replace publishes the newest version of the file over others, and no draft over another one",
            ExitCode.CONFLICT,
        )


def _counted(lines: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in lines:
        advance(len(line))
        yield line
