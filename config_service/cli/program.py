"""The command line as a whole: which commands there are. Each one lives in the module that says what it is about."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    archive,
    audit,
    backups,
    configs,
    drafts,
    exports,
    keys,
    savepoints,
    schedules,
    schemas,
    service,
    tokens,
    watchers,
)
from .examples import add_examples

program = typer.Typer(
    help="An encrypted configuration service: run it, publish to it, hand out tokens.",
    epilog="Exit codes and settings: docs/OPERATIONS.md",
    no_args_is_help=True,
    # A traceback may show what a variable holds; failures are told in one sentence by `exits.reporting`.
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"config-service {_version()}")
        raise typer.Exit


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - only here

    try:
        return version("python-config-client")
    except PackageNotFoundError:
        return "of a source tree that is not installed"


@program.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


service.add_commands(program)
configs.add_commands(program)
drafts.add_commands(program)
schedules.add_commands(program)
savepoints.add_commands(program)
archive.add_commands(program)
schemas.add_commands(program)
tokens.add_commands(program)
watchers.add_commands(program)
keys.add_commands(program)
audit.add_commands(program)
exports.add_commands(program)
backups.add_commands(program)
add_examples(program)
