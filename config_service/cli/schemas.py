"""The commands that say what a config has to look like. They talk HTTP to a running service."""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import DEFAULT_URL, AsJson, Environment, Label, Name, Token, Url, command, key_query
from .documents import confirm, print_document, read_file
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_fields, print_json, print_line, print_table
from .wire import SCHEMA_COLUMNS, config_route, described, rows_of, schema_row, text


def add_commands(program: typer.Typer) -> None:
    """Add the group ``schema`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "show")(show)
    command(group, "set")(set_schema)
    command(group, "remove")(remove)
    command(group, "history")(history)
    program.add_typer(group, name="schema", help="Say what a config has to look like, by JSON Schema.")


def show(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    document: Annotated[bool, typer.Option("--document", help="Print the schema itself.")] = False,
    version: Annotated[int | None, typer.Option("--version", min=1, metavar="N", help="An older schema.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Show the schema in force: its number, time and author; with --document what it says."""
    if document and as_json:
        raise CommandError("--document prints the schema, --json what is known of it: choose one", ExitCode.USAGE)
    query = key_query(name, environment, label) | {"version": None if version is None else str(version)}
    with ManageApi(url, token) as service:
        if document:
            print_document(service.fetch("GET", config_route(name, "schema/document"), query=query))
            return
        row = service.call("GET", config_route(name, "schema"), query=query)
    if as_json:
        print_json(row)
        return
    where = {field.upper(): text(row, field) for field in ("name", "environment", "label")}
    print_fields(where | dict(zip(SCHEMA_COLUMNS, schema_row(row), strict=True)))


def set_schema(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File that holds a JSON Schema; - is standard input.")],
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Validate every publish by this schema from now on. What is running stays, whether it fits or not."""
    query = key_query(name, environment, label)
    schema = read_file(file)
    with ManageApi(url, token) as service:
        row = service.call("PUT", config_route(name, "schema"), query=query, body=schema)
    if as_json:
        print_json(row)
    elif row.get("changed") is False:
        print_line(f"{described(row)}: unchanged, still schema {text(row, 'number')}")
    else:
        print_line(f"{described(row)}: schema {text(row, 'number')}, revision {text(row, 'revision')}")


def remove(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Validate nothing from now on. The schemas are kept in the history."""
    query = key_query(name, environment, label)
    if not yes:
        confirm(f"Publish {name} without a schema from now on?", "remove the schema")
    with ManageApi(url, token) as service:
        row = service.call("DELETE", config_route(name, "schema"), query=query)
    if as_json:
        print_json(row)
        return
    print_line(f"{described(row)}: schema removed, as number {text(row, 'number')}")


def history(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """List every schema of a config, the newest first."""
    query = key_query(name, environment, label)
    with ManageApi(url, token) as service:
        answer = service.call("GET", config_route(name, "schema/history"), query=query)
    if as_json:
        print_json(answer)
        return
    print_table(SCHEMA_COLUMNS, [schema_row(row) for row in rows_of(answer, "schemas")])
