"""The commands about savepoints: names for versions. They talk HTTP and know nothing of stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

import typer

from ..domain.names import check_savepoint
from .arguments import DEFAULT_URL, AsJson, Environment, Label, Name, Token, Url, command, key_query
from .documents import confirm
from .exits import CommandError, ExitCode
from .manage import ManageApi
from .output import print_json, print_line, print_table
from .wire import SAVEPOINT_COLUMNS, config_route, described, rows_of, savepoint_row, text

SavepointName = Annotated[
    str, typer.Argument(metavar="SAVEPOINT", help="The name, such as release-1.", show_default=False)
]


def add_commands(program: typer.Typer) -> None:
    """Add the group ``savepoint`` to ``program``."""
    group = typer.Typer(no_args_is_help=True)
    command(group, "set")(set_savepoint)
    command(group, "list")(list_savepoints)
    command(group, "remove")(remove)
    program.add_typer(group, name="savepoint", help="Give versions names that stand for their numbers.")


def set_savepoint(
    name: Name,
    savepoint: SavepointName,
    version: Annotated[
        int | None, typer.Option("--version", min=1, metavar="N", help="A version instead of the running one.")
    ] = None,
    move: Annotated[bool, typer.Option("--move", help="Also when the name stands for another version.")] = False,
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Let a name stand for the running version, or for another one. A version with a name is never archived."""
    query = key_query(name, environment, label)
    body = json.dumps({"version": version, "move": move}).encode()
    with ManageApi(url, token) as service:
        row = service.call("PUT", _route(name, savepoint), query=query, body=body)
    if as_json:
        print_json(row)
        return
    how = "stands" if row.get("changed") is not False else "stood"
    print_line(f"{described(row)}: {text(row, 'savepoint')} {how} for version {text(row, 'version')}")


def list_savepoints(
    name: Name,
    environment: Environment = None,
    label: Label = None,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """List the savepoints of a config, by name."""
    query = key_query(name, environment, label)
    with ManageApi(url, token) as service:
        answer = service.call("GET", config_route(name, "savepoints"), query=query)
    if as_json:
        print_json(answer)
        return
    print_table(SAVEPOINT_COLUMNS, [savepoint_row(row) for row in rows_of(answer, "savepoints")])


def remove(
    name: Name,
    savepoint: SavepointName,
    environment: Environment = None,
    label: Label = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = "",
    as_json: AsJson = False,
) -> None:
    """Remove a savepoint. The version that it stands for is kept, and may be archived from then on."""
    query = key_query(name, environment, label)
    route = _route(name, savepoint)
    if not yes:
        confirm(f"Remove the savepoint {savepoint} of {name}?", "remove the savepoint")
    with ManageApi(url, token) as service:
        row = service.call("DELETE", route, query=query)
    if as_json:
        print_json(row)
        return
    print_line(f"{described(row)}: {text(row, 'savepoint')} stands for nothing any more")


def numbered(service: ManageApi, name: str, query: Mapping[str, str | None], savepoint: str) -> int:
    """Return the number of the version that ``savepoint`` stands for. Raises CommandError when there is none."""
    answer = service.call("GET", config_route(name, "savepoints"), query=query)
    for row in rows_of(answer, "savepoints"):
        number = row.get("version")
        if row.get("savepoint") == savepoint and isinstance(number, int):
            return number
    raise CommandError(f"there is no savepoint {savepoint} of {name}", ExitCode.NOT_FOUND)


def _route(name: str, savepoint: str) -> str:
    return config_route(name, f"savepoints/{quote(check_savepoint(savepoint), safe='')}")
