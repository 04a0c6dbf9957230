"""The commands that read and change configs. They talk HTTP to a running service and know nothing of stores."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from config_client.protocol import formatted_path
from config_client.types import Format

from .arguments import (
    DEFAULT_URL,
    AsJson,
    Environment,
    IfMatch,
    Label,
    Name,
    Token,
    Url,
    ValidFrom,
    command,
    key_query,
    precondition,
    version_or_savepoint,
)
from .documents import confirm, print_change, print_document, read_file
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_fields, print_json, print_line, print_table
from .savepoints import numbered
from .wire import (
    CONFIG_COLUMNS,
    CONFIGS_ROUTE,
    VERSION_COLUMNS,
    config_route,
    config_row,
    described,
    rows_of,
    text,
    version_row,
)


def add_commands(program: typer.Typer) -> None:
    """Add ``publish``, ``show``, ``list``, ``history``, ``rollback`` and ``delete`` to ``program``."""
    command(program, "publish")(publish)
    command(program, "show")(show)
    command(program, "list")(list_configs)
    command(program, "history")(history)
    command(program, "rollback")(rollback)
    command(program, "delete")(delete)


def publish(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File that holds a JSON object; - is standard input.")],
    environment: Environment = None,
    label: Label = None,
    if_match: IfMatch = None,
    create: Annotated[bool, typer.Option("--create", help="Only while nothing of that name is running.")] = False,
    valid_from: ValidFrom = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Publish a document, which is served at once or from --valid-from on. Identical bytes make no new version."""
    if create and if_match is not None:
        raise CommandError("--create and --if-match exclude each other", ExitCode.USAGE)
    query = key_query(name, environment, label) | {"valid_from": valid_from}
    headers = {"If-None-Match": "*"} if create else precondition(if_match)
    document = read_file(file)
    with ManageApi(url, token) as service:
        row = service.call("PUT", config_route(name), query=query, headers=headers, body=document)
    print_change(row, as_json)


def show(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    fmt: Annotated[
        Format | None,
        typer.Option("--format", help="Print the document itself, in plaintext.", show_default=False),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="N", help="With --format: an older version, by number or savepoint."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Show what is running: version, revision, time and author; with --format the document."""
    if fmt is not None and as_json:
        raise CommandError("--format prints the document, --json what is known of it: choose one", ExitCode.USAGE)
    if fmt is None and version is not None:
        raise CommandError("--version needs --format; `config-service history` lists the versions", ExitCode.USAGE)
    query = key_query(name, environment, label)
    which = None if version is None else version_or_savepoint(version)
    with ManageApi(url, token) as service:
        if fmt is not None:
            if isinstance(which, str):
                which = numbered(service, name, query, which)
            query |= {"format": fmt.value, "version": None if which is None else str(which)}
            print_document(service.fetch("GET", formatted_path(name), query=query))
            return
        row = service.call("GET", config_route(name), query=query)
    if as_json:
        print_json(row)
        return
    print_fields(dict(zip(CONFIG_COLUMNS, config_row(row), strict=True)) | {"REVISION": text(row, "revision")})


def list_configs(url: Url = DEFAULT_URL, token: Token = "", as_json: AsJson = False) -> None:
    """List every config that the token may read or write."""
    with ManageApi(url, token) as service:
        answer = service.call("GET", CONFIGS_ROUTE)
    if as_json:
        print_json(answer)
        return
    print_table(CONFIG_COLUMNS, [config_row(row) for row in rows_of(answer, "configs")])


def history(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """List every version of a config, the newest first."""
    query = key_query(name, environment, label)
    with ManageApi(url, token) as service:
        answer = service.call("GET", config_route(name, "history"), query=query)
    if as_json:
        print_json(answer)
        return
    print_table(VERSION_COLUMNS, [version_row(row) for row in rows_of(answer, "versions")])


def rollback(
    name: Name,
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION", help="The version to go back to, by number or savepoint.", show_default=False
        ),
    ],
    environment: Environment = None,
    label: Label = None,
    if_match: IfMatch = None,
    valid_from: ValidFrom = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Publish the document of another version again, as a new version."""
    query = key_query(name, environment, label)
    body = json.dumps(
        {"version": version_or_savepoint(version)} | ({} if valid_from is None else {"valid_from": valid_from})
    ).encode()
    with ManageApi(url, token) as service:
        row = service.call(
            "POST", config_route(name, "rollback"), query=query, headers=precondition(if_match), body=body
        )
    print_change(row, as_json)


def delete(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    if_match: IfMatch = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Stop serving a config. Its versions are kept, and `rollback` brings it back."""
    query = key_query(name, environment, label)
    if not yes:
        where = f"{environment or 'the default environment'}, {label or 'main'}"
        confirm(f"Stop serving {name} ({where})?", "delete")
    with ManageApi(url, token) as service:
        row = service.call("DELETE", config_route(name), query=query, headers=precondition(if_match))
    if as_json:
        print_json(row)
        return
    print_line(f"{described(row)}: deleted, as version {text(row, 'version')}")
